"""What a model that has understood a video so far knows: the classes that lessons ask of its middle layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .bank import CELLS
from .moving import CODES
from .puzzles import corner_of, split_by_name
from .quiz import CORNERS, COUNTS
from .world import COLOURS, DIGITS, DIRECTIONS, GLYPHS, ICONS, SHAPES, Clip, Thing

NAMES = (*GLYPHS, *CODES)

TOKENS = CELLS * CELLS
"""Visual tokens a grid."""
STATES: dict[str, tuple[str, ...]] = {
    **{f"colour_{order}": COLOURS for order in ("first", "last")},
    **{f"number_{order}": DIGITS for order in ("first", "last")},
    **{f"shape_{order}": SHAPES for order in ("first", "last")},
    **{f"icon_{order}": ICONS for order in ("first", "last")},
    **{f"code_{order}": CODES for order in ("first", "last")},
    "count": COUNTS,
    "motion": DIRECTIONS,
    "thing_last": NAMES,
    "thing_before": NAMES,
    "corner_last": CORNERS,
    "now": NAMES,
}
"""What every visual slot is asked about the video so far; the class after the last word is "none yet"."""
FACTS: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "corner": CORNERS,
    "before": NAMES,
    "number": COUNTS,
    "after": NAMES,
    **{f"colour_{side}": COLOURS for side in ("before", "after")},
    **{f"corner_{side}": CORNERS for side in ("before", "after")},
}
"""What every word for a thing, wherever a question holds one, is asked about that thing: its colour, its corner, the
thing before it, the how manieth it is, the thing after it, the colours and corners of those two; the class after the
last is "not shown" or "none"."""
PLACES: dict[str, tuple[str, ...]] = {"row": tuple("0123"), "column": tuple("0123")}
"""Where in its grid a visual slot is."""
OPTIONS: dict[str, tuple[str, ...]] = {"right": ("no", "yes")}
"""What the last word of every option is asked: whether that option answers the question."""


def _facts(things: Sequence[Thing], n: int) -> list[int]:
    """Classes of `FACTS` for one of a video's things; -100 where it has none of the classes."""

    def place(thing: Thing) -> int:
        where = corner_of(thing)
        return -100 if where is None else CORNERS.index(where)

    before, after = (things[m] if 0 <= m < len(things) else None for m in (n - 1, n + 1))
    return [
        COLOURS.index(things[n].colour),
        place(things[n]),
        NAMES.index(before.glyph) if before else len(NAMES),
        n if n < len(COUNTS) else -100,
        NAMES.index(after.glyph) if after else len(NAMES),
        *(COLOURS.index(thing.colour) if thing else len(COLOURS) for thing in (before, after)),
        *(place(thing) if thing else len(CORNERS) for thing in (before, after)),
    ]


def facts_by_name(clip: Clip) -> dict[tuple[str | None, str], list[int]]:
    """Classes of `FACTS` of every thing under its names: glyph alone (`None`) and with its colour.

    A glyph that comes more than once has -100 everywhere without its colour; what is not shown has no entry.
    """
    once, _ = split_by_name(clip.things)
    unknown = [-100] * len(FACTS)
    found: dict[tuple[str | None, str], list[int]] = {}
    for n, thing in enumerate(clip.things):
        facts = _facts(clip.things, n)
        found[None, thing.glyph] = facts if n in once else unknown
        found[thing.colour, thing.glyph] = unknown if (thing.colour, thing.glyph) in found else facts
    return found


def not_shown() -> list[int]:
    """Classes of `FACTS` of what is not shown."""
    return [len(words) for words in FACTS.values()]


def states_of(clip: Clip, labels: np.ndarray) -> np.ndarray:
    """Classes of `STATES` at every visual slot, counting what was shown up to that slot; `[16 grids, 16]`.

    Parameters
    ----------
    clip : Clip
    labels : array
        `[grids, 5]`, the bank's, of the same seconds.
    """
    names = list(STATES)
    out = np.tile(np.array([len(STATES[name]) for name in names]), (clip.seconds * TOKENS, 1))
    if clip.marker:
        out[int(labels[0, 4]) :, names.index("motion")] = DIRECTIONS.index(clip.marker.direction)
    before = len(NAMES)
    for number, thing in enumerate(clip.things):
        here = thing.seen[0] * TOKENS + int(labels[thing.seen[0], 2])
        glyph = NAMES.index(thing.glyph)
        what, words = next(
            (w, ws)
            for w, ws in (("number", DIGITS), ("shape", SHAPES), ("icon", ICONS), ("code", CODES))
            if thing.glyph in ws
        )
        for attribute, value in (("colour", COLOURS.index(thing.colour)), (what, words.index(thing.glyph))):
            first = names.index(f"{attribute}_first")
            if out[here, first] == len(STATES[names[first]]):
                out[here:, first] = value
            out[here:, names.index(f"{attribute}_last")] = value
        out[here:, names.index("count")] = number if number < len(COUNTS) else -100
        out[here:, names.index("thing_last")] = glyph
        out[here:, names.index("thing_before")] = before
        where = corner_of(thing)
        out[here:, names.index("corner_last")] = -100 if where is None else CORNERS.index(where)
        for second in thing.seen:
            out[second * TOKENS + int(labels[second, 2]) : (second + 1) * TOKENS, names.index("now")] = glyph
        before = glyph
    return out


def places_of(slots: int) -> Tensor:
    """Classes of `PLACES` for a row of visual slots, `[slots, 2]`."""
    cell = torch.arange(slots) % TOKENS
    return torch.stack([cell // CELLS, cell % CELLS], -1)
