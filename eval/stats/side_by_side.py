"""The items of one or two runs side by side, and which of them to look at: by category, by who was right, by words.

Knows records. Refuses to know how they are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pdrop_video.errors import ConfigError

from .pairs import run_names
from .record import Record, Run


@dataclass(frozen=True, slots=True)
class Pair:
    """What each run made of an item.

    Attributes
    ----------
    item : str
    records : tuple of Record or None
        One a run; None where a run has not finished the item.
    """

    item: str
    records: tuple[Record | None, ...]

    @property
    def record(self) -> Record:
        """One of the records, for what is the same in all of them."""
        return next(record for record in self.records if record is not None)

    @property
    def values(self) -> list[tuple[str, str]]:
        """Its categories: field and value, several of a field where it is in several."""
        found = []
        for field, value in self.record.category.items():
            found += [(field, str(one)) for one in (value if isinstance(value, list) else [value])]
        return found

    def right(self, run: int) -> bool | None:
        """Whether a run got it right; None where it has no score."""
        record = self.records[run]
        return None if record is None or record.score is None else record.correct


@dataclass(frozen=True, slots=True)
class SideBySide:
    """One or two runs of a task.

    Attributes
    ----------
    names : list of str
        One a run.
    pairs : list of Pair
        In the order of their items' names.
    """

    names: list[str]
    pairs: list[Pair]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> SideBySide:
        """Put runs side by side; `ConfigError` if they are of different tasks, or of different data."""
        names = run_names(runs)
        by_item = [{record.item: record for record in run.records} for run in runs]
        tasks = sorted({record.task for run in runs for record in run.records})
        if len(tasks) > 1:
            raise ConfigError(f"the runs are of different tasks ({', '.join(tasks)}); expected runs of one task.")
        items = sorted({item for records in by_item for item in records})
        if not items:
            raise ConfigError(f"{' and '.join(names)}: no item is finished; expected a run with records.")
        pairs = [Pair(item, tuple(records.get(item) for records in by_item)) for item in items]
        for pair in pairs:
            said = {(r.question, tuple(r.options), r.answer) for r in pair.records if r is not None}
            if len(said) > 1:
                raise ConfigError(
                    f"item {pair.item} has another question, options or truth in {names[1]} than in {names[0]}; "
                    "expected runs on the same version of the data."
                )
        return cls(names, pairs)

    @property
    def standings(self) -> list[str]:
        """Ways in which an item can stand, in the order in which they are offered."""
        if len(self.names) == 1:
            return ["right", "wrong", "not scored"]
        first, second = self.names
        return ["both right", "neither right", f"only {first} right", f"only {second} right", "not scored by both"]

    def standing(self, pair: Pair) -> str:
        """How an item stands."""
        rights = [pair.right(run) for run in range(len(self.names))]
        if None in rights:
            return self.standings[-1]
        if len(rights) == 1:
            return self.standings[0 if rights[0] else 1]
        first, second = rights
        return self.standings[(0 if second else 2) if first else (3 if second else 1)]

    @property
    def categories(self) -> list[str]:
        """Every value of every field, as "field: value"."""
        return sorted({f"{field}: {value}" for pair in self.pairs for field, value in pair.values})

    def chosen(self, category: str = "", standing: str = "", words: str = "") -> list[Pair]:
        """The pairs of a category, of a standing, and whose name, question or answers have these words; "" for all."""
        sought = words.casefold().split()
        found = []
        for pair in self.pairs:
            if category and category not in [f"{field}: {value}" for field, value in pair.values]:
                continue
            if standing and self.standing(pair) != standing:
                continue
            answers = [record.response or "" for record in pair.records if record is not None]
            text = " ".join([pair.item, pair.record.video, pair.record.question, *answers]).casefold()
            if all(word in text for word in sought):
                found.append(pair)
        return found
