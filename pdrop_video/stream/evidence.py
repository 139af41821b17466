"""What an answer rested on, by steps of time and on the host. Knows tables; refuses to know who chose among them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..memory import TokenTable
from .answer import Again, Evidence
from .looking import Glance
from .passage import Attended
from .state import StreamState


def evidence_of(attended: Attended, state: StreamState) -> Evidence:
    """Of one stage."""
    return Evidence(*_by_step(attended.table, attended.weight, state))


def again_of(glance: Glance, state: StreamState) -> Again:
    """Of one look."""
    return Again(glance.token, glance.first, glance.last, glance.layers, *_by_step(glance.table, glance.weight, state))


def _by_step(
    table: TokenTable, weight: Tensor, state: StreamState
) -> tuple[tuple[float, ...], tuple[int, ...], tuple[float, ...]]:
    """Seconds of each step, how many visual tokens it has, and their weights [tokens] together."""
    sums: dict[int, list[Any]] = {}
    columns = (table.step, state.told_times(table.seconds), table.visual, weight)
    for step, seconds, visual, share in zip(*(column.tolist() for column in columns), strict=True):
        if visual:
            entry = sums.setdefault(step, [seconds, 0, 0.0])
            entry[1], entry[2] = entry[1] + 1, entry[2] + share
    if not sums:
        return (), (), ()
    seconds, tokens, weights = zip(*sums.values(), strict=True)
    return seconds, tokens, weights
