"""The catalogue of methods: every one that is listed, by slot, with what it says of itself. Knows registries only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..registry import Facts, facts_of
from .recipe import SLOTS


@dataclass(frozen=True, slots=True)
class Listed:
    """A method that a registry lists.

    Attributes
    ----------
    slot, name : str
    facts : Facts
    tower : tuple of str
        What it must know of the vision tower.
    """

    slot: str
    name: str
    facts: Facts
    tower: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What a program may want to know: ``slot, name, paper, trained, needs_question, ours``."""
        facts = self.facts
        return {
            "slot": self.slot,
            "name": self.name,
            "paper": facts.paper,
            "trained": facts.trained,
            "needs_question": facts.needs_question,
            "ours": facts.ours,
        }

    @property
    def source(self) -> str:
        """Its paper, and whether it is ours, or ours in part."""
        if not self.facts.paper:
            return "ours" if self.facts.ours else "common practice"
        return f"{self.facts.paper}{'; in part ours' if self.facts.ours else ''}"

    @property
    def needed(self) -> str:
        """What it needs besides frames."""
        wanted = [f"the tower's {what}" for what in self.tower]
        wanted += ["training"] * self.facts.trained + ["a question"] * self.facts.needs_question
        return ", ".join(wanted)


def catalogue() -> list[Listed]:
    """Every method that is listed and says what it is, by slot."""
    return [
        Listed(slot, name, facts, tuple(getattr(method, "needs", ())))
        for slot, registry in SLOTS.items()
        for name, method in registry.items()
        if (facts := facts_of(method)) is not None
    ]


def markdown(listed: Sequence[Listed]) -> str:
    """The catalogue as a table in Markdown."""
    lines = ["| slot | name | what stays | paper | needs | carries |", "|---|---|---|---|---|---|"]
    for each in listed:
        cells = (each.slot, f"`{each.name}`", each.facts.says, each.source, each.needed, each.facts.carries)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
