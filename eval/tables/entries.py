"""`Entry`: a row of the league, which is one system at one budget."""

from __future__ import annotations

from dataclasses import dataclass

from pdrop_video.registry import Facts

from .base import Settings


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the league.

    Attributes
    ----------
    system, slot : str
        Together they name a system: what is tried, and where it stands.
    at : float or int or str
        Its budget: a share of all FLOPs, tokens whose bytes it may take, or how much a question hides.
    settings : dict
        Of `eval.run`, beside those that all rows share.
    kind : str
        "whole" (nothing left out), "default", "system", or "control".
    paper : str
        Where it comes from, in the words of the table of methods.
    says : str
        What stays, in one line.
    parts : tuple of str
        Trained parts (`pdrop_video.parts`) that it can't do without.
    """

    system: str
    slot: str
    at: float | int | str
    settings: Settings
    kind: str = "system"
    paper: str = ""
    says: str = ""
    parts: tuple[str, ...] = ()

    @property
    def budget(self) -> str:
        """As people read it."""
        if isinstance(self.at, float):
            return f"{self.at:.0%}"
        return str(self.at)

    @property
    def name(self) -> str:
        """No other row of its table has it."""
        return f"{self.slot} {self.system} {self.budget}" if self.kind != "whole" else self.system

    @property
    def trained(self) -> bool:
        """Whether something of it was trained, beside the model."""
        return bool(self.parts)


def entry_of(
    system: str,
    slot: str,
    at: float | int | str,
    given: Settings,
    facts: Facts | None,
    kind: str = "system",
    parts: tuple[str, ...] = (),
) -> Entry:
    """A row of a listed method, with what its facts say; what is common practice is a control."""
    given = {**given, "parts": parts} if parts else given
    if facts is None:
        return Entry(system, slot, at, given, kind, parts=parts)
    if not facts.paper and not facts.ours and kind == "system":
        kind = "control"
    asks = {"question_aware": True} if facts.needs_question and slot not in ("decode", "evictor", "storage") else {}
    source = facts.paper or ("ours" if facts.ours else "common practice")
    paper = f"{source}; in part ours" if facts.paper and facts.ours else source
    return Entry(system, slot, at, {**given, **asks}, kind, paper, facts.says, parts)
