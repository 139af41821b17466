"""Lessons about videos of the third set, assembled like those of `lessons` from a bank of grids."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .bank import CELLS, NO_GLYPH, glyph_number, glyph_of
from .lessons import Teacher
from .moving import LETTERS, moving_clip
from .puzzles import puzzle
from .quiz import Question, corner_at
from .world import COLOURS, DIGITS, Clip, Thing

NOWHERE = 0.5
"""Where a thing is put whose grids don't agree on a corner: it is not asked for its place."""
CANDIDATES = 6


class MovingTeacher(Teacher):
    """Draws lessons about moving things, their near-duplicates, codes and neighbours.

    Parameters
    ----------
    features, labels, tokenizer, split
        As a `Teacher`'s, of grids that moving cameras saw.
    """

    def __init__(self, features: Tensor, labels: np.ndarray, tokenizer: PreTrainedTokenizerFast, split: str) -> None:
        super().__init__(features, labels, tokenizer, split)
        self.empty = np.flatnonzero(labels[:, 1] == NO_GLYPH)
        pools: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, (colour, glyph) in enumerate(labels[:, :2].tolist()):
            if glyph != NO_GLYPH:
                pools[colour, glyph].append(row)
        self.pools = {pair: np.array(rows) for pair, rows in pools.items()}
        cells = [((cell % CELLS + 0.5) / CELLS, (cell // CELLS + 0.5) / CELLS) for cell in range(CELLS * CELLS)]
        self.corners = [str(corner_at(*centre)) for centre in cells]
        ids = tokenizer.get_vocab()
        self.colours = {ids[colour]: colour for colour in COLOURS}
        self.letters = {ids[letter]: letter for letter in LETTERS}
        self.digits = {ids[f"##{digit}"]: digit for digit in DIGITS}
        self.code = ids["code"]
        self._shown: list[Clip] = []

    def _name(self, row: list[int], at: int) -> tuple[str | None, str] | None:
        """The colour, if it is told, and the glyph or code that a name's last token ends."""
        if row[at] in self.digits and row[at - 1] in self.letters:
            before = row[at - 3] if row[at - 2] == self.code else row[at - 2]
            return self.colours.get(before), self.letters[row[at - 1]] + self.digits[row[at]]
        return (self.colours.get(row[at - 1]), self.named[row[at]]) if row[at] in self.named else None

    def _rows_of(self, rng: np.random.Generator, clips: int, grids: int) -> np.ndarray:
        self._shown = []
        return super()._rows_of(rng, clips, grids)

    def _clips(self, rows: np.ndarray) -> list[Clip]:
        return self._shown

    def _rows(self, rng: np.random.Generator, grids: int) -> np.ndarray:
        """Rows that make one video of the world; a thing that the bank does not hold is another one that it does."""
        clip = moving_clip(self.split, int(rng.integers(2**31)), 0, grids)
        rows = rng.choice(self.empty, grids)
        things: list[Thing] = []
        taken = {(COLOURS.index(thing.colour), glyph_number(thing.glyph)) for thing in clip.things}
        for thing in clip.things:
            pair = COLOURS.index(thing.colour), glyph_number(thing.glyph)
            if pair not in self.pools:
                last = glyph_number(things[-1].glyph) if things else NO_GLYPH
                free = [other for other in self.pools if other not in taken and other[1] != last]
                if not free:
                    continue
                pair = free[int(rng.integers(len(free)))]
                taken.add(pair)
                thing = replace(thing, colour=COLOURS[pair[0]], glyph=glyph_of(pair[1]))
            things.append(self._placed(rng, thing, self.pools[pair], rows))
        self._shown.append(replace(clip, things=tuple(things)))
        return rows

    def _placed(self, rng: np.random.Generator, thing: Thing, pool: np.ndarray, rows: np.ndarray) -> Thing:
        """Fill in a thing's grids, in one corner if there are such ones, and say where it is."""
        corners: set[str] = set()
        for second in thing.seen:
            some = rng.choice(pool, CANDIDATES)
            fitting = [row for row in some if self.corners[self.labels[row, 2]] in corners] if corners else some
            rows[second] = fitting[0] if len(fitting) else some[0]
            corners.add(self.corners[self.labels[rows[second], 2]])
        cell = int(self.labels[rows[thing.second], 2])
        x, y = (cell % CELLS + 0.5) / CELLS, (cell // CELLS + 0.5) / CELLS
        if len(corners) > 1:
            x = y = NOWHERE
        return replace(thing, x=x, y=y, velocity=(0.0, 0.0))

    def _ask(self, clip: Clip, kind: str, rng: np.random.Generator) -> Question | None:
        return puzzle(clip, kind, rng, self.split)
