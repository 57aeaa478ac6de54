"""Words of the report: names of systems, groups and metrics, formatted numbers, and verdicts.

A verdict depends only on the interval of the paired difference. It is "better" if the whole interval is on the good
side of 0, "worse" if it is on the bad side, and "no clear difference" if it covers 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

SYSTEM_NAMES = {
    "base": "Base model",
    "sft": "Task fine-tuning",
    "joint": "Joint training",
    "merged": "Merged adapters",
    "alignment": "Alignment only",
    "shuffled": "Shuffled pairs (control)",
}
GROUP_NAMES = {
    "all": "All languages",
    "supervised": "Supervised languages",
    "transfer": "Transfer languages",
    "aligned": "Aligned languages",
    "unseen": "Unseen languages",
    "low_resource": "Low-resource languages",
    "high_resource": "High-resource languages",
    "low": "Low-resource languages",
    "high": "High-resource languages",
    "latin": "Latin script",
    "non_latin": "Other scripts",
}
ROLE_MEANINGS = {
    "supervised": "trained on task data",
    "aligned": "parallel sentences, no task data",
    "unseen": "neither task data nor parallel sentences",
    "": "role not known",
}
ROLES = ("supervised", "aligned", "unseen")
_METRIC_NAMES = {
    "slot_f1": "slot F1",
    "slot_precision": "slot precision",
    "slot_recall": "slot recall",
    "label_f1": "label F1",
    "value_f1": "value F1",
    "exact_match": "exact match",
    "intent_accuracy": "intent accuracy",
    "entity_f1": "entity F1",
    "entity_precision": "entity precision",
    "entity_recall": "entity recall",
    "unparsed": "outputs that do not parse",
    "parse_rate": "outputs that parse",
    "truncated": "outputs that are cut off",
    "not_json": "outputs that are not JSON",
    "wrong_schema": "outputs with JSON of another form",
    "unknown_type": "outputs with an unknown type",
    "not_in_text": "outputs with a text not in the sentence",
    "bleu": "BLEU",
    "chrf": "chrF",
    "ter": "TER",
    "comet": "COMET",
    "loss": "loss of the gold answers (nats)",
}
_AS_IT_IS = {"bleu", "chrf", "chrf++", "ter", "loss"}  # sacreBLEU's scale, and nats; every other score is a fraction
_LOWER_IS_BETTER = {
    *("ter", "unparsed", "loss"),
    *("truncated", "not_json", "wrong_schema", "unknown_type", "not_in_text"),
}
LEVEL = 0.05
MINUS = "\N{MINUS SIGN}"

Outcome = Literal["better", "worse", "unclear"]
SYMBOLS: Mapping[Outcome, str] = {
    "better": "\N{BLACK UP-POINTING TRIANGLE}",
    "worse": "\N{BLACK DOWN-POINTING TRIANGLE}",
    "unclear": "\N{WHITE CIRCLE}",
}


def system_name(system: str) -> str:
    """A system's name for people."""
    return SYSTEM_NAMES.get(system, system)


def shown_groups(names: Iterable[str]) -> list[str]:
    """Groups, each once; high-resource languages only beside low-resource ones: else nobody said which are which."""
    found = dict.fromkeys(names)
    return [name for name in found if name != "high_resource" or "low_resource" in found]


def group_name(group: str) -> str:
    """A group's name for people."""
    kind, _, value = group.partition(":")
    return GROUP_NAMES.get(group) or (f"{kind.capitalize()} {value}" if value else group.replace("_", " "))


def metric_name(metric: str) -> str:
    """A metric's name for people."""
    return _METRIC_NAMES.get(metric.lower(), metric.replace("_", " "))


def scale(metric: str) -> float:
    """Factor from a stored score to points out of 100."""
    return 1.0 if metric.lower() in _AS_IT_IS else 100.0


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value is the better one."""
    return metric.lower() in _LOWER_IS_BETTER


def points(metric: str, value: float) -> str:
    """A score in points out of 100, one decimal; a loss in nats, three."""
    return f"{value * scale(metric):.{_decimals(metric)}f}".replace("-", MINUS)


def signed(metric: str, value: float) -> str:
    """A difference in points, with its sign."""
    text = f"{value * scale(metric):+.{_decimals(metric)}f}".replace("-", MINUS)
    return text if float(text.replace(MINUS, "-")) else text[1:]


def _decimals(metric: str) -> int:
    return 3 if metric.lower() == "loss" else 1


def percent(value: float) -> str:
    """A fraction in percent, one decimal."""
    return f"{100 * value:.1f} %"


def seconds(value: float) -> str:
    """A duration: ``8.2 s``, ``3 min 05 s``, ``2 h 04 min``."""
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def p_text(p: float | None) -> str:
    """A p-value with three digits, or the empty string."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


@dataclass(frozen=True, slots=True)
class Difference:
    """The paired difference of two systems on one language or group: system minus baseline."""

    baseline: str
    system: str
    metric: str
    key: str
    difference: float
    low: float
    high: float
    p: float | None
    p_holm: float | None

    @property
    def outcome(self) -> Outcome:
        """Better, worse or unclear, by the interval and the metric's good direction."""
        if self.low <= 0 <= self.high:
            return "unclear"
        return "better" if (self.low > 0) != lower_is_better(self.metric) else "worse"

    @property
    def survives(self) -> bool:
        """Whether a clear difference stays significant after Holm's correction for its family of comparisons (5 %)."""
        return self.p_holm is None or self.p_holm < LEVEL

    @property
    def text(self) -> str:
        """``+3.8 (+1.2 to +6.3)``."""
        low, high = signed(self.metric, self.low), signed(self.metric, self.high)
        return f"{signed(self.metric, self.difference)} ({low} to {high})"


def differences(entries: Iterable[Mapping[str, Any]]) -> list[Difference]:
    """The paired comparisons of a summary."""
    return [
        Difference(
            baseline=str(entry["baseline"]),
            system=str(entry["system"]),
            metric=str(entry["metric"]),
            key=str(entry.get("group") or entry["language"]),
            difference=float(entry["difference"]),
            low=float(entry["low"]),
            high=float(entry["high"]),
            p=_p_value(entry, "p_randomization", "p"),
            p_holm=_p_value(entry, "p_holm"),
        )
        for entry in entries
    ]


def _p_value(entry: Mapping[str, Any], *names: str) -> float | None:
    found = [entry[name] for name in names if entry.get(name) is not None]
    return float(found[0]) if found else None


def verdict(found: Difference, before: float | None, after: float | None) -> str:
    """Verdict as one sentence, without the group's name: who gains or loses how much, with the interval."""
    metric, name = metric_name(found.metric), system_name(found.system)
    low, high = signed(found.metric, found.low), signed(found.metric, found.high)
    pair = ""
    if before is not None and after is not None:
        pair = f", {points(found.metric, before)} \N{RIGHTWARDS ARROW} {points(found.metric, after)}"
    if found.outcome == "unclear":
        change = signed(found.metric, found.difference)
        return f"{name} makes no clear difference in {metric}{pair} ({change}; {low} to {high} covers 0)."
    size = points(found.metric, abs(found.difference)) + ("" if found.metric == "loss" else " points")
    sentence = f"{name} is {found.outcome} by {size} of {metric}{pair} ({low} to {high})"
    if not found.survives:
        sentence += f", but not once all comparisons are counted (Holm p = {found.p_holm:.2g})"
    return f"{sentence}."
