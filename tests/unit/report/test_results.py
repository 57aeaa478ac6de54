"""What of a run's scores are groups, and how many languages a verdict is about."""

import json

import pytest

from midalign.report.page import render_report
from midalign.report.read import read_run
from midalign.report.results import Results
from midalign.report.score_table import comparison_table
from midalign.report.verdicts import verdicts
from midalign.report.words import shown_groups
from tests.synthetic_run import CODES, SYSTEMS, compare, languages, scores, write_run


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


@pytest.fixture
def evaluation(tmp_path):
    """The folder of an evaluation with a baseline."""
    before, after = (scores(languages(12), system) for system in ("sft", "joint"))
    found = compare("", "", before, after)
    for row in found:
        del row["baseline"], row["system"]
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "scores.json").write_text(json.dumps(after))
    (tmp_path / "scores" / "comparisons.json").write_text(json.dumps({"comparisons": found}))
    return tmp_path / "scores", found


def test_an_evaluation_with_a_baseline_shows_its_comparison(evaluation):
    folder, rows = evaluation
    results = Results(read_run(folder))
    wanted = next(row for row in rows if row.get("group") == "all" and row["metric"] == "slot_f1")
    found = results.difference("scores", "all")
    assert (found.difference, found.low, found.high) == (wanted["difference"], wanted["low"], wanted["high"])
    page = render_report([folder])
    assert "scores against the baseline" in page
    assert f"{100 * wanted['difference']:+.1f} ({100 * wanted['low']:+.1f} to ".replace("-", "−") in page
    assert found.p == wanted["p_randomization"]
    assert any(row["where"] == "All languages" for row in comparison_table(results))
    assert "What alignment did" not in page, "nobody said that the systems differ in alignment"
    assert ">Change<" in page


def test_no_language_is_high_resource_where_none_is_low_resource():
    assert shown_groups(["all", "high_resource", "all"]) == ["all"]
    assert shown_groups(["high_resource", "low_resource"]) == ["high_resource", "low_resource"]


def test_a_direction_of_translation_is_no_group(changed):
    results, direction = changed
    assert any(found.key == direction for found in results.differences)
    assert direction not in results.groups
    assert {"supervised", "aligned", "unseen"} <= set(results.groups)
    assert len(comparison_table(results)) == len([d for d in results.differences if d.key in results.groups])
