"""Provenance, the report's last part: where the numbers come from."""

from __future__ import annotations

from typing import Any

import yaml

from midalign.report.views import RunView


def provenance(run: RunView) -> dict[str, Any]:
    """Versions, commit, seeds, data hashes and the recipe as YAML."""
    manifest, recipe = run.manifest, run.recipe
    seeds = run.summary.get("seeds") or ([recipe["seed"]] if "seed" in recipe else [])
    facts = {
        "folder": str(run.folder),
        "command": manifest.get("command"),
        "started": manifest.get("started"),
        "git commit": manifest.get("git_commit"),
        "seeds": ", ".join(map(str, seeds)),
    }
    return {
        "facts": [(name, str(value)) for name, value in facts.items() if value],
        "versions": sorted((manifest.get("versions") or {}).items()),
        "data": sorted((manifest.get("data") or {}).items()),
        "recipe": yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True) if recipe else "",
        "seeds": len(seeds),
    }
