"""What rows are planned for so that they spend what the default does: measured on videos of the dev split.

Formulas plan a row, but don't know what a question's rows cost behind every chunk, what a threshold leaves, or how a
few frames are rounded. Each row is therefore run, and planned again for as much less or more as it missed its target:
behind the front that the default stands behind that is what the default spends, so that the front's luck with these
videos is left out, and elsewhere the share itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

import pdrop_video as pv

from ..tables.base import Settings
from ..tables.entries import Entry

ROUNDS = 5
"""Times that a row is planned again, at most."""
UNDER, OVER = 0.97, 1.02
"""Times its target, between which a row spends what it should: its plan is left as it is."""
LEAST, MOST = 0.4, 1.5
"""Times its target that a row is planned for."""


def settled(
    plan: Callable[[Mapping[str, float]], Sequence[Entry]],
    spend: Callable[[Sequence[Entry]], Mapping[str, float]],
    rounds: int = ROUNDS,
) -> pd.DataFrame:
    """Plan, run and plan again.

    Parameters
    ----------
    plan : callable
        Rows at the aims that it is given, by name; those of a name have the same budget each time.
    spend : callable
        The share of all FLOPs that each row spent, by name.
    rounds : int
        Times that rows are planned again.

    Returns
    -------
    DataFrame
        Columns row, target, aim and spent, both of all FLOPs: the plan that spends most within `OVER` of the target,
        or else least.
    """
    known: dict[str, _Search] = {}
    aims: dict[str, float] = {}
    targets: Mapping[str, float] = {}
    for _ in range(rounds + 1):
        rows = [row for row in plan(aims) if row.kind != "whole"]
        spent = spend(rows)
        targets = targets or targets_of(rows, spent)
        for row in rows:
            search = known.setdefault(row.name, _Search(targets[row.name], float(row.at), row.settings))
            search.tried(row.settings, spent[row.name])
            aims[row.name] = search.aim if row.kind != "default" else float(row.at)
    return pd.DataFrame([{"row": name, "target": search.target, **search.best()} for name, search in known.items()])


@dataclass
class _Search:
    """One row's aims: between what spends too much and what does not, by proportion or else in their middle."""

    target: float
    aim: float
    first: Settings
    low: float = 0.0
    high: float = math.inf
    spent: dict[float, float] = field(default_factory=dict)

    def tried(self, settings: Settings, spent: float) -> None:
        """Note what the plan for `aim` spent, and choose the next."""
        if self.aim in self.spent or self.aim == self.low:
            return  # settled, or nothing left between
        if self.spent and settings == self.first and self.aim < min(self.spent):
            self.low = self.aim  # the system can't be had for so little, and its first plan stood in
        else:
            self.spent[self.aim] = spent
            if spent > OVER * self.target:
                self.high = min(self.high, self.aim)
            else:
                self.low = max(self.low, self.aim)
                if spent >= UNDER * self.target:
                    return
        last = self.spent.get(self.aim, self.target)
        wanted = max(LEAST * self.target, min(MOST * self.target, self.aim * self.target / last))
        if not self.low < wanted < self.high:
            wanted = (self.low + self.high) / 2 if self.high < math.inf else self.low
        self.aim = round(wanted, 5)

    def best(self) -> dict[str, float]:
        """The aim that spends most within `OVER` of the target, or else least, and what it spends."""
        within = {aim: spent for aim, spent in self.spent.items() if spent <= OVER * self.target}
        aim = max(within, key=within.__getitem__) if within else min(self.spent, key=self.spent.__getitem__)
        return {"aim": aim, "spent": self.spent[aim]}


def targets_of(rows: Sequence[Entry], spent: Mapping[str, float]) -> dict[str, float]:
    """What each row should spend: as the default of its share, where it stands behind the same front, or the share."""
    defaults = {row.at: row for row in rows if row.kind == "default"}
    found = {}
    for row in rows:
        default = defaults.get(row.at)
        same = default is not None and _front(row) == _front(default)
        found[row.name] = spent[default.name] if default is not None and same else float(row.at)
    return found


def _front(row: Entry) -> tuple[object, object]:
    return row.settings.get("gate"), row.settings.get("fps")


def beside(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a file of `settled`, with a table's in their places or behind them; the table if there is no file."""
    if not path.exists():
        return table
    old, new = _read(path).set_index("row"), table.set_index("row")
    return new.combine_first(old).loc[list(dict.fromkeys([*old.index, *new.index]))].reset_index()


def aims_of(path: Path) -> dict[str, float]:
    """What a file of `settled` says, by row.

    Raises
    ------
    ConfigError
        If there is no such file, or it is none of these.
    """
    table = _read(path)
    return dict(zip(table.row, table.aim.tolist(), strict=True))


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
        return table.assign(row=table.row.astype(str), aim=table.aim.astype(float))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise pv.ConfigError(
            f"{path} does not say what rows are planned for; `python -m eval.league aims --data DEV --runs RUNS` "
            "measures it on a set of the dev split."
        ) from error
