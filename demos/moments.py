"""The slider of the pictures' moments: it moves from picture to picture, and is not written back while one drags it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import gradio as gr

_FINEST = 1000
"""Steps that a second may have."""


def moments(times: Sequence[float], seconds: float) -> dict[str, Any]:
    """What changes about the slider. Its value does not, unless the pictures end before it.

    Parameters
    ----------
    times : sequence of float
        The pictures' own, rising. The step is the shortest time between two of them, so that each can be chosen.
    seconds : float
        The moment that is chosen now.
    """
    if not times:
        return gr.update(minimum=0, maximum=1, value=0, interactive=False)
    gap = min((later - time for time, later in pairwise(times)), default=1.0)
    step = max(math.floor(gap * _FINEST + 1e-6), 1) / _FINEST
    last = times[0] + max(math.ceil((times[-1] - times[0]) / step - 1e-6), 1) * step
    bounds: dict[str, Any] = {"minimum": times[0], "maximum": round(last, 3), "step": step, "interactive": True}
    inside = times[0] <= seconds <= last
    return gr.update(**bounds) if inside else gr.update(**bounds, value=min(max(seconds, times[0]), last))
