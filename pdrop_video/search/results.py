"""What a search over recipes found, in files: recipes, the Pareto front as CSV and PNG, all figures as JSON.

Knows candidates; refuses to know how they were found.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import stdev
from typing import Any

from ..common.atomic import replacing
from ..errors import ConfigError
from ..plots.trade_off import Point, trade_off
from .outcome import Candidate, Outcome
from .uncertainty import Uncertainty

COLUMNS = (
    *("budget", "budget_bytes", "name", "flops", "bytes", "divergence", "standard_error", "videos"),
    *("held_out", "held_out_error", "held_out_videos", "wins", "chosen", "front", "recipe"),
)


def pareto(costs: Sequence[Sequence[float]]) -> list[bool]:
    """Which of some points no other is at least as good as in everything and better in something; small is good.

    Parameters
    ----------
    costs : sequence of sequences of float

    Examples
    --------
    >>> pareto([(1, 5), (2, 4), (2, 5), (3, 1), (1, 5)])
    [True, True, False, True, True]
    """

    def beats(one: Sequence[float], other: Sequence[float]) -> bool:
        return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)

    return [not any(beats(other, one) for other in costs) for one in costs]


def rows_of(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row for each candidate that was judged on every clip searched on, by `COLUMNS`.

    The front is over all budgets, by divergence on the clips searched on, which every row has, FLOPs and bytes.
    """
    rows, costs = [], []
    for outcome in outcomes:
        for one in (*outcome.finalists, *outcome.others):
            wins = outcome.sure.wins[outcome.finalists.index(one)] if one in outcome.finalists else None
            costs.append((one.divergence, one.flops, one.bytes))
            rows.append(
                {
                    "budget": one.budget.flops,
                    "budget_bytes": one.budget.bytes,
                    "name": one.name,
                    "flops": one.flops,
                    "bytes": one.bytes,
                    "divergence": one.divergence,
                    "standard_error": _error(one.divergences),
                    "videos": len(one.divergences),
                    "held_out": sum(one.held_out) / len(one.held_out) if one.held_out else None,
                    "held_out_error": _error(one.held_out),
                    "held_out_videos": len(one.held_out),
                    "wins": wins,
                    "chosen": one is outcome.chosen,
                    "recipe": json.dumps(one.recipe.as_dict()),
                }
            )
    return [{**row, "front": front} for row, front in zip(rows, pareto(costs), strict=True)]


def _error(values: Sequence[float]) -> float | None:
    """The standard error of a mean over videos; None with fewer than two."""
    return stdev(values) / sqrt(len(values)) if len(values) > 1 else None


def sentence(outcome: Outcome) -> str:
    """How sure the choice is, in words."""
    sure, chosen, held = outcome.sure, outcome.chosen, len(outcome.chosen.held_out)
    rival = _rival(sure)
    said = (
        f"budget {outcome.budget.name}: {chosen.name} has the smallest mean on {held} held-out videos, "
        f"{sure.mean[sure.best]:.4f} nats (standard error {sure.standard_error[sure.best]:.4f}); drawn anew "
        f"{sure.resamples:,} times it is the best in {sure.wins[sure.best]:.0%} of the draws; on the videos that a "
        f"draw left out what won in it comes to {sure.elsewhere:.4f}"
    )
    if rival is not None:
        said += (
            f"; next is {outcome.finalists[rival].name}, {sure.behind[rival]:.4f} behind (standard error of the "
            f"difference {sure.behind_error[rival]:.4f})"
        )
        if sure.behind[rival] < 2 * sure.behind_error[rival]:
            said += ": these videos do not tell the two apart"
    return said + "."


def _rival(sure: Uncertainty) -> int | None:
    """The best but for one."""
    others = [i for i in range(len(sure.mean)) if i != sure.best]
    return min(others, key=sure.mean.__getitem__, default=None)


def write(folder: Path, outcomes: Sequence[Outcome], notes: dict[str, Any]) -> list[Path]:
    """Write a recipe for each budget, ``front.csv``, ``front.png`` and ``search.json``; each file appears whole.

    Parameters
    ----------
    folder : Path
    outcomes : sequence of Outcome
    notes : dict
        JSON-ready; goes into recipes and ``search.json``.

    Raises
    ------
    ConfigError
        If a file can't be written.
    PDropError
        If matplotlib, the extra "plots", is not installed: the picture comes last.
    """
    rows, written = rows_of(outcomes), []
    for outcome in outcomes:
        one, path = outcome.chosen, folder / f"recipe_{outcome.budget.name}.yaml"
        one.recipe.save(path, **notes, found=_said(one), sure=sentence(outcome))
        written.append(path)
    data = {
        **notes,
        "outcomes": [
            {
                "budget": {"flops": outcome.budget.flops, "bytes": outcome.budget.bytes},
                "says": sentence(outcome),
                "elsewhere": outcome.sure.elsewhere,
                "finalists": [
                    {
                        **_said(one),
                        "recipe": one.recipe.as_dict(),
                        "behind": outcome.sure.behind[i],
                        "behind_error": outcome.sure.behind_error[i],
                        "wins": outcome.sure.wins[i],
                        "held_out": list(one.held_out),
                    }
                    for i, one in enumerate(outcome.finalists)
                ],
            }
            for outcome in outcomes
        ],
    }
    try:
        with replacing(folder / "search.json") as part:
            Path(part).write_text(json.dumps(data, indent=1, allow_nan=True) + "\n", encoding="utf-8")
        with replacing(folder / "front.csv") as part, open(part, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(rows)
        figure = trade_off([_point(row) for row in rows])
        with replacing(folder / "front.png") as part:
            figure.savefig(part, format="png", dpi=160, facecolor="white")
    except OSError as error:
        raise ConfigError(f"{folder} can't be written ({error.strerror}); choose a folder that can.") from error
    return [*written, *(folder / name for name in ("search.json", "front.csv", "front.png"))]


def _said(one: Candidate) -> dict[str, Any]:
    return {"name": one.name, "flops": one.flops, "bytes": one.bytes, "divergence": one.divergence}


def _point(row: dict[str, Any]) -> Point:
    names = ("bytes", "front", "chosen", "name")
    return Point(row["flops"], row["divergence"], row["standard_error"] or 0.0, *(row[name] for name in names))
