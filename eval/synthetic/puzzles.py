"""What is asked about a video of the third set: lookups among near-duplicates, codes, questions of two steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .moving import CODES, LETTERS
from .quiz import CORNERS, ENDS, Asked, Question, asked_end, asked_now, corner_at, draw_some, others, put
from .world import COLOURS, DIGITS, GLYPHS, Clip, Thing

TWO_STEPS = ("colour_before", "colour_after", "where_before", "where_after")
TWINS = ("where_twin", "before_twin", "after_twin", "which_twin", "absent_twin")
CODED = ("code_first", "code_last", "code_colour", "code_which")
SINGLE = ("colour_of", "where", "before", "after", "order")
PUZZLES = (*ENDS, "now", *SINGLE, *CODED, *TWINS, *TWO_STEPS)
"""All kinds. Those of `quiz.KINDS` among them ask the same as there."""
SELDOM = {kind: 6 for kind in (*TWO_STEPS, "where_twin", "before_twin", "after_twin", "absent_twin")}
"""Kinds that a set asks so many times less often than the others: the built-in model, with all tokens, is wrong in many
of them, which says nothing of what a method left out."""
TRIES = 20
"""Draws of near-duplicates of which none may be shown, before a question is given up."""
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


def _square(
    rng: np.random.Generator, x: str, y: str, xs: Sequence[str], ys: Sequence[str], shown: set[tuple[str, str]]
) -> list[tuple[str, str]] | None:
    """Three pairs, none of them shown, that make a square with a pair; None if there are none.

    Of a square's corners none is nearer to the others, so that none stands out.
    """
    for _ in range(TRIES):
        other_x, other_y = (str(rng.choice(others(tuple(several), one))) for several, one in ((xs, x), (ys, y)))
        found = [(other_x, y), (x, other_y), (other_x, other_y)]
        if not shown.intersection(found):
            return found
    return None


def near(rng: np.random.Generator, thing: Thing, known: set[tuple[str, str]]) -> list[str] | None:
    """Names of three near-duplicates of a thing, not shown, as near to each other as to it; None if there are none."""
    glyphs = CODES if thing.glyph in CODES else GLYPHS
    found = _square(rng, thing.glyph, thing.colour, glyphs, COLOURS, known)
    return None if found is None else [f"{colour} {label(glyph)}" for glyph, colour in found]


def near_codes(rng: np.random.Generator, code: str, shown: set[str]) -> tuple[str, ...] | None:
    """Three codes that are not shown, and as near to each other as to this one; None if there are none."""
    found = _square(rng, code[0], code[1], LETTERS, DIGITS, {(other[0], other[1]) for other in shown})
    return None if found is None else tuple(sorted(letter + digit for letter, digit in found))


def _twin(clip: Clip, kind: str, rng: np.random.Generator) -> Asked | None:
    """Which of four names, colour and all, is shown, or is not."""
    things = clip.things
    known = {(thing.glyph, thing.colour) for thing in things}
    if kind == "which_twin":
        right = things[int(rng.integers(len(things)))]
        wrong = near(rng, right, known)
        return None if wrong is None else Asked(full(right), tuple(wrong), listed=True, moments=right.seen[-1:])
    if len(things) < 4:
        return None
    *shown, like = (things[int(n)] for n in rng.permutation(len(things))[:4])  # else what is like an option stood out
    names = near(rng, like, known)
    if names is None:
        return None
    return Asked(names[int(rng.integers(2))], tuple(full(thing) for thing in shown), listed=True)


def _coded(clip: Clip, kind: str, rng: np.random.Generator) -> Asked | None:
    """About codes."""
    codes = [thing for thing in clip.things if thing.glyph in CODES]
    if not codes:
        return None
    shown = {thing.glyph for thing in codes}
    if kind == "code_which":
        right = codes[int(rng.integers(len(codes)))]
        three = near_codes(rng, right.glyph, shown)
        return None if three is None else Asked(right.glyph, three, listed=True, moments=right.seen[-1:])
    thing = codes[0] if kind == "code_first" else codes[-1]
    rest = others(tuple(sorted(shown)), thing.glyph)
    wrong = draw_some(rng, rest, 3) if len(rest) >= 3 else near_codes(rng, thing.glyph, set())
    return None if wrong is None else Asked(thing.glyph, wrong, moments=thing.seen[:1])


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
