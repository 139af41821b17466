"""What the rows of every table are made of: settings of `eval.run`, schedules as settings, gates of a known share."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor
from typing import Any, TypeAlias

import pdrop_video as pv

Settings: TypeAlias = dict[str, Any]
Rows: TypeAlias = dict[str, Settings]

RATIOS = [0.5, 0.25, 0.125]
ALL = {"stages": 1}
LETS_ON: Mapping[float, Mapping[str, float]] = {
    0.5: {},
    0.25: {"surprise:threshold=2.2": 0.309},
    0.15: {"surprise": 0.228},
    0.1: {"surprise:max_gap=30": 0.18},
    0.05: {"surprise:threshold=4,max_gap=60,parts=1": 0.055},
}
"""Of the FLOPs of the whole way what the rows of `reduce` spend, and behind which gates; each with the share of all
visual tokens that it lets on, measured on the dev split (seed 211)."""
MARGIN = 1.08
"""Times that, which schedules leave room for: other videos are let on more of."""

TEXT_TOWER = {"attended", "class_attention"}
"""What only towers with a text encoder beside them hand over, and the built-in one does not."""


def servable(reducer: object) -> bool:
    """Whether a reducer needs no more of the vision tower than the built-in model knows of its own."""
    return not TEXT_TOWER & set(getattr(reducer, "needs", ()))


def one_drop(layer: int, ratio: float) -> pv.Pyramid:
    """All that goes, goes before one layer."""
    return pv.Pyramid(layers=(layer,), ratios=(max(0.01, ratio),))


def even_drops(ratio: float) -> pv.Pyramid:
    """PyramidDrop's shape: each boundary keeps the same share of what reached it."""
    return pv.Pyramid(ratios=(ratio, ratio**2, ratio**3))


def early_drops(ratio: float) -> pv.Pyramid:
    """The same of a decoder of eight layers, each boundary a layer earlier."""
    return pv.Pyramid(layers=(1, 3, 5), ratios=(ratio, ratio**2, ratio**3))


def written(pyramid: pv.Pyramid) -> Settings:
    """A schedule as settings, its ratios rounded down, but not to nothing."""
    given: Settings = {"ratios": [max(1, floor(r * 1e4)) / 1e4 for r in pyramid.ratios or ()]}
    return given if pyramid.layers is None else {"layers": list(pyramid.layers), **given}
