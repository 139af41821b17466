"""What can be asked about a video, the right answer, and the options; knows no pixels and no models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .phrasings import phrasings
from .world import (
    COLOURS,
    DIGITS,
    DIRECTIONS,
    GLYPHS,
    ICONS,
    MOST_THINGS,
    SHAPES,
    Clip,
    Thing,
    generator,
)

NOTHING = "nothing"
CORNERS = ("top left", "top right", "bottom left", "bottom right")
SIDES = ("left", "right", "above", "below")
COUNTS = tuple(str(n) for n in range(1, MOST_THINGS + 1))
WORDS = {"colour": COLOURS, "number": DIGITS, "shape": SHAPES, "icon": ICONS}
ENDS = tuple(f"{attribute}_{order}" for attribute in WORDS for order in ("first", "last"))
LOOKUPS = ("shown", "which", "absent", "before", "after", "where", "colour_of", "order", "relation")
KINDS = (*ENDS, "count", "motion", "now", *LOOKUPS)
MARGIN = 0.06
"""Things closer to a middle line of the frame, in frame sides, are not asked for their place."""
STILL_ASKED = 0.3
"""How often "what is there now?" is asked where the answer is "nothing"."""


@dataclass(frozen=True)
class Question:
    """A question, its kind, the words that answer it, and all options, the answer among them, in a random order.

    Questions whose options stand in their text have the same options here, in the same order. `moments` are the seconds
    whose things one must have seen; none where nothing, or all of the video, tells the answer. `slots` are what fills a
    sentence of `phrasings`.
    """

    kind: str
    text: str
    answer: str
    options: tuple[str, ...]
    moments: tuple[int, ...] = ()
    slots: Mapping[str, str] = field(default_factory=dict)

    def wordings(self, split: str) -> list[str]:
        """All sentences of a split that ask the same."""
        return [sentence.format(**self.slots) for sentence in phrasings(self.kind, split)]


@dataclass(frozen=True)
class Asked:
    """What fills a sentence, the answer, and what else could be taken for it: sure options, and a pool of more."""

    answer: str
    sure: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    x: str = ""
    y: str = ""
    listed: bool = False
    order: str = ""
    moments: tuple[int, ...] = ()


def corner_at(x: float, y: float) -> str | None:
    """Which quarter of the frame a point is in, given in frame sides; None too close to a middle line."""
    if min(abs(x - 0.5), abs(y - 0.5)) < MARGIN:
        return None
    return f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}"


def corner(thing: Thing) -> str | None:
    """Which quarter of the frame a thing is in when it comes; None too close to a middle line."""
    return corner_at(thing.x, thing.y)


def unique(things: Sequence[Thing]) -> list[int]:
    """Places in `things` of those whose glyph comes once."""
    counts = Counter(thing.glyph for thing in things)
    return [place for place, thing in enumerate(things) if counts[thing.glyph] == 1]


def _when(things: Sequence[Thing], glyph: str) -> tuple[int, ...]:
    """The last second that shows a glyph."""
    return tuple(thing.second for thing in things if thing.glyph == glyph)[-1:]


def _one(rng: np.random.Generator, choices: Sequence[int]) -> int:
    return int(choices[int(rng.integers(len(choices)))])


def others(words: Sequence[str], *out: str) -> tuple[str, ...]:
    """Words without some of them."""
    return tuple(word for word in words if word not in out)


def draw_some(rng: np.random.Generator, words: Sequence[str], number: int) -> tuple[str, ...]:
    """So many of the words, fewer where there are no more, in a random order."""
    return tuple(str(words[int(place)]) for place in rng.permutation(len(words))[:number])


def _lookup(clip: Clip, kind: str, rng: np.random.Generator) -> Asked | None:
    """A question that names a thing."""
    things = clip.things
    shown = tuple(dict.fromkeys(thing.glyph for thing in things))
    unseen = others(GLYPHS, *shown)
    if kind == "shown":
        there = bool(rng.random() < 0.5)
        x = str(rng.choice(shown if there else unseen))
        return Asked("yes" if there else "no", ("yes", "no"), x=x, moments=_when(things, x))
    if kind == "which":
        right = draw_some(rng, shown, 1)[0]
        return Asked(right, draw_some(rng, unseen, 3), listed=True, moments=_when(things, right))
    if kind == "absent":
        return None if len(shown) < 3 else Asked(draw_some(rng, unseen, 1)[0], draw_some(rng, shown, 3), listed=True)
    once = unique(things)
    if kind == "order":
        if len(once) < 4:
            return None
        four = sorted(int(n) for n in rng.choice(once, 4, replace=False))
        order = "first" if rng.random() < 0.5 else "last"
        names = tuple(things[n].glyph for n in four)
        right = names[0] if order == "first" else names[-1]
        moments = tuple(things[n].second for n in four)
        return Asked(right, others(names, right), listed=True, order=order, moments=moments)
    if kind == "relation":
        pairs = [(a, b, side) for a in once for b in once if a != b and (side := _side(things[a], things[b]))]
        if not pairs:
            return None
        wanted = str(rng.choice(sorted({side for _, _, side in pairs})))
        fitting = [pair for pair in pairs if pair[2] == wanted]
        a, b, side = fitting[int(rng.integers(len(fitting)))]
        moments = (things[a].second, things[b].second)
        return Asked(side, SIDES, x=things[a].glyph, y=things[b].glyph, moments=moments)
    return _of_one(clip, kind, rng, once, shown, unseen)


def _of_one(
    clip: Clip,
    kind: str,
    rng: np.random.Generator,
    once: Sequence[int],
    shown: tuple[str, ...],
    unseen: tuple[str, ...],
) -> Asked | None:
    """A question about one thing that comes once."""
    things = clip.things
    step = {"before": -1, "after": 1}.get(kind)
    if step is not None:
        once = [n for n in once if 0 <= n + step < len(things)]
    if kind == "where":
        once = [n for n in once if corner(things[n])]
    if not once:
        return None
    n = _one(rng, once)
    x = things[n].glyph
    if kind == "where":
        return Asked(str(corner(things[n])), CORNERS, x=x, moments=(things[n].second,))
    if kind == "colour_of":
        return Asked(things[n].colour, pool=COLOURS, x=x, moments=(things[n].second,))
    assert step is not None
    right = things[n + step].glyph
    near = draw_some(rng, others(shown, right, x), 3)
    return Asked(right, near, unseen, x=x, moments=(things[n].second, things[n + step].second))


def _side(thing: Thing, other: Thing) -> str | None:
    """Where `thing` is, seen from `other`, if they share one half of the frame and not the other."""
    here, there = corner(thing), corner(other)
    if here is None or there is None:
        return None
    (row, column), (other_row, other_column) = here.split(), there.split()
    if row == other_row and column != other_column:
        return column
    if column == other_column and row != other_row:
        return "above" if row == "top" else "below"
    return None


def _asked(clip: Clip, kind: str, rng: np.random.Generator) -> Asked | None:
    if kind == "count":
        return Asked(str(len(clip.things)), pool=COUNTS) if 0 < len(clip.things) <= MOST_THINGS else None
    if kind == "motion":
        return Asked(clip.marker.direction, DIRECTIONS) if clip.marker else None
    if kind == "now":
        return asked_now(clip, rng)
    if kind in LOOKUPS:
        return _lookup(clip, kind, rng) if clip.things else None
    return asked_end(clip, kind)


def asked_now(clip: Clip, rng: np.random.Generator) -> Asked | None:
    """What is on the screen in the last second; where nothing is, now and then."""
    last = clip.things[-1] if clip.things else None
    if last is not None and last.second + last.lasts == clip.seconds:
        earlier = tuple(dict.fromkeys(t.glyph for t in clip.things[:-1] if t.glyph != last.glyph))
        return Asked(last.glyph, (NOTHING, *draw_some(rng, earlier, 2)), GLYPHS, moments=last.seen[-1:])
    if rng.random() >= STILL_ASKED:
        return None
    return Asked(NOTHING, draw_some(rng, [t.glyph for t in clip.things], 1), GLYPHS, moments=(clip.seconds - 1,))


def asked_end(clip: Clip, kind: str) -> Asked | None:
    """The first or last colour, digit, shape or icon."""
    attribute, order = kind.split("_")
    seen = [t for t in clip.things if attribute == "colour" or t.glyph in WORDS[attribute]]
    if not seen:
        return None
    thing = seen[0] if order == "first" else seen[-1]
    right = thing.colour if attribute == "colour" else thing.glyph
    return Asked(right, pool=WORDS[attribute], moments=thing.seen[:1])


def question(clip: Clip, kind: str, rng: np.random.Generator, split: str) -> Question | None:
    """One question of a kind about a video, or None where the video can't be asked that (or, "now", is not this time).

    Parameters
    ----------
    clip : Clip
    kind : str
        One of `KINDS`.
    rng : Generator
        Chooses the thing asked about, the sentence and the options.
    split : str
        Whose sentences.
    """
    asked = _asked(clip, kind, rng)
    return None if asked is None else put(asked, kind, rng, split)


def put(asked: Asked, kind: str, rng: np.random.Generator, split: str) -> Question:
    """A question in a sentence of a split, with four options in a random order."""
    sure = tuple(dict.fromkeys(others(asked.sure, asked.answer)))[:3]
    more = draw_some(rng, others(tuple(dict.fromkeys(asked.pool)), asked.answer, asked.x, *sure), 3 - len(sure))
    options = [asked.answer, *sure, *more]
    options = [options[int(n)] for n in rng.permutation(len(options))]
    sentences = phrasings(kind, split)
    text = sentences[int(rng.integers(len(sentences)))]
    listed = f"{', '.join(options[:-1])} or {options[-1]}" if asked.listed else ""
    slots = {"x": asked.x, "y": asked.y, "list": listed, "o": asked.order}
    return Question(
        kind,
        text.format(**slots),
        asked.answer,
        tuple(options),
        tuple(sorted(asked.moments)),
        slots,
    )


def questions(clip: Clip, kinds: Sequence[str] = KINDS, phrasing_split: str | None = None) -> list[Question]:
    """One question of each kind that this video can answer, in a random wording of the video's split."""
    split = phrasing_split or clip.split
    asked = (question(clip, kind, generator(split, *clip.look, 7, KINDS.index(kind)), split) for kind in kinds)
    return [one for one in asked if one is not None]
