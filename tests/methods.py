"""The tables of methods, from what the methods say of themselves: `make methods` writes them anew.

The README has a row for each slot, docs/methods.md one for each method, docs/formulas.md a section for each.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pdrop_video.stream.methods import Listed, catalogue, markdown
from pdrop_video.stream.recipe import SLOTS

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- written by `make methods` -->\n", "<!-- up to here -->\n"

DECIDES = {
    "gate": "before the vision tower: which frames are encoded",
    "reducer": "before the language model: which visual tokens enter, or means of them",
    "scorer": "between layers: which visual tokens go on",
    "allocator": "between layers: how many of them each frame keeps",
    "inside": "within layers: what is left out of tokens that all stay",
    "evictor": "in memory: what is forgotten when it is full",
    "storage": "in memory: in how many bits keys and values are kept",
    "decode": "while answering: what an answer's tokens attend to",
}
"""What a slot decides, in the order of a frame's way."""


def short(listed: list[Listed]) -> str:
    """A row for each slot."""
    lines = ["| slot | decides | methods |", "|---|---|---|"]
    for slot, decides in DECIDES.items():
        names = ", ".join(f"`{each.name}`" for each in listed if each.slot == slot)
        lines.append(f"| {slot} | {decides} | {names} |")
    return "\n".join(lines) + "\n"


def sections(listed: list[Listed]) -> str:
    """A section for each method: what stays, the formula, the source, what it needs and carries, its parameters."""
    lines: list[str] = []
    for slot, decides in DECIDES.items():
        lines += [f"## {slot.capitalize()}", "", f"{decides[0].upper()}{decides[1:]}.", ""]
        for each in (each for each in listed if each.slot == slot):
            lines += _section(each, SLOTS[slot][each.name])
    return "\n".join(lines)


def _section(each: Listed, method: Any) -> list[str]:
    formula = [f"    {line}" for line in each.facts.formula.splitlines()]
    told = {
        "Keeps": each.facts.says,
        "Source": re.sub(r"arXiv (\d{4}\.\d{5})", r"[\g<0>](https://arxiv.org/abs/\1)", each.source),
        "Needs": each.needed,
        "Carries from chunk to chunk": each.facts.carries,
        "Parameters": _parameters(method),
        "In full": _address(type(method)),
    }
    listed = [f"- {name}: {what}" for name, what in told.items() if what]
    return [f"### {each.slot} `{each.name}`", "", *formula, "", *listed, ""]


def _parameters(method: Any) -> str:
    """Those that a line can name, with their defaults."""
    named = fields(method) if is_dataclass(method) else ()
    plain = ((each.name, getattr(method, each.name)) for each in named)
    return ", ".join(f"`{name}={_word(value)}`" for name, value in plain if not is_dataclass(value))


def _word(value: object) -> str:
    """As a method's line has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _address(kind: type) -> str:
    """A link to the class; the site leads it to the API."""
    file = Path(inspect.getfile(kind)).relative_to(ROOT).as_posix()
    return f"[`{kind.__module__}.{kind.__name__}`](../{file})"


def pages() -> dict[Path, str]:
    """What stands between the marks of each page."""
    listed = catalogue()
    return {
        ROOT / "README.md": short(listed),
        ROOT / "docs" / "methods.md": markdown(listed),
        ROOT / "docs" / "formulas.md": sections(listed),
    }


def written(page: str, table: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


if __name__ == "__main__":
    for path, table in pages().items():
        path.write_text(written(path.read_text(encoding="utf-8"), table), encoding="utf-8")
