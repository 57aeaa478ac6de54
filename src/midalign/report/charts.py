"""Small SVG charts for the report: lines with bands, scatter, interval rows. No script, no plotting library.

Colours come from the page's style sheet (classes ``s0``, ``s1``, ...), so that a chart follows light, dark and print;
every series also differs in marker shape and dashes and is labelled at its end, so that colour is never needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from midalign.report.views import Estimate

_WIDTH, _HEIGHT = 500, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 132, 16, 42
_MARKERS = ("circle", "square", "triangle", "diamond", "plus", "down")
_MOST_MARKERS = 40
_COLOURS = 10  # classes s0 to s9 of the style sheet
_LABEL_GAP = 15.0
_LONGEST_LABEL = 16


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its label, the number of its style, and its points by x."""

    label: str
    style: int
    points: Sequence[tuple[float, Estimate]]


@dataclass(frozen=True, slots=True)
class Dot:
    """One point of a scatter plot, with its label."""

    x: float
    y: float
    label: str
    title: str
    style: int = 1


@dataclass(frozen=True, slots=True)
class _Frame:
    """Data ranges, and where they lie on the drawing."""

    x: tuple[float, float]
    y: tuple[float, float]
    right: int = _RIGHT

    def across(self, value: float) -> float:
        """Data to drawing, horizontally."""
        return _LEFT + (value - self.x[0]) / (self.x[1] - self.x[0]) * (_WIDTH - _LEFT - self.right)

    def down(self, value: float) -> float:
        """Data to drawing, vertically."""
        return _HEIGHT - _BOTTOM - (value - self.y[0]) / (self.y[1] - self.y[0]) * (_HEIGHT - _TOP - _BOTTOM)


def line_chart(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    title: str,
    mark: tuple[float, str] | None = None,
    percent: bool = False,
    from_zero: bool = True,
) -> Markup:
    """Lines over a common x axis, with bands where the points have intervals.

    Args:
        series: The lines; empty ones are left out.
        x_label: Name of the x axis.
        y_label: Name of the y axis, with its unit.
        title: What a screen reader says.
        mark: An x value for a dashed vertical line, and its label.
        percent: Whether the y values are fractions to be shown in percent.
        from_zero: Whether the y axis starts at 0.
    """
    shown = [line for line in series if line.points]
    if not shown:
        return Markup("")
    xs = [x for line in shown for x, _ in line.points]
    values = [v for line in shown for _, e in line.points for v in (e.value, e.low, e.high) if v is not None]
    frame = _Frame(_span(xs), _to_ticks(_span([*values, 0.0] if from_zero else values)))
    parts = _axes(frame, x_label, y_label, (lambda v: f"{100 * v:.3g}") if percent else None)
    if mark is not None and frame.x[0] <= mark[0] <= frame.x[1]:
        parts.append(_mark(frame, *mark))
    for line in shown:
        parts += _line(frame, line, percent)
    parts += _end_labels(frame, shown)
    return _svg(parts, title)


def scatter_chart(dots: Sequence[Dot], x_label: str, y_label: str, title: str) -> Markup:
    """Labelled points; both axes in percent of fractions unless the values say otherwise."""
    frame = _Frame(_span([d.x for d in dots], room=0.08), _span([d.y for d in dots], room=0.08), right=34)
    parts = _axes(frame, x_label, y_label, None)
    taken = [(frame.across(dot.x) - 6, frame.down(dot.y) - 6, 12.0, 12.0) for dot in dots]
    for dot in dots:
        x, y = frame.across(dot.x), frame.down(dot.y)
        left, top = _free_place(x, y, 6.5 * len(dot.label), taken)
        taken.append((left, top, 6.5 * len(dot.label), 11.0))
        text = f"<title>{escape(dot.title)}</title>{_marker(dot.style, x, y, 4.2)}"
        parts.append(f'<g class="s{dot.style % _COLOURS}">{text}<text class="tag" x="{left:.1f}" y="{top + 9:.1f}">')
        parts.append(f"{escape(dot.label)}</text></g>")
    return _svg(parts, title)


def _free_place(
    x: float, y: float, width: float, taken: Sequence[tuple[float, float, float, float]]
) -> tuple[float, float]:
    """Left and top of a label beside its point: the first free place of right, left, above and below."""
    places = [(x + 8, y - 5), (x - 8 - width, y - 5), (x - width / 2, y - 18), (x - width / 2, y + 7)]

    def is_free(place: tuple[float, float]) -> bool:
        return all(
            place[0] + width < left or left + wide < place[0] or place[1] + 11 < top or top + high < place[1]
            for left, top, wide, high in taken
        )

    return next((place for place in places if is_free(place)), places[0])


def interval_row(
    entries: Sequence[tuple[int, Estimate]], span: tuple[float, float], title: str, width: int = 180
) -> Markup:
    """One table row's values with their intervals on a common axis: a whisker and a marker for each."""
    height = 6 + 8 * len(entries)

    def across(value: float) -> float:
        return 5 + (min(max(value, span[0]), span[1]) - span[0]) / ((span[1] - span[0]) or 1) * (width - 10)

    parts = []
    for row, (style, estimate) in enumerate(entries):
        y = 7 + 8 * row
        body = _marker(style, across(estimate.value), y, 3.4)
        if estimate.low is not None and estimate.high is not None:
            body = f'<path class="line" d="M{across(estimate.low):.1f} {y}H{across(estimate.high):.1f}"/>{body}'
        parts.append(f'<g class="s{style % _COLOURS}">{body}</g>')
    head = f'<svg class="row" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
    return Markup(f'{head} aria-label="{escape(title)}">{"".join(parts)}</svg>')  # noqa: S704 - text is escaped


def key_marker(style: int) -> Markup:
    """The marker of a style, for a legend or a table head."""
    line = '<path class="line" d="M0 7H22"/>'
    body = f'<g class="s{style % _COLOURS}">{line}{_marker(style, 11, 7, 4)}</g>'
    return Markup(f'<svg class="key" viewBox="0 0 22 14" width="22" height="14" aria-hidden="true">{body}</svg>')  # noqa: S704


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` round values from `low` to `high` (steps of 1, 2, 2.5 or 5 times a power of ten)."""
    raw = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    digits = 2 - math.floor(math.log10(step))  # i * step without its floating-point tail
    return [round(i * step, digits) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _span(values: Sequence[float], room: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    extra = (high - low) * room
    if high - low < 1e-12:
        return low - (abs(low) or 1) * 0.5, high + (abs(high) or 1) * 0.5
    return (low if low == 0 else low - extra), high + extra


def _to_ticks(span: tuple[float, float]) -> tuple[float, float]:
    """The span widened to the next ticks, so that the axis ends at labelled values."""
    marks = ticks(*span)
    step = marks[1] - marks[0] if len(marks) > 1 else span[1] - span[0]
    return math.floor(span[0] / step + 1e-9) * step, math.ceil(span[1] / step - 1e-9) * step


def _axes(frame: _Frame, x_label: str, y_label: str, y_text: Callable[[float], str] | None) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - frame.right
    parts = ['<g class="axis">']
    for value in ticks(*frame.y):
        y = frame.down(value)
        label = y_text(value) if y_text else f"{value:g}"
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text class="end" x="{_LEFT - 7}" y="{y + 4:.1f}">{label.replace("-", "−")}</text>')
    for value in ticks(*frame.x, most=8):
        x = frame.across(value)
        parts.append(f'<path d="M{x:.1f} {bottom}v4"/>')
        parts.append(f'<text class="mid" x="{x:.1f}" y="{bottom + 17}">{f"{value:g}".replace("-", "−")}</text>')
    parts.append(f'<path d="M{_LEFT} {bottom}H{right}"/>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text class="mid name" x="{middle:.0f}" y="{_HEIGHT - 6}">{escape(x_label)}</text>')
    center = (_TOP + bottom) / 2
    parts.append(f'<text class="mid name" transform="translate(12 {center:.0f}) rotate(-90)">{escape(y_label)}</text>')
    parts.append("</g>")
    return parts


def _mark(frame: _Frame, value: float, label: str) -> str:
    x = frame.across(value)
    return (
        f'<g class="mark"><path d="M{x:.1f} {_TOP - 4}V{_HEIGHT - _BOTTOM}"/>'
        f'<text class="{"end" if x > _WIDTH / 2 else ""}" x="{x + (-5 if x > _WIDTH / 2 else 5):.1f}" y="{_TOP + 4}">'
        f"{escape(label)}</text></g>"
    )


def _line(frame: _Frame, line: Series, percent: bool) -> list[str]:
    points = [(frame.across(x), frame.down(e.value)) for x, e in line.points]
    parts = [f'<g class="s{line.style % _COLOURS}">']
    band = [
        (frame.across(x), frame.down(e.low), frame.down(e.high))
        for x, e in line.points
        if e.low is not None and e.high is not None
    ]
    if len(band) > 1:
        upper = "L".join(f"{x:.1f} {high:.1f}" for x, _, high in band)
        lower = "L".join(f"{x:.1f} {low:.1f}" for x, low, _ in reversed(band))
        parts.append(f'<path class="band" d="M{upper}L{lower}Z"/>')
    parts.append(f'<path class="line" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>')
    if len(points) <= _MOST_MARKERS:
        for (x, y), (at, estimate) in zip(points, line.points, strict=True):
            value = f"{100 * estimate.value:.1f} %" if percent else f"{estimate.value:.4g}"
            parts.append(f"<g><title>{escape(line.label)}, {at:g}: {value}</title>{_marker(line.style, x, y, 3.4)}</g>")
    parts.append("</g>")
    return parts


def _end_labels(frame: _Frame, series: Sequence[Series]) -> list[str]:
    """Names of the lines beside their last points, moved apart where they would overlap."""
    ends = [(frame.down(line.points[-1][1].value), line) for line in series]
    wanted = sorted(ends, key=lambda pair: pair[0])
    places: list[float] = []
    for y, _ in wanted:
        places.append(max(y, places[-1] + _LABEL_GAP) if places else y)
    overflow = max(0.0, places[-1] - (_HEIGHT - _BOTTOM))
    for i in range(len(places) - 1, -1, -1):  # pushed past the bottom: push back up
        limit = places[i + 1] - _LABEL_GAP if i + 1 < len(places) else places[i] - overflow
        places[i] = min(places[i], limit)
    parts = []
    for place, (y, line) in zip(places, wanted, strict=True):
        x, edge = frame.across(line.points[-1][0]), _WIDTH - frame.right
        leader = f"M{x + 5:.1f} {y:.1f}L{edge + 11:.1f} {place:.1f}"
        name = line.label if len(line.label) <= _LONGEST_LABEL else line.label[: _LONGEST_LABEL - 1] + "…"
        text = f'<text class="label" x="{edge + 14:.1f}" y="{place + 4:.1f}">{escape(name)}</text>'
        parts.append(f'<g class="s{line.style % _COLOURS}"><path class="leader" d="{leader}"/>{text}</g>')
    return parts


def _marker(style: int, x: float, y: float, r: float) -> str:
    shape = _MARKERS[style % len(_MARKERS)]
    if shape == "circle":
        return f'<circle class="dot hollow" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'
    wide, tall, tip = f"{1.2 * r:.1f}", f"{2.2 * r:.1f}", f"{1.35 * r:.1f}"
    outline = {
        "square": f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z",
        "triangle": f"M{x:.1f} {y - 1.25 * r:.1f}l{wide} {tall}h{-2.4 * r:.1f}z",
        "diamond": f"M{x:.1f} {y - 1.35 * r:.1f}l{tip} {tip}l-{tip} {tip}l-{tip}-{tip}z",
        "plus": f"M{x - r:.1f} {y:.1f}h{2 * r}M{x:.1f} {y - r:.1f}v{2 * r}",
        "down": f"M{x:.1f} {y + 1.25 * r:.1f}l{wide}-{tall}h{-2.4 * r:.1f}z",
    }[shape]
    return f'<path class="dot {shape}" d="{outline}"/>'


def _svg(parts: Sequence[str], title: str) -> Markup:
    head = f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
    return Markup(f"{head}{''.join(parts)}</svg>")  # noqa: S704 - every text above went through escape


def projection_chart(points: Mapping[str, Sequence[Sequence[float]]], names: Mapping[str, str], title: str) -> Markup:
    """One dot per sentence and language; a path of its own per language, so that the page can highlight it."""
    xs = [p[0] for entries in points.values() for p in entries]
    ys = [p[1] for entries in points.values() for p in entries]
    (x0, x1), (y0, y1) = _span(xs, 0.05), _span(ys, 0.05)
    size = 320

    def place(point: Sequence[float]) -> str:
        return f"{(point[0] - x0) / (x1 - x0) * size:.1f} {size - (point[1] - y0) / (y1 - y0) * size:.1f}"

    parts = []
    for code, entries in points.items():
        path = "".join(f"M{place(p)}h0" for p in entries)
        label = escape(names.get(code, code))
        parts.append(f'<path class="cloud" data-language="{escape(code)}" d="{path}"><title>{label}</title></path>')
    head = f'<svg class="projection" viewBox="0 0 {size} {size}" role="img" aria-label="{escape(title)}">'
    return Markup(f'{head}{"".join(parts)}<path class="star" d=""/></svg>')  # noqa: S704 - text is escaped
