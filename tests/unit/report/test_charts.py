"""The report's drawings: ticks, lines, labels that do not overlap, and text that stays text."""

import itertools
import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from midalign.report.charts import Dot, Series, interval_row, line_chart, projection_chart, scatter_chart, ticks
from midalign.report.views import Estimate

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@given(FINITE, st.floats(1e-6, 1e6), st.integers(2, 9))
def test_ticks_are_even_inside_and_few(low, width, most):
    high = low + width
    found = ticks(low, high, most)
    room = 1e-6 * max(abs(low), abs(high), width)
    assert len(found) <= most + 1
    assert all(low - room <= value <= high + room for value in found)
    steps = [b - a for a, b in itertools.pairwise(found)]
    assert all(abs(step - steps[0]) <= room for step in steps)


def test_ticks_are_round():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 12, 8) == [0, 2, 4, 6, 8, 10, 12]


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=5))
def test_line_chart_is_valid_and_its_labels_keep_apart(lines):
    series = [
        Series(f"<{i}>", i, [(float(x), Estimate(y, y / 2, y)) for x, y in enumerate(line)])
        for i, line in enumerate(lines)
    ]
    root = ElementTree.fromstring(line_chart(series, "x & y", "z", '"title"', (0.0, "here"), percent=True))
    labels = [e for e in root.iter("text") if e.get("class") == "label"]
    assert {e.text for e in labels} == {line.label for line in series}
    heights = sorted(float(e.get("y")) for e in labels)
    assert all(b - a >= 14.9 for a, b in itertools.pairwise(heights))
    assert heights[-1] <= 260


def test_axis_of_tiny_values_still_has_ticks():
    assert "3e-12" in line_chart([Series("a", 0, [(0, Estimate(1e-12)), (1, Estimate(3e-12))])], "x", "y", "t")


def test_line_goes_through_its_points_in_proportion():
    chart = line_chart([Series("a", 0, [(0, Estimate(0.0)), (1, Estimate(0.5)), (2, Estimate(1.0))])], "x", "y", "t")
    path = next(e for e in ElementTree.fromstring(chart).iter("path") if e.get("class") == "line").get("d")
    points = [tuple(map(float, point.split())) for point in path[1:].split("L")]
    assert points[1][0] * 2 == points[0][0] + points[2][0]
    assert abs(points[1][1] * 2 - points[0][1] - points[2][1]) <= 0.2
    assert points[0][1] > points[2][1]


def test_chart_of_nothing_is_empty():
    assert line_chart([Series("a", 0, [])], "x", "y", "t") == ""


def test_scatter_and_projection_escape_their_text():
    evil = '<script>&"'
    scatter = scatter_chart([Dot(0, 0, evil, evil), Dot(1, 1, "b", "b")], evil, evil, evil)
    cloud = projection_chart({evil: [[0, 0], [1, 1]], "b": [[0, 1], [1, 0]]}, {evil: evil}, evil)
    for drawing in (scatter, cloud):
        assert "<script" not in drawing
        ElementTree.fromstring(drawing)


def test_interval_row_puts_ends_and_value_in_order():
    row = interval_row([(1, Estimate(0.5, 0.4, 0.7))], (0.0, 1.0), "t", width=110)
    left, right = map(float, re.search(r"M([\d.]+) [\d.]+H([\d.]+)", row).groups())
    assert (left, right) == (45.0, 75.0)
