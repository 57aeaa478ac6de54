"""What of a run's scores are groups, and how many languages a verdict is about."""

import json

import pytest

from midalign.report.read import read_run
from midalign.report.results import Results
from midalign.report.score_table import comparison_table
from midalign.report.verdicts import verdicts
from midalign.report.words import shown_groups
from tests.synthetic_run import CODES, SYSTEMS, write_run


@pytest.fixture
def changed(tmp_path):
    """A run whose last supervised language was not scored, and whose first one was in one direction too."""
    folder = write_run(tmp_path / "run")
    direction = f"{CODES[0]}-{CODES[1]}"
    for system in SYSTEMS:
        file = folder / "evaluation" / system / "scores.json"
        content = json.loads(file.read_text())
        kept = [row for row in content["scores"] if row.get("language") != CODES[4]]
        turned = [row | {"group": direction} for row in kept if row.get("language") == CODES[0]]
        file.write_text(json.dumps({"scores": [*kept, *turned]}))
    summary = json.loads((folder / "summary.json").read_text())
    same = next(row for row in summary["comparisons"] if row.get("language"))
    summary["comparisons"].append(same | {"language": CODES[0], "group": direction})
    (folder / "summary.json").write_text(json.dumps(summary))
    return Results(read_run(folder)), direction


def test_a_verdict_counts_the_languages_that_were_scored(changed):
    results, _ = changed
    members = {entry["group"]: entry["members"] for entry in verdicts(results)}
    assert members["Supervised languages"] == 4
    assert members["Aligned languages"] == 5


def test_no_language_is_high_resource_where_none_is_low_resource():
    assert shown_groups(["all", "high_resource", "all"]) == ["all"]
    assert shown_groups(["high_resource", "low_resource"]) == ["high_resource", "low_resource"]


def test_a_direction_of_translation_is_no_group(changed):
    results, direction = changed
    assert any(found.key == direction for found in results.differences)
    assert direction not in results.groups
    assert {"supervised", "aligned", "unseen"} <= set(results.groups)
    assert len(comparison_table(results)) == len([d for d in results.differences if d.key in results.groups])
