"""Run folders with SYNTHETIC numbers, for tests of the report: made by a formula, measured on nothing."""

import json
import math
import random
from pathlib import Path

from scipy import stats

CODES = [
    "eng_Latn",
    "deu_Latn",
    "fra_Latn",
    "spa_Latn",
    "rus_Cyrl",
    "nld_Latn",
    "ita_Latn",
    "pol_Latn",
    "ell_Grek",
    "tha_Thai",
    "por_Latn",
    "swe_Latn",
    "ces_Latn",
    "bul_Cyrl",
    "arb_Arab",
    "hin_Deva",
    "eus_Latn",
    "cym_Latn",
    "hun_Latn",
    "tur_Latn",
    "jpn_Jpan",
    "kor_Hang",
    "vie_Latn",
    "ind_Latn",
    "ukr_Cyrl",
    "ron_Latn",
    "fin_Latn",
    "dan_Latn",
    "nob_Latn",
    "cat_Latn",
    "glg_Latn",
    "slk_Latn",
    "slv_Latn",
    "hrv_Latn",
    "srp_Cyrl",
    "lit_Latn",
    "lvs_Latn",
    "est_Latn",
    "isl_Latn",
    "gle_Latn",
    "mlt_Latn",
    "sqi_Latn",
    "kat_Geor",
    "hye_Armn",
    "tam_Taml",
    "tel_Telu",
    "ben_Beng",
]
LOW = {"ell_Grek", "tha_Thai", "eus_Latn", "cym_Latn", "hin_Deva", "isl_Latn", "gle_Latn", "mlt_Latn", "kat_Geor"}
SYSTEMS = ("base", "sft", "joint", "merged")
LIFT = {"base": 0.0, "sft": 0.01, "joint": 0.3, "merged": 0.2}
ALIGNED_LAYER = 4


def languages(n, supervised=5, aligned=5):
    """The first ``n`` languages as a summary lists them."""
    roles = ["supervised"] * supervised + ["aligned"] * aligned + ["unseen"] * n
    names = {"deu_Latn": "German"}
    return [
        {"code": code, "script": code[4:], "role": role, "resource": "low" if code in LOW else "high"}
        | ({"name": names[code]} if code in names else {})
        for code, role in zip(CODES[:n], roles, strict=False)
    ]


def probe(codes, depth, system, seed=0, projected=True):
    """A ``probe.json``: a hump over the layers, raised around the aligned layer."""
    rng = random.Random(f"{system}{seed}")
    own = {code: rng.uniform(0.6, 1.0) * (0.5 if code in LOW else 1.0) for code in codes}
    layers = []
    for layer in range(depth + 1):
        hump = 0.1 + 0.45 * math.exp(-(((layer - depth / 2) / (depth / 4)) ** 2))
        lift = LIFT[system] * math.exp(-max(0, layer - ALIGNED_LAYER) / 3) * min(1, layer / ALIGNED_LAYER)
        matrix = [
            [
                None if i == j else round(min(1.0, (hump + lift) * (own[i] + own[j]) / 1.6 + rng.uniform(0, 0.04)), 6)
                for j in codes
            ]
            for i in codes
        ]
        cells = [cell for row in matrix for cell in row if cell is not None]
        mean = sum(cells) / len(cells)
        spread = math.sqrt(sum((c - mean) ** 2 for c in cells) / len(cells) ** 2)
        groups = {
            "low_resource": mean * 0.6,
            "high_resource": min(1.0, mean * 1.15),
            "script:Latn": min(1.0, mean * 1.1),
            "script:Cyrl": mean * 0.9,
        }
        half = 0.02 + 2 * spread
        layers.append(
            {"layer": layer, "accuracy": mean, "stderr": spread, "matrix": matrix, "groups": groups}
            | {"anisotropy": 0.3 + 0.5 * layer / depth, "interval": [max(0.0, mean - half), min(1.0, mean + half)]}
            | {"group_intervals": {name: [max(0.0, v - half), min(1.0, v + half)] for name, v in groups.items()}}
        )
    content = {
        "languages": list(codes),
        "n": 500,
        "margin": "ratio",
        "k": 4,
        "candidates": "all",
        "pooling": "mean",
        "layers": layers,
        "best_layer": max(layers, key=lambda entry: entry["accuracy"])["layer"],
        "fertility": {
            c: {"tokens_per_word": rng.uniform(1.5, 5), "tokens_per_character": rng.uniform(0.2, 1)} for c in codes
        },
    }
    if projected:
        tight = 1.2 - 3 * LIFT[system]
        homes = [(rng.gauss(0, 2), rng.gauss(0, 2)) for _ in range(30)]
        drift = {code: (rng.gauss(0, tight), rng.gauss(0, tight)) for code in codes}
        content["projection"] = {
            "layer": ALIGNED_LAYER,
            "points": {
                c: [
                    [round(x + drift[c][0] + rng.gauss(0, 0.2), 3), round(y + drift[c][1] + rng.gauss(0, 0.2), 3)]
                    for x, y in homes
                ]
                for c in codes
            },
        }
    return content


def scores(listed, system, seed=0):
    """A ``scores.json`` with languages and groups."""
    rng = random.Random(f"scores{system}{seed}")
    level = {"supervised": 0.79, "aligned": 0.49, "unseen": 0.56}
    gain = {"base": 0.0, "sft": 0.0, "joint": 0.05, "merged": 0.03}[system]
    weight = {"supervised": -0.25, "aligned": 1.2, "unseen": 0.15}
    entries = []
    for metric, shift in {
        "slot_f1": 0.0,
        "label_f1": 0.12,
        "value_f1": 0.04,
        "exact_match": -0.2,
        "unparsed": -0.47,
    }.items():
        groups = {}
        for entry in listed:
            low = -0.12 if entry["resource"] == "low" else 0.0
            tilt = random.Random(entry["code"]).uniform(-0.08, 0.08)
            raised = 0.05 if system == "base" else level[entry["role"]] + low + tilt + gain * weight[entry["role"]]
            value = max(0.004, raised + shift + rng.gauss(0, 0.01))
            for name in ("all", entry["role"], "latin" if entry["script"] == "Latn" else "non_latin"):
                groups.setdefault(name, []).append(value)
            entries.append(_score(metric, value, 0.028, 500) | {"language": entry["code"]})
        for name, values in groups.items():
            mean = sum(values) / len(values)
            entries.append(_score(metric, mean, 0.028 / math.sqrt(len(values)), 500 * len(values)) | {"group": name})
    return {"scores": entries}


def _score(metric, value, half, n):
    low, high = max(0.0, value - half), min(1.0, value + half)
    return {
        "metric": metric,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "signature": f"{metric}|synthetic|rs:1000|seed:0",
    }


def compare(baseline, system, before, after):
    """Comparisons of two score files, with an interval a little narrower than the scores' own."""
    old = {(e["metric"], e.get("language") or e["group"]): e for e in before["scores"]}
    found = []
    for entry in after["scores"]:
        first = old[entry["metric"], entry.get("language") or entry["group"]]
        difference, half = entry["value"] - first["value"], 0.7 * (entry["high"] - entry["value"]) + 0.002
        where = {key: entry[key] for key in ("language", "group") if key in entry}
        p = math.erfc(abs(difference) / half * 1.96 / math.sqrt(2))
        found.append(
            {
                "baseline": baseline,
                "system": system,
                "metric": entry["metric"],
                "difference": difference,
                "p_randomization": p,
            }
            | {
                "low": difference - half,
                "high": difference + half,
                "p_holm": min(1.0, 3 * p) if "language" in where else None,
            }
            | where
        )
    return found


def correlated(listed, accuracies, values):
    """A ``transfer.json`` or ``gains.json``: numbers of languages without task data, layer by layer."""
    codes = [entry["code"] for entry in listed if entry["role"] != "supervised"]
    ys = [values[code] for code in codes]
    layers = []
    for layer, by_language in enumerate(accuracies):
        xs = [by_language[code] for code in codes]
        entry = {"layer": layer, "accuracy": xs}
        for name, test in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
            found = test(xs, ys) if len(codes) > 2 else None
            value, p_value = (found.statistic, found.pvalue) if found else (None, None)
            low, high = (max(-1, value - 0.3), min(1, value + 0.3)) if found else (None, None)
            entry[name] = {"value": value, "p_value": p_value, "low": low, "high": high}
        layers.append(entry)
    return {"metric": "slot_f1", "languages": codes, "scores": ys, "layers": layers}


def accuracy_by_language(content):
    """Per layer of a probe, the mean of each language's row and column."""
    found = []
    for layer in content["layers"]:
        matrix, codes = layer["matrix"], content["languages"]
        cells = [[*matrix[i], *(row[i] for row in matrix)] for i in range(len(codes))]
        known = [[cell for cell in row if cell is not None] for row in cells]
        found.append({code: sum(row) / len(row) for code, row in zip(codes, known, strict=True)})
    return found


def write_run(folder, n=16, depth=8, name="synthetic run", seed=0, projected=True, text="set an alarm for nine"):
    """Write a whole run folder and return its path."""
    folder = Path(folder)
    listed = languages(n)
    codes = [entry["code"] for entry in listed]
    by_system = {system: scores(listed, system, seed) for system in SYSTEMS}
    probes = {system: probe(codes, depth, system, seed, projected) for system in SYSTEMS}
    _write_correlations(folder, listed, probes, by_system)
    for system in SYSTEMS:
        _write(folder / "probe" / system / "probe.json", probes[system])
        _write(folder / "evaluation" / system / "scores.json", by_system[system])
    rng = random.Random(seed)
    for system, losses in {
        "sft": ["task_loss"],
        "joint": ["task_loss", "alignment_loss"],
        "alignment": ["alignment_loss"],
    }.items():
        history = [
            {"step": step, "learning_rate": 1e-4}
            | {loss: 3.2 * math.exp(-step / 90) + 0.35 + rng.gauss(0, 0.04) for loss in losses}
            for step in range(5, 305, 5)
        ]
        _write(folder / "train" / system / "training.json", {"log_history": history, "seconds": 61.0})
    text_of = {"language": "tha_Thai", "gold": "time: nine", "baseline": "None", "system": "time: nine"}
    summary = {
        "name": name,
        "task": "slots",
        "languages": listed,
        "systems": list(SYSTEMS),
        "main_metric": "slot_f1",
        "seeds": [seed],
        "aligned_layer": ALIGNED_LAYER,
        "comparisons": compare("sft", "joint", by_system["sft"], by_system["joint"])
        + compare("sft", "merged", by_system["sft"], by_system["merged"]),
        "training": {
            "sft": {"seconds": 61.2, "updates": 300},
            "joint": {"seconds": 84.9, "updates": 600},
            "alignment": {"seconds": 24.3, "updates": 300},
        },
        "merge": {
            "method": "sum",
            "table": [
                {
                    "weights": {"task": 1.0, "alignment": w},
                    "score": 0.55 + 0.1 * w - 0.2 * w * w,
                    "low": 0.53,
                    "high": 0.58,
                }
                for w in (0.1, 0.2, 0.3, 0.5, 1.0)
            ],
            "chosen": {"task": 1.0, "alignment": 0.3},
        },
        "examples": [
            {"kind": "helped", "id": "tha.test:17", "text": text, **text_of},
            {"kind": "hurt", "id": "ara.test:4", "text": "أطفئ الضوء في المطبخ", "language": "arb_Arab"}
            | {"gold": "location: المطبخ", "baseline": "location: المطبخ", "system": "location: الضوء"},
            {"kind": "helped", "id": "eus.test:2", "text": "piztu sukaldeko argia", "language": "eus_Latn"}
            | {"gold": "location: sukaldeko", "baseline": "location: argia", "system": "location: sukaldeko"},
        ],
    }
    _write(folder / "summary.json", summary)
    _write(
        folder / "manifest.json",
        manifest("run", {"recipe": {"name": name, "seed": seed, "model": {"path": "tiny"}}}),
    )
    return folder


def _write_correlations(folder, listed, probes, by_system):
    """Levels beside the base's probe, and changes from SFT beside those of the systems after it."""
    accuracy = {system: accuracy_by_language(content) for system, content in probes.items()}
    value = {
        system: {e["language"]: e["value"] for e in c["scores"] if e["metric"] == "slot_f1" and "language" in e}
        for system, c in by_system.items()
    }
    _write(folder / "probe" / "base" / "transfer.json", correlated(listed, accuracy["base"], value["sft"]))
    for system in ("joint", "merged"):
        pairs = zip(accuracy[system], accuracy["sft"], strict=True)
        rises = [{code: after[code] - before[code] for code in after} for after, before in pairs]
        gains = {code: value[system][code] - value["sft"][code] for code in value["sft"]}
        _write(folder / "probe" / system / "gains.json", correlated(listed, rises, gains))


def manifest(command, inputs):
    """A finished manifest."""
    return {
        "command": command,
        "inputs": inputs,
        "data": {"/data/synthetic": "ab" * 32},
        "versions": {"midalign": "0.1.0", "torch": "2.13.0"},
        "git_commit": "0123456789abcdef+",
        "started": "2026-11-22T20:00:00+00:00",
        "timings": {"probe base": 12.3, "train sft": 61.2, "train joint": 84.9, "total": 251.0},
        "done": True,
    }


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
