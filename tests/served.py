"""The README's table of model types: what `pdrop-video families` says in the oldest, the pinned and the newest version.

One process knows one transformers, so what each version says stands in `served.json`, and the table is made of that.
`make families` writes both anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import transformers

from pdrop_video.models.families import Family, catalogue, markdown

PAGE, FILE = Path(__file__).parent.parent / "README.md", Path(__file__).parent / "served.json"
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


def table(page: str) -> str:
    """What stands between the marks."""
    return page.partition(BEGIN)[2].partition(END)[0]


def written(page: str, versions: dict[str, Rows]) -> str:
    """The page with the table of these versions."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    listed = {
        version: [Family(kind, **row | {"layers": tuple(row["layers"])}) for kind, row in rows.items()]
        for version, rows in versions.items()
    }
    return f"{before}{BEGIN}\n{markdown(listed)}\n{END}{after}"


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
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), told()), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
