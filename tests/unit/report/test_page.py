"""The report page from synthetic run folders: what it says, what it leaves out, and that it is safe and small."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from midalign.errors import RunError
from midalign.report.heat_map import heat_data
from midalign.report.language_table import language_table
from midalign.report.page import render_report, write_report
from midalign.report.read import read_run
from midalign.report.results import Results
from midalign.report.side_by_side import over_seeds
from midalign.report.summary_table import summary_table
from tests.synthetic_run import CODES, SYSTEMS, languages, manifest, probe, scores, write_run

VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Collects elements with their attributes and the visible text; fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def test_report_is_one_file_and_its_path_is_returned(run, tmp_path):
    path = write_report([run], tmp_path / "out")
    assert path == tmp_path / "out" / "report.html"
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8") == render_report([run])


def test_page_refers_to_nothing_outside_itself(run):
    text = render_report([run])
    page = Page(text)
    for _, attributes in page.elements:
        for name in ("src", "href", "data", "action", "srcset"):
            assert attributes.get(name, "#").startswith("#")
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", text)
    policies = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'")


def test_page_is_well_formed_and_reachable_without_a_mouse(run, tmp_path):
    page = Page(render_report([run, write_run(tmp_path / "other", n=6, name="other")]))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        assert attributes.get("aria-labelledby", ids[0]) in ids
        assert attributes.get("href", "#" + ids[0])[1:] in ids
    for drawing in page.all("svg"):
        assert drawing.get("aria-label") or drawing.get("aria-hidden") == "true"
    assert all("tabindex" in a and "aria-label" in a for a in page.all("div") if "scroll" in a.get("class", ""))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1


def test_text_of_the_run_can_never_become_markup(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    run = write_run(tmp_path / "run", name=evil, text=evil)

    def spoil(summary):
        summary["languages"][1]["name"] = evil
        summary["examples"][0]["gold"] = summary["examples"][0]["system"] = evil

    edit(run / "summary.json", spoil)
    edit(run / "manifest.json", lambda m: m.update(inputs={"recipe": {"name": evil}}, versions={evil: evil}))
    edit(run / "evaluation/sft/scores.json", lambda c: [e.update(signature=evil, metric=evil) for e in c["scores"]])
    edit(run / "probe/base/probe.json", lambda c: c["layers"][0]["groups"].update({evil: 0.5}))
    clean = Page(render_report([write_run(tmp_path / "clean")]))
    page = Page(render_report([run]))
    assert len(page.all("script")) == len(clean.all("script")) == 2
    assert not page.all("img")
    assert evil in page.text


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.09, "is better by 5.0 points"),
        (-0.09, -0.01, "is worse by 2.0 points"),
        (-0.01, 0.09, "no clear difference"),
        (0.0, 0.09, "no clear difference"),
    ],
)
def test_verdict_says_what_the_interval_says(run, low, high, words):
    def change(summary):
        for entry in summary["comparisons"]:
            if entry.get("group") == "aligned" and entry["system"] == "joint" and entry["metric"] == "slot_f1":
                entry.update(low=low, high=high, difference=0.05 if high > 0 else -0.02, p_holm=None)

    edit(run / "summary.json", change)
    text = Page(render_report([run])).text
    assert words in re.search(r"Aligned languages \(5\)\.(.*?)Merged adapters", text).group(1)


def test_first_table_shows_the_scores_and_differences_of_the_files(run):
    view = read_run(run)
    table = language_table(Results(view))
    assert [block["name"] for block in table["blocks"]] == [
        "Supervised languages",
        "Aligned languages",
        "Unseen languages",
    ]
    rows = {row["code"]: row for block in table["blocks"] for row in block["rows"]}
    assert list(rows) == CODES[:16]
    comparisons = json.loads((run / "summary.json").read_text())["comparisons"]
    for system, column in (("sft", "before"), ("joint", "after")):
        for entry in json.loads((run / f"evaluation/{system}/scores.json").read_text())["scores"]:
            if entry["metric"] == "slot_f1" and "language" in entry:
                shown = [float(text) for text in re.findall(r"[\d.]+", rows[entry["language"]][column])]
                assert shown == pytest.approx([100 * entry[k] for k in ("value", "low", "high")], abs=0.0501)
    for entry in comparisons:
        if entry["metric"] == "slot_f1" and entry["system"] == "joint" and "language" in entry:
            shown = re.findall(r"[−+]?[\d.]+", rows[entry["language"]]["change"])
            wanted = [100 * entry[k] for k in ("difference", "low", "high")]
            assert [float(t.replace("−", "-")) for t in shown] == pytest.approx(wanted, abs=0.0501)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 7), st.integers(1, 5), st.randoms(use_true_random=False))
def test_heat_map_data_decode_to_the_matrices(tmp_path_factory, n, depth, rng):
    folder = tmp_path_factory.mktemp("probe")
    content = probe(CODES[:n], depth, "base")
    for layer in content["layers"]:
        layer["matrix"] = [[None if i == j else rng.random() for j in range(n)] for i in range(n)]
    put(folder / "probe.json", content)
    system = heat_data(read_run(folder), "")["systems"][0]
    for layer in content["layers"]:
        digits = system["layers"][str(layer["layer"])]
        values = [int(digits[i : i + 2], 36) for i in range(0, len(digits), 2)]
        wanted = [cell for row in layer["matrix"] for cell in row]
        for value, cell in zip(values, wanted, strict=True):
            assert (value == 1295) if cell is None else abs(value / 1000 - cell) <= 0.0005 + 1e-9


def test_page_of_47_languages_and_33_layers_stays_below_3_mb(tmp_path):
    run = write_run(tmp_path / "run", n=47, depth=32)
    assert len(render_report([run]).encode()) < 3_000_000


def test_matrices_that_would_not_fit_are_thinned_but_the_important_layers_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("midalign.report.heat_map._MATRIX_CHARACTERS", 4 * 2 * 16 * 16 * 3)
    view = read_run(write_run(tmp_path / "run", depth=20))
    data = heat_data(view, "joint")
    assert data["thinned"]
    for system, entry in zip(view.systems, data["systems"], strict=True):
        wanted = {"0", "20", str(view.aligned_layer), str(view.probes[system].best_layer)}
        assert wanted <= set(entry["layers"])
        assert len(entry["layers"]) < 21
    assert "Not every layer" in render_report([view.folder])


def test_correlations_show_the_coefficients_and_numbers_of_their_files(run):
    text = Page(render_report([run])).text
    best = json.loads((run / "probe/base/probe.json").read_text())["best_layer"]
    for name, layer, question in (
        ("base/transfer.json", best, r"Does retrieval predict transfer\?"),
        ("joint/gains.json", 4, r"Does more alignment bring more transfer\? Joint training"),
    ):
        content = json.loads((run / "probe" / name).read_text())
        entry = content["layers"][layer]
        found = re.search(
            rf"{question} .*?Pearson ([−\d.]+).*?Spearman ([−\d.]+).*?, (\d+) languages(.*?) Numbers", text
        )
        values = [float(value.replace("−", "-")) for value in found.groups()[:3]]
        wanted = [entry["pearson"]["value"], entry["spearman"]["value"], len(content["languages"])]
        assert values == pytest.approx(wanted, abs=0.00501)
        unclear = entry["pearson"]["p_value"] >= 0.05 or entry["pearson"]["low"] <= 0 <= entry["pearson"]["high"]
        assert ("No clear relation" in found.group(4)) == unclear
        row = f"{100 * entry['accuracy'][0]:.1f} {100 * content['scores'][0]:.1f}"
        assert f"Dutch {row}" in text, "the first language without task data"


def test_an_interval_beside_a_high_p_value_is_no_clear_relation(run):
    def change(content):
        for entry in content["layers"]:
            entry["pearson"] |= {"value": 0.6, "low": 0.4, "high": 0.9, "p_value": 0.26}

    edit(run / "probe/base/transfer.json", change)
    assert re.search("interval 0.40 to 0.90, p = 0.26.{0,60}No clear relation", Page(render_report([run])).text)


def test_a_run_folder_of_an_earlier_version_is_read_whole(tmp_path):
    """The folder was written by `midalign run` of commit 525687b on a tiny model, and thinned."""
    for name, content in json.loads(Path(__file__).with_name("old_run.json").read_text(encoding="utf-8")).items():
        put(tmp_path / "old" / name, content)
    page = Page(render_report([tmp_path / "old"]))
    for part in (
        "What alignment did", "Slot F1 by language", "All scores", "Retrieval between languages", "Training",
        "Change of retrieval by layer", "Retrieval by group", "The same sentences in all languages",
        "Does retrieval predict transfer?", "Merge weights", "Where the numbers come from",
    ):  # fmt: skip
        assert part in page.text
    assert "Joint training is worse by 29.2 points of slot F1, 29.2 → 0.0 (−33.3 to −25.0)" in page.text
    assert (
        "Pearson −0.55 (95 % interval −0.96 to −0.46, p = 0.26), Spearman −0.82 (p = 0.044), 6 languages" in page.text
    )
    assert "changes of retrieval against changes of scores (probe/*/gains.json)" in page.text


def test_what_a_run_lacks_is_named_and_the_rest_is_shown(run):
    (run / "probe/joint/probe.json").unlink()
    (run / "evaluation/merged/scores.json").unlink()
    edit(run / "manifest.json", lambda m: m.update(done=False))
    text = Page(render_report([run])).text
    assert "the probe of 'joint' (probe/joint/probe.json)" in text
    assert "the scores of 'merged' (evaluation/merged/scores.json)" in text
    assert "was not finished" in text
    assert "Joint training is better" in text


def test_interrupted_run_without_a_summary_still_has_a_page(run):
    (run / "summary.json").unlink()
    text = Page(render_report([run])).text
    assert "summary.json, so roles of languages" in text
    assert "so no verdict" in text
    assert "German" in text


def test_folder_of_a_single_probe_has_curve_heat_map_and_best_layer(tmp_path):
    put(tmp_path / "p" / "probe.json", probe(CODES[:5], 6, "base"))
    put(tmp_path / "p" / "manifest.json", manifest("probe", {"model": "some/model"}))
    page = Page(render_report([tmp_path / "p"]))
    assert "At its best layer, 3 of 6," in page.text
    assert "some/model" in page.text
    assert any(a.get("data-heat") for a in page.all("div"))
    assert "All scores" not in page.text


def test_folder_of_a_single_evaluation_has_its_scores_and_no_verdict(tmp_path):
    put(tmp_path / "e" / "scores.json", scores(languages(4), "sft"))
    text = Page(render_report([tmp_path / "e"])).text
    assert "All scores" in text
    assert "slot_f1|synthetic" in text
    assert "better by" not in text
    assert "Change" not in text


def test_nan_in_a_file_is_a_missing_value(tmp_path):
    content = probe(CODES[:4], 3, "base")
    content["layers"][1]["matrix"][0][1] = float("nan")
    content["layers"][1]["anisotropy"] = float("nan")
    put(tmp_path / "p" / "probe.json", content)
    found = re.search(r"application/json[^>]*>(.*?)<", render_report([tmp_path / "p"])).group(1)
    json.loads(found, parse_constant=pytest.fail)


@pytest.mark.parametrize("change", ["matrix", "layers", "scores"])
def test_file_of_another_form_is_an_error_that_names_it(run, change):
    name = "evaluation/sft/scores.json" if change == "scores" else "probe/sft/probe.json"

    def spoil(content):
        if change == "matrix":
            content["layers"][0]["matrix"].pop()
        elif change == "layers":
            del content["layers"]
        else:
            del content["scores"][0]["low"]

    edit(run / name, spoil)
    with pytest.raises(RunError, match=re.escape(name)):
        render_report([run])


@pytest.mark.parametrize("kind", ["absent", "empty", "file", "not json", "a list"])
def test_folder_with_nothing_usable_is_refused_and_nothing_is_written(tmp_path, kind):
    folder = tmp_path / "run"
    if kind == "file":
        folder.write_text("x")
    elif kind != "absent":
        folder.mkdir()
    if kind in ("not json", "a list"):
        (folder / "summary.json").write_text("{" if kind == "not json" else "[]")
    with pytest.raises(RunError, match="run"):
        write_report([folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_run_at_all_is_refused():
    with pytest.raises(RunError, match="no run to report"):
        render_report([])


def test_several_runs_stand_side_by_side_with_a_chart_per_system(run, tmp_path):
    other = write_run(tmp_path / "other", n=6, depth=4, name="other run")
    page = Page(render_report([run, other]))
    assert "Side by side" in page.text
    assert "depth" in page.text
    assert sum(a.get("href") in ("#run-0", "#run-1") for a in page.all("a")) == 2 * len(SYSTEMS)
    assert "runs of one recipe" not in page.text


def test_runs_of_one_recipe_are_averaged_with_the_t_interval(tmp_path):
    runs = [write_run(tmp_path / f"seed-{seed}", seed=seed) for seed in range(4)]
    found = over_seeds([Results(read_run(run)) for run in runs], ["aligned"])
    changes = []
    for run in runs:
        value = {}
        for system in ("sft", "joint"):
            entries = json.loads((run / f"evaluation/{system}/scores.json").read_text())["scores"]
            value[system] = next(
                e["value"] for e in entries if e.get("group") == "aligned" and e["metric"] == "slot_f1"
            )
        changes.append(100 * (value["joint"] - value["sft"]))
    test = stats.ttest_1samp(changes, 0)
    interval = test.confidence_interval()
    shown = [float(text.replace("−", "-")) for text in re.findall(r"[−+][\d.]+", found["rows"][0]["text"])]
    assert shown == pytest.approx([np.mean(changes), interval.low, interval.high], abs=0.0501)
    text = Page(render_report(runs)).text
    assert "Over 4 runs of one recipe" in text
    assert "synthetic run, seed-3" in text


@pytest.mark.parametrize("change", ["other settings", "same seed"])
def test_runs_that_differ_in_more_than_the_seed_or_not_in_it_are_not_averaged(tmp_path, change):
    runs = [write_run(tmp_path / f"run-{seed}", seed=seed) for seed in range(3)]
    manifest = json.loads((runs[2] / "manifest.json").read_text())
    changed = {"alignment": {"layer": 8}} if change == "other settings" else {"seed": 1}
    manifest["inputs"]["recipe"] |= changed
    (runs[2] / "manifest.json").write_text(json.dumps(manifest))
    assert over_seeds([Results(read_run(run)) for run in runs[:2]], ["aligned"])["n"] == 2
    assert over_seeds([Results(read_run(run)) for run in runs], ["aligned"]) is None
    assert "runs of one recipe" not in Page(render_report(runs)).text


def test_summary_table_has_each_group_with_systems_and_differences(run):
    summary = json.loads((run / "summary.json").read_text())
    by_system = {s: json.loads((run / f"evaluation/{s}/scores.json").read_text())["scores"] for s in SYSTEMS}
    summary["name"] = "name [red]with markup"
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(summary_table(summary, by_system))
    lines = console.export_text().splitlines()
    assert "name [red]with markup" in lines[0]
    line = next(line for line in lines if "Aligned languages" in line)
    values = {e["group"]: e for e in by_system["joint"] if "group" in e and e["metric"] == "slot_f1"}
    aligned = values["aligned"]
    assert f"{100 * aligned['value']:.1f} {100 * aligned['low']:.1f} to {100 * aligned['high']:.1f}" in line
    wanted = [c for c in summary["comparisons"] if c.get("group") == "aligned" and c["metric"] == "slot_f1"]
    for entry in wanted:
        assert f"{100 * entry['difference']:+.1f}".replace("-", "−") in line
    assert "label" not in "".join(lines)


def test_layer_curves_of_a_comparison_and_a_correlation_are_drawn_where_they_lie_beside_a_probe(tmp_path):
    put(tmp_path / "p" / "probe.json", probe(CODES[:5], 2, "base"))
    plain = render_report([tmp_path / "p"])
    layers = [{"layer": i, "difference": 0.1 * i - 0.1, "low": -0.2, "high": 0.2} for i in range(3)]
    put(tmp_path / "p" / "comparison.json", {"layers": layers})
    undefined = {"value": None, "low": None, "high": None, "p_value": None}
    known = {"value": 0.5, "low": 0.1, "high": 0.8, "p_value": 0.2}
    found = [known if i else undefined for i in range(3)]
    entries = [{"layer": i, "accuracy": [0.5] * 4, "pearson": one, "spearman": one} for i, one in enumerate(found)]
    put(
        tmp_path / "p" / "transfer.json",
        {"metric": "slot_f1", "languages": CODES[:4], "scores": [0.1, 0.2, 0.3, 0.4], "layers": entries},
    )
    text = render_report([tmp_path / "p"])
    assert "Change of retrieval by layer" not in plain
    assert "Change of retrieval by layer" in text
    assert "<title>p, 2: 10.0 %</title>" in text
    assert "Does retrieval predict transfer, by layer?" in text
    assert "<title>p, 2: 0.5</title>" in text


def test_groups_show_their_retrieval_at_the_aligned_layer(run):
    content = json.loads((run / "probe/joint/probe.json").read_text())
    layer = content["layers"][4]
    low, high = layer["group_intervals"]["low_resource"]
    text = Page(render_report([run])).text
    wanted = f"{100 * layer['groups']['low_resource']:.1f} % {100 * low:.1f}–{100 * high:.1f}"
    assert re.search(rf"Low-resource languages .{{0,40}}{wanted}", text)


def test_time_of_a_resumed_run_is_that_of_all_its_stages(run):
    edit(run / "manifest.json", lambda m: m.update(timings={"total": 1.5}))
    edit(run / "summary.json", lambda s: s.update(timings={"train sft": 61.0, "train joint": 84.0}))
    assert "Whole run 2 min 25 s" in Page(render_report([run])).text
