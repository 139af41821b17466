"""The report of a check, from what its parts wrote down: JSON for machines, Markdown for people.

Knows rows of plain values. Refuses to know what they mean, but for `passed`, and needs nothing but Python.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from .parts import Part
from .state import DONE, Folder, Row

_FACTS = {"card", "card_gib", "device", "python", "torch", "cuda", "transformers", "flash-attn", "small"}


def gathered(parts: Sequence[Part], folder: Folder) -> dict[str, Any]:
    """All that is known of some parts, and what it comes to.

    Returns
    -------
    dict
        ``failed``: the proofs that failed. ``unfinished``: the parts that are not done, and why. ``machine``: names and
        versions. ``parts``: as they were written down.
    """
    known = {part.name: folder.read(part.name) for part in parts}
    failed = [
        f"{name}: {case}, {_what(row)}"
        for name, part in known.items()
        for case, entry in part.get("rows", {}).items()
        for row in entry.get("table", [])
        if row.get("passed") is False
    ]
    unfinished = {name: _state(part) for name, part in known.items() if part.get("state") != DONE}
    machine: dict[str, Any] = next((part["machine"] for part in known.values() if "machine" in part), {})
    return {"failed": failed, "unfinished": unfinished, "machine": machine, "parts": known}


def exit_code(found: dict[str, Any]) -> int:
    """1 if a proof failed, else 3 if a part is unfinished, else 0."""
    if found["failed"]:
        return 1
    return 3 if found["unfinished"] else 0


def write(parts: Sequence[Part], folder: Folder) -> dict[str, Any]:
    """Write ``report.json`` and ``report.md``; returns what `gathered` found."""
    found = gathered(parts, folder)
    folder.put("report.json", json.dumps(found, indent=1) + "\n")
    folder.put("report.md", "\n".join(markdown(parts, found)) + "\n")
    return found


def markdown(parts: Sequence[Part], found: dict[str, Any]) -> Iterator[str]:
    """The lines of the report."""
    machine = found["machine"]
    yield f"# The device check on {machine.get('card', 'an unknown machine')}"
    yield ""
    yield ", ".join(f"{name} {value}" for name, value in machine.items() if name in _FACTS and name != "card") + "."
    if machine.get("small"):
        yield ""
        yield "A rehearsal in small shapes: its times mean nothing."
    yield ""
    proofs = sum("passed" in row for part in found["parts"].values() for row in _rows(part))
    yield f"**{proofs - len(found['failed'])} of {proofs} proofs hold.**"
    for line in found["failed"]:
        yield f"- FAILED: {line}"
    for name, state in found["unfinished"].items():
        yield f"- unfinished: {name}, {state}"
    for part in parts:
        known = found["parts"][part.name]
        yield ""
        yield f"## {part.title}"
        for case, entry in known.get("rows", {}).items():
            if "error" in entry:
                yield ""
                yield f"{case} failed: {entry['error']}"
        for columns, rows in groupby(_rows(known), key=tuple):
            yield ""
            yield from _table(columns, list(rows))
        if known.get("state") != DONE:
            yield ""
            yield f"Not finished: {_state(known)}."
        elif known["rows"]:
            yield ""
            yield f"Took {sum(entry['seconds'] for entry in known['rows'].values()):.0f} s."


def _rows(known: dict[str, Any]) -> list[Row]:
    return [row for entry in known.get("rows", {}).values() for row in entry.get("table", [])]


def _what(row: Row) -> str:
    return ", ".join(_said(value) for name, value in row.items() if name != "passed" and value not in (None, ""))


def _state(known: dict[str, Any]) -> str:
    if not known:
        return "not begun"
    return ", ".join(str(known[name]) for name in ("state", "after", "why") if name in known)


def _table(columns: Sequence[str], rows: Sequence[Row]) -> Iterator[str]:
    shown = [name for name in columns if any(row[name] not in (None, "") for row in rows)]
    yield f"| {' | '.join(name.replace('_', ' ') for name in shown)} |"
    yield f"|{'---|' * len(shown)}"
    for row in rows:
        yield f"| {' | '.join(_said(row[name]) for name in shown)} |"


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value).replace("|", "/")
