"""What the league's lines say: accuracies with errors by videos, wins and losses, who beats the default, what breaks.

Knows marks of items and their videos. Refuses to know models, runs and how a page looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import pdrop_video as pv

from ..stats.bounds import paired_interval
from ..stats.intervals import clustered_mean, holm, mcnemar

TABLES = ("flops", "bytes", "decode")
OF = {
    "flops": "{} of the FLOPs",
    "bytes": "the bytes of {} tokens a layer",
    "decode": "a {} of the memory left to the question",
}
"""What a budget of each is called."""
CONFIDENCE = 0.95
FOCUS = {"flops": 0.15, "bytes": 128, "decode": "quarter"}
"""The budget at which it is said where a system breaks, and by which systems stand in order."""
BY = ("sub_category", "domain")
"""Fields of items whose values may be what breaks."""
LEAST = 5
"""Items that a value must have for that."""


@dataclass(frozen=True)
class Table:
    """One table's lines as files hold them.

    Attributes
    ----------
    name : str
    rows : DataFrame
        As `eval.league.running.collected` gives them, with `budget`, the budget in words.
    items : DataFrame
    marks : ndarray [rows, items]
        1, 0, and nan where an item was not finished.
    """

    name: str
    rows: pd.DataFrame
    items: pd.DataFrame
    marks: NDArray[np.float64]

    @property
    def whole(self) -> int:
        """Number of the row that leaves nothing out."""
        return int(np.flatnonzero(self.rows.kind == "whole")[0])


def read(folder: Path, name: str) -> Table | None:
    """A table of a folder; None if it has none.

    Raises
    ------
    ConfigError
        If its files do not fit each other.
    """
    path = folder / f"{name}.csv"
    if not path.exists():
        return None
    rows = pd.read_csv(
        path, dtype={"marks": str, "at": str}, keep_default_na=False, na_values={"spent": [""], "own": [""]}
    )
    items = pd.read_csv(folder / f"{name}_items.csv", dtype=str, keep_default_na=False)
    if any(len(marks) != len(items) for marks in rows.marks) or list(rows.kind).count("whole") != 1:
        raise pv.ConfigError(
            f"{path} does not fit {name}_items.csv: expected a mark for each of {len(items)} items in every row, and "
            "one row of the kind whole. `python -m eval.league run` writes both."
        )
    marks = np.array([[float(mark) if mark != "-" else np.nan for mark in row] for row in rows.marks])
    at = [float(each) if name == "flops" else int(each) if name == "bytes" else each for each in rows["at"]]
    budget = [f"{each:.0%}" if isinstance(each, float) else str(each) for each in at]
    return Table(name, rows.assign(at=at, budget=budget), items, marks)


def standings(table: Table, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """A line a row: how it stands, alone and against the default of its budget.

    Accuracies have an error clustered by video. Wins are items that it alone had right, losses those that the default
    alone had. p is McNemar's, exact, and `p_holm` adjusted for the number of systems of that budget, controls left
    out. `beats` is 1 or -1 where that test and the interval of the difference by videos agree, else 0.
    """
    lines = []
    videos = table.items.video.to_numpy()
    for number, row in enumerate(table.rows.to_dict("records")):
        own = table.marks[number]
        seen = ~np.isnan(own)
        mean = clustered_mean(own[seen], videos[seen]) if seen.any() else None
        line: dict[str, Any] = {
            **{name: row[name] for name in ("system", "slot", "at", "budget", "kind", "trained", "paper", "says")},
            **{name: row[name] for name in ("spent", "own", "kib")},
            "accuracy": np.nan if mean is None else mean.value,
            "error": np.nan if mean is None else mean.standard_error,
            "items": int(seen.sum()),
            "videos": len(set(videos[seen])),
        }
        against = _default(table, row["at"])
        if against is not None and row["kind"] not in ("whole", "default"):
            line |= _paired(table.marks[against], own, videos, confidence)
        lines.append(line | {"breaks": breaks(table, number)})
    found = pd.DataFrame(lines)
    for name in ("wins", "losses", "p", "difference", "low", "high"):
        if name not in found:
            found[name] = np.nan
    found["p_holm"] = np.nan
    for _, group in found[(found.kind == "system") & found.p.notna()].groupby("budget", sort=False):
        found.loc[group.index, "p_holm"] = holm(group.p.tolist())
    sure = (found.p_holm < 1 - confidence) & ((found.low > 0) | (found.high < 0))
    found["beats"] = np.where(sure, np.sign(found.difference.fillna(0)), 0).astype(int)
    return found


def _default(table: Table, at: Any) -> int | None:
    """The default's row of a budget."""
    for number, row in enumerate(table.rows.to_dict("records")):
        if row["kind"] == "default" and row["at"] == at:
            return number
    return None


def _paired(
    first: NDArray[np.float64], second: NDArray[np.float64], videos: NDArray[Any], confidence: float
) -> dict[str, Any]:
    """The second against the first, on what both finished."""
    both = ~np.isnan(first) & ~np.isnan(second)
    if not both.any():
        return {}
    a, b = first[both], second[both]
    test, interval = mcnemar(a, b), paired_interval(a, b, videos[both].tolist(), confidence)
    return {
        "wins": test.only_second,
        "losses": test.only_first,
        "p": test.p_value,
        "difference": float((b - a).mean()),
        "low": interval.low,
        "high": interval.high,
    }


def breaks(table: Table, number: int) -> str:
    """Where a row loses most against all tokens, in words: by kind of question, or by how long ago the answer was seen.

    Of all values with `LEAST` items or more the one with the largest difference of shares; of equals the one with more
    items, then by name.
    """
    row = table.rows.iloc[number]
    if row.kind == "whole":
        return ""
    own, whole, against = table.marks[number], table.marks[table.whole], _default(table, row["at"])
    both = ~np.isnan(own) & ~np.isnan(whole)
    found = []
    for field in (name for name in BY if name in table.items):
        for value in sorted(set(table.items[field]) - {""}):
            of = both & (table.items[field] == value).to_numpy()
            count, right, could = int(of.sum()), int(own[of].sum()), int(whole[of].sum())
            if count >= LEAST:
                found.append(((right - could) / count, -count, value, right, could, of))
    if not found:
        return "too few items to say"
    lost, count, value, right, could, of = min(found, key=lambda each: each[:3])
    if lost >= 0:
        return "nowhere: no kind of question loses to all tokens"
    said = f"`{value}`: {right} of {-count} right, all tokens {could}"
    if against is not None and against != number and not np.isnan(table.marks[against][of]).any():
        said += f", the default {int(table.marks[against][of].sum())}"
    return said


def verdict(table: Table, found: pd.DataFrame) -> dict[str, Any]:
    """Who beats the default, who loses to it and how many are not told apart, budget by budget; JSON-ready."""
    said: dict[str, Any] = {}
    for budget, group in found[found.kind == "system"].groupby("budget", sort=False):
        default = found[(found.kind == "default") & (found.budget == budget)]
        if default.empty:
            continue
        better, worse = group[group.beats > 0], group[group.beats < 0]
        best = group.sort_values(["accuracy", "system"], ascending=[False, True]).iloc[0]
        said[str(budget)] = {
            "default": default.system.iloc[0],
            "accuracy": round(float(default.accuracy.iloc[0]), 4),
            "systems": len(group),
            "beaten_by": [
                {
                    "system": row.system,
                    "slot": row.slot,
                    "trained": bool(row.trained),
                    "accuracy": round(row.accuracy, 4),
                    "difference": round(row.difference, 4),
                    "wins": int(row.wins),
                    "losses": int(row.losses),
                    "p_holm": row.p_holm,
                }
                for row in better.sort_values("difference", ascending=False).itertuples()
            ],
            "beats": sorted(worse.system),
            "best": {"system": best.system, "slot": best.slot, "accuracy": round(float(best.accuracy), 4)},
        }
    return said


def sentences(name: str, said: dict[str, Any]) -> list[str]:
    """The verdict in words that claim no more."""
    lines = []
    where = OF[name]
    for budget, of in said.items():
        at = "At " + where.format(budget) if name == "flops" else "With " + where.format(budget)
        if of["beaten_by"]:
            who = "; ".join(
                f"`{each['system']}` ({each['slot']}) by {100 * each['difference']:+.1f} points, {each['wins']} : "
                f"{each['losses']}, p {_p(each['p_holm'])}"
                for each in of["beaten_by"]
            )
            line = f"{at} the default, `{of['default']}`, is beaten: {who}."
        else:
            whom = f"none of {of['systems']} systems beats" if of["systems"] != 1 else "the other system does not beat"
            line = f"{at} {whom} the default, `{of['default']}`."
        lines.append(f"{line} It beats {len(of['beats'])}; the others are not told apart from it.")
    return lines


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"
