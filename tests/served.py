"""The tables of model types: what `pdrop-video families` says in the oldest, the pinned and the newest version.

One process knows one transformers, so what each version says stands in `served.json`, and the tables are made of that:
one row for each kind of adapter in the README, one for each type in docs/models.md. `make families` writes all anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import transformers

from pdrop_video.models.families import Family, catalogue, markdown

ROOT = Path(__file__).parent.parent
README, PAGE, FILE = ROOT / "README.md", ROOT / "docs" / "models.md", ROOT / "tests" / "served.json"
BEGIN, END = "<!-- families -->\n", "<!-- /families -->\n"
Rows = dict[str, dict[str, Any]]
"""What is known of each model type."""


def own() -> dict[str, Rows]:
    """By the version of the installed transformers: what it says."""
    rows = (each.as_dict() for each in catalogue())
    return {transformers.__version__: {row.pop("model_type"): row for row in rows}}


def told() -> dict[str, Rows]:
    """What the file says of each version, the oldest first."""
    said: dict[str, Rows] = json.loads(FILE.read_text(encoding="utf-8"))
    return said


def as_text(versions: dict[str, Rows]) -> str:
    """The file: a line a type, so that differences can be read."""
    named = []
    for version, rows in sorted(versions.items(), key=lambda each: [int(n) for n in each[0].split(".")[:2]]):
        lines = (f"    {json.dumps(kind)}: {json.dumps(row)}" for kind, row in rows.items())
        named.append(f"  {json.dumps(version)}: {{\n" + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(named) + "\n}\n"


def short(versions: dict[str, Rows]) -> str:
    """A row for each kind of adapter, as the newest version that has a type says it."""
    newest: Rows = {kind: row for rows in versions.values() for kind, row in rows.items()}
    lines = ["| adapter | model types |", "|---|---|"]
    for title, served in (("its own", "own"), ("derived", "derived"), ("not served", None)):
        kinds = ", ".join(f"`{kind}`" for kind, row in sorted(newest.items()) if row["served"] == served)
        lines.append(f"| {title} | {kinds} |")
    return "\n".join(lines) + "\n"


def whole(versions: dict[str, Rows]) -> str:
    """A row for each type."""
    listed = {
        version: [Family(kind, **row | {"layers": tuple(row["layers"])}) for kind, row in rows.items()]
        for version, rows in versions.items()
    }
    return markdown(listed)


def pages(versions: dict[str, Rows]) -> dict[Path, str]:
    """What stands between the marks of each page."""
    return {README: short(versions), PAGE: whole(versions)}


def written(page: str, table: str) -> str:
    """The page with this table."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main(pythons: list[str]) -> None:
    """Ask each of these interpreters, and write file and table; without any, print the answer of this one."""
    if not pythons:
        print(json.dumps(own()))
        return
    versions: dict[str, Rows] = {}
    for python in pythons:
        done = subprocess.run([python, __file__], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{python} has no answer:\n{done.stderr}")
        versions |= json.loads(done.stdout.splitlines()[-1])
    FILE.write_text(as_text(versions), encoding="utf-8")
    for path, table in pages(told()).items():
        path.write_text(written(path.read_text(encoding="utf-8"), table), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
