"""What is asked about a video of the third set: lookups among near-duplicates, codes, questions of two steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .moving import CODES, near_code
from .quiz import CORNERS, ENDS, Asked, Question, asked_end, asked_now, corner_at, draw_some, others, put
from .world import COLOURS, GLYPHS, Clip, Thing

TWO_STEPS = ("colour_before", "colour_after", "where_before", "where_after")
TWINS = ("where_twin", "before_twin", "after_twin", "which_twin", "absent_twin")
CODED = ("code_first", "code_last", "code_colour", "code_which")
SINGLE = ("colour_of", "where", "before", "after", "order")
PUZZLES = (*ENDS, "now", *SINGLE, *CODED, *TWINS, *TWO_STEPS)
"""All kinds. Those of `quiz.KINDS` among them ask the same as there."""
NEIGHBOURS = {"before": -1, "after": 1}


def label(glyph: str) -> str:
    """How a question calls a glyph or a code."""
    return f"code {glyph}" if glyph in CODES else glyph


def full(thing: Thing) -> str:
    """A thing's name with its colour."""
    return f"{thing.colour} {label(thing.glyph)}"


def split_by_name(things: Sequence[Thing]) -> tuple[list[int], list[int]]:
    """Places in `things` of those whose glyph tells which one is meant, and of those that need their colour, too."""
    counts = Counter(thing.glyph for thing in things)
    pairs = Counter((thing.glyph, thing.colour) for thing in things)
    once = [n for n, thing in enumerate(things) if counts[thing.glyph] == 1]
    twins = [n for n, t in enumerate(things) if counts[t.glyph] > 1 and pairs[t.glyph, t.colour] == 1]
    return once, twins


def corner_of(thing: Thing) -> str | None:
    """The corner in which a thing is as long as it is to be seen; None if it changes, or stands near a middle line."""
    found = {corner_at(*thing.at(second + 0.25)) for second in thing.seen}
    return found.pop() if len(found) == 1 else None


def near(rng: np.random.Generator, glyph: str, colour: str) -> tuple[str, str]:
    """A glyph and a colour that differ from these in one property."""
    if rng.random() < 0.5:
        return glyph, str(rng.choice(COLOURS))
    return (near_code(rng, glyph) if glyph in CODES else str(rng.choice(GLYPHS))), colour


def _unseen(rng: np.random.Generator, like: Thing, known: set[tuple[str, str]], number: int) -> list[str]:
    """Names of near-duplicates of a thing that are not shown."""
    found: dict[str, None] = {}
    while len(found) < number:
        glyph, colour = near(rng, like.glyph, like.colour)
        if (glyph, colour) not in known:
            found[f"{colour} {label(glyph)}"] = None
    return list(found)


def _codes(rng: np.random.Generator, code: str, shown: set[str], number: int) -> tuple[str, ...]:
    found: dict[str, None] = {}
    while len(found) < number:
        other = near_code(rng, code)
        if other not in shown:
            found[other] = None
    return tuple(found)


def _twin(clip: Clip, kind: str, rng: np.random.Generator) -> Asked | None:
    """Which of four names, colour and all, is shown, or is not."""
    things = clip.things
    known = {(thing.glyph, thing.colour) for thing in things}
    if kind == "which_twin":
        right = things[int(rng.integers(len(things)))]
        wrong = _unseen(rng, right, known, 3)
        return Asked(full(right), tuple(wrong), listed=True, moments=right.seen[-1:])
    if len(things) < 3:
        return None
    shown = [things[int(n)] for n in rng.permutation(len(things))[:3]]
    right_name = _unseen(rng, shown[0], known, 1)[0]
    return Asked(right_name, tuple(full(thing) for thing in shown), listed=True)


def _coded(clip: Clip, kind: str, rng: np.random.Generator) -> Asked | None:
    """About codes."""
    codes = [thing for thing in clip.things if thing.glyph in CODES]
    if not codes:
        return None
    shown = {thing.glyph for thing in codes}
    if kind == "code_which":
        right = codes[int(rng.integers(len(codes)))]
        return Asked(right.glyph, _codes(rng, right.glyph, shown, 3), listed=True, moments=right.seen[-1:])
    thing = codes[0] if kind == "code_first" else codes[-1]
    rest = draw_some(rng, others(tuple(shown), thing.glyph), 2)
    more = _codes(rng, thing.glyph, shown, 3)
    return Asked(thing.glyph, (*rest, *more)[:3], moments=thing.seen[:1])


def _named(clip: Clip, kind: str, rng: np.random.Generator) -> Asked | None:
    """About one thing that is named, or its neighbour."""
    things = clip.things
    once, twins = split_by_name(things)
    what, _, how = kind.partition("_")
    step = NEIGHBOURS.get(how, NEIGHBOURS.get(what, 0))
    able = twins if how == "twin" else [*once, *twins] if kind in TWO_STEPS else once
    if kind in ("colour_of", "code_colour"):
        able = [n for n in once if (things[n].glyph in CODES) == (kind == "code_colour")]
    able = [n for n in able if 0 <= n + step < len(things)]
    if what == "where":
        able = [n for n in able if corner_of(things[n + step])]
    if not able:
        return None
    n = able[int(rng.integers(len(able)))]
    thing, meant = things[n], things[n + step]
    x = label(thing.glyph) if n in once else full(thing)
    moments = tuple(sorted({thing.seen[0], meant.seen[0]}))
    if what == "where":
        return Asked(str(corner_of(meant)), CORNERS, x=x, moments=moments)
    if what in ("colour", "code"):
        return Asked(meant.colour, pool=COLOURS, x=x, moments=moments)
    shown = tuple(dict.fromkeys(other.glyph for other in things))
    wrong = draw_some(rng, others(shown, meant.glyph, thing.glyph), 3)
    return Asked(meant.glyph, wrong, others(GLYPHS, *shown), x=x, moments=moments)


def _asked(clip: Clip, kind: str, rng: np.random.Generator) -> Asked | None:
    things = clip.things
    if kind == "now":
        return asked_now(clip, rng)
    if kind == "order":
        once = split_by_name(things)[0]
        if len(once) < 4:
            return None
        four = [things[n] for n in sorted(int(n) for n in rng.choice(once, 4, replace=False))]
        order = "first" if rng.random() < 0.5 else "last"
        right = four[0] if order == "first" else four[-1]
        names = tuple(label(thing.glyph) for thing in four)
        moments = tuple(thing.seen[0] for thing in four)
        return Asked(label(right.glyph), others(names, label(right.glyph)), listed=True, order=order, moments=moments)
    if kind in ENDS:
        return asked_end(clip, kind)
    if kind in ("which_twin", "absent_twin"):
        return _twin(clip, kind, rng)
    if kind in CODED and kind != "code_colour":
        return _coded(clip, kind, rng)
    return _named(clip, kind, rng)


def puzzle(clip: Clip, kind: str, rng: np.random.Generator, split: str) -> Question | None:
    """One question of a kind about a video of the third set, or None where it can't be asked that.

    Parameters
    ----------
    clip : Clip
    kind : str
        One of `PUZZLES`.
    rng : Generator
        Chooses the thing asked about, the sentence and the options.
    split : str
        Whose sentences.
    """
    asked = _asked(clip, kind, rng) if clip.things else None
    return None if asked is None else put(asked, kind, rng, split)
