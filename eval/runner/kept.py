"""What a question's memory still had of which moments, small enough to be written down with every answer.

Knows streams. Refuses to know items and how it is drawn.
"""

from __future__ import annotations

import numpy as np

from pdrop_video.stream.answer import Evidence

from ..stats.record import Moment
from .metered import Metered

MOST = 8
"""Moments a record: a memory has hundreds, and a run thousands of records."""


def moments(stream: Metered, evidence: Evidence | None = None) -> list[Moment]:
    """The moments that the deepest stage attended to most, in the order of time; without evidence, evenly spaced ones.

    Parameters
    ----------
    stream : Metered
        That the question was put to.
    evidence : Evidence, optional
        Of the deepest stage.
    """
    table = stream.stream.held(-1)
    table = table.take((table.pictured & ~table.standby).nonzero()[:, 0])
    seconds, rows, columns = (each.cpu().numpy() for each in (table.seconds, table.row, table.column))
    chosen: list[tuple[float, int, float | None]]
    if evidence is not None:
        said = list(zip(evidence.seconds, evidence.tokens, evidence.weight, strict=True))
        chosen = [*sorted(sorted(said, key=lambda one: one[2], reverse=True)[:MOST])]
    else:
        times, counts = np.unique(seconds, return_counts=True)
        picked = np.unique(np.linspace(0, len(times) - 1, min(MOST, len(times))).round().astype(int))
        chosen = [(float(times[i]), int(counts[i]), None) for i in picked]
    found = []
    for when, tokens, weight in chosen:
        own = seconds == when
        places = "" if stream.grid is None else Moment.packed(stream.grid, rows[own], columns[own])
        found.append(Moment(when, tokens, weight, stream.grid, places))
    return found
