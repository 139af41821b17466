"""What a model that has understood a video so far knows: the classes that lessons ask of its middle layers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .bank import CELLS
from .quiz import CORNERS, COUNTS, corner
from .world import COLOURS, DIGITS, DIRECTIONS, GLYPHS, ICONS, SHAPES, Clip

TOKENS = CELLS * CELLS
"""Visual tokens a grid."""
STATES: dict[str, tuple[str, ...]] = {
    **{f"colour_{order}": COLOURS for order in ("first", "last")},
    **{f"number_{order}": DIGITS for order in ("first", "last")},
    **{f"shape_{order}": SHAPES for order in ("first", "last")},
    **{f"icon_{order}": ICONS for order in ("first", "last")},
    "count": COUNTS,
    "motion": DIRECTIONS,
    "thing_last": GLYPHS,
    "thing_before": GLYPHS,
    "corner_last": CORNERS,
    "now": GLYPHS,
}
"""What every visual slot is asked about the video so far; the class after the last word is "none yet"."""
FACTS: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "corner": CORNERS,
    "before": GLYPHS,
    "number": COUNTS,
    "after": GLYPHS,
}
"""What every word for a thing, wherever a question holds one, is asked about that thing: its colour, its corner, the
thing before it, the how manieth it is, the thing after it; the class after the last is "not shown" or "none"."""
PLACES: dict[str, tuple[str, ...]] = {"row": tuple("0123"), "column": tuple("0123")}
"""Where in its grid a visual slot is."""
OPTIONS: dict[str, tuple[str, ...]] = {"right": ("no", "yes")}
"""What the last word of every option is asked: whether that option answers the question."""


def facts_of(clip: Clip) -> Tensor:
    """Classes of `FACTS` for every glyph, `[25, 5]`; -100 for those that come more than once."""
    out = torch.tensor([[len(words) for words in FACTS.values()]]).repeat(len(GLYPHS), 1)
    for number, thing in enumerate(clip.things):
        glyph, where = GLYPHS.index(thing.glyph), corner(thing)
        if any(other.glyph == thing.glyph for other in clip.things if other is not thing):
            out[glyph] = -100
            continue
        out[glyph, 0] = COLOURS.index(thing.colour)
        out[glyph, 1] = -100 if where is None else CORNERS.index(where)
        out[glyph, 2] = GLYPHS.index(clip.things[number - 1].glyph) if number else len(GLYPHS)
        out[glyph, 3] = number if number < len(COUNTS) else -100
        later = clip.things[number + 1 : number + 2]
        out[glyph, 4] = GLYPHS.index(later[0].glyph) if later else len(GLYPHS)
    return out


def states_of(clip: Clip, labels: np.ndarray) -> np.ndarray:
    """Classes of `STATES` at every visual slot, counting what was shown up to that slot; `[16 grids, 14]`.

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
    before = len(GLYPHS)
    for number, thing in enumerate(clip.things):
        here = thing.second * TOKENS + int(labels[thing.second, 2])
        glyph = GLYPHS.index(thing.glyph)
        what, words = next(
            (w, ws) for w, ws in (("number", DIGITS), ("shape", SHAPES), ("icon", ICONS)) if thing.glyph in ws
        )
        for attribute, value in (("colour", COLOURS.index(thing.colour)), (what, words.index(thing.glyph))):
            first = names.index(f"{attribute}_first")
            if out[here, first] == len(STATES[names[first]]):
                out[here:, first] = value
            out[here:, names.index(f"{attribute}_last")] = value
        if number < len(COUNTS):
            out[here:, names.index("count")] = number
        out[here:, names.index("thing_last")] = glyph
        out[here:, names.index("thing_before")] = before
        where = corner(thing)
        if where:
            out[here:, names.index("corner_last")] = CORNERS.index(where)
        out[here : (thing.second + 1) * TOKENS, names.index("now")] = glyph
        before = glyph
    return out


def places_of(slots: int) -> Tensor:
    """Classes of `PLACES` for a row of visual slots, `[slots, 2]`."""
    cell = torch.arange(slots) % TOKENS
    return torch.stack([cell // CELLS, cell % CELLS], -1)
