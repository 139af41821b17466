"""Batches of question-answer lessons, assembled from the vision tower's features of a bank of grids.

One row of a batch is one clip: prefix, the clip's visual tokens, then eight blocks, one a question, that see the
prefix, the clip and themselves, never each other. Every block's positions start where the text after the video starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from eval.synthetic.bank import NO_GLYPH, NO_MARKER
from eval.synthetic.model import video_positions
from eval.synthetic.phrasings import phrasings
from eval.synthetic.world import COLOURS, DIGITS, DIRECTIONS, GLYPHS, KINDS, MOST_THINGS, SHAPES

TOKENS = 16
PREFIX = 3
"""Text tokens before the clip: start of turn, user, start of vision."""
QUESTIONS = 8
STATES = {
    "colour_first": COLOURS,
    "colour_last": COLOURS,
    "number_first": DIGITS,
    "number_last": DIGITS,
    "shape_first": SHAPES,
    "shape_last": SHAPES,
    "count": tuple(str(n + 1) for n in range(MOST_THINGS)),
    "motion": DIRECTIONS,
}
"""What every visual slot is asked about the clip so far; the class after the last word is "none yet"."""


@dataclass
class Lesson:
    """One batch; T = 3 + 16 grids + 8 block lengths.

    Attributes
    ----------
    ids : Tensor
        `[clips, T]`, token ids (any id at visual slots).
    visual : Tensor
        `[clips, 16 grids, 256]`, the features for slots 3 to 3 + 16 grids.
    positions : Tensor
        `[3, clips, T]`.
    mask : Tensor
        `[clips, 1, T, T]`, True where a token may look.
    targets : Tensor
        `[clips, T]`, next token where it is learned, else -100.
    states : Tensor
        `[clips, 16 grids, 8]`, the classes of `STATES` for the clip so far.
    asked : list of (int, int, str)
        (clip, slot that must answer, kind) of every question.
    """

    ids: Tensor
    visual: Tensor
    positions: Tensor
    mask: Tensor
    targets: Tensor
    states: Tensor
    asked: list[tuple[int, int, str]]


class Teacher:
    """Draws lessons.

    Parameters
    ----------
    features : Tensor
        `[grids, 16, 256]` from the vision tower.
    labels : array
        `[grids, 5]` of the same bank.
    tokenizer : PreTrainedTokenizerFast
        For questions and answers.
    split : str
        Whose phrasings to use.
    """

    def __init__(self, features: Tensor, labels: np.ndarray, tokenizer: PreTrainedTokenizerFast, split: str) -> None:
        self.features, self.labels = features, labels
        thing = labels[:, 1] != NO_GLYPH
        self.rows = {
            (direction, shows): np.flatnonzero((labels[:, 3] == direction) & (thing == shows))
            for direction in range(NO_MARKER + 1)
            for shows in (False, True)
        }
        self.wordings = {kind: [tokenizer(q).input_ids for q in phrasings(kind, split)] for kind in KINDS}
        ids = tokenizer.get_vocab()
        self.word = {w: ids[w] for words in STATES.values() for w in words}
        self.prefix = [ids[t] for t in ("<|im_start|>", "user", "<|vision_start|>")]
        self.before = [ids["<|vision_end|>"]]
        self.after = [ids[t] for t in ("<|im_end|>", "<|im_start|>", "assistant")]
        self.end, self.pad = ids["<|im_end|>"], ids["<|endoftext|>"]

    def lesson(self, rng: np.random.Generator, clips: int, grids: int, gaps: bool, noise: float = 0.0) -> Lesson:
        """One batch of `clips` clips of `grids` grids; with `gaps` the grids lie at random seconds of up to 128."""
        rows = np.stack([self._rows(rng, grids) for _ in range(clips)])
        visual = self.features[torch.from_numpy(rows)].flatten(1, 2)
        if noise:
            spread = rng.uniform(0, noise, (clips, 1, 1)).astype(np.float32) / 16
            shape = tuple(visual.shape)
            visual = visual + torch.from_numpy(spread * rng.standard_normal(shape, np.float32)).to(visual.dtype)
        states = np.stack([self.states(self.labels[r]) for r in rows])
        blocks = [
            [self._block(rng, kind, states[n, -1]) for kind in self._kinds(rng, states[n, -1])] for n in range(clips)
        ]
        longest = max(len(ids) for clip in blocks for _, ids in clip)
        video = slice(len(self.prefix), len(self.prefix) + grids * TOKENS)
        total = video.stop + QUESTIONS * longest
        ids = torch.full((clips, total), self.pad)
        targets = torch.full((clips, total), -100)
        positions = torch.zeros(3, clips, total, dtype=torch.long)
        group = torch.zeros(clips, total, dtype=torch.long)
        asked = []
        ids[:, : video.start] = torch.tensor(self.prefix)
        for n in range(clips):
            span = int(rng.integers(grids, 129)) if gaps else grids
            seconds = torch.from_numpy(np.sort(rng.choice(span, grids, replace=False)).astype(np.float32))
            positions[:, n, : video.start] = torch.arange(video.start)
            positions[:, n, video], text = video_positions(video.start, seconds)
            for b, (kind, block) in enumerate(blocks[n]):
                start = video.stop + b * longest
                ids[n, start : start + len(block)] = torch.tensor(block)
                group[n, start : start + longest] = b + 1
                positions[:, n, start : start + longest] = text + torch.arange(longest)
                answers = start + len(block) - 2
                targets[n, answers], targets[n, answers + 1] = block[-1], self.end
                asked.append((n, answers, kind))
        same = (group[:, None, :] == group[:, :, None]) | (group[:, None, :] == 0)
        mask = (same & torch.ones(total, total, dtype=torch.bool).tril())[:, None]
        return Lesson(ids, visual, positions, mask, targets, torch.from_numpy(states), asked)

    def _rows(self, rng: np.random.Generator, grids: int) -> np.ndarray:
        """Rows of the bank that make one clip: one direction, 1 to 6 things."""
        direction = int(rng.integers(NO_MARKER)) if rng.random() < 0.8 else NO_MARKER
        rows = rng.choice(self.rows[direction, False], grids)
        when = rng.choice(grids, int(rng.integers(1, min(MOST_THINGS, grids) + 1)), replace=False)
        rows[when] = rng.choice(self.rows[direction, True], len(when))
        return rows

    @staticmethod
    def states(labels: np.ndarray) -> np.ndarray:
        """Classes of `STATES` at every visual slot, counting what was shown up to that slot; `[16 grids, 8]`."""
        names = list(STATES)
        out = np.tile(np.array([len(STATES[name]) for name in names]), (len(labels) * TOKENS, 1))
        count = 0
        for second, (colour, glyph, cell, direction, marker_cell) in enumerate(labels):
            if direction != NO_MARKER and second == 0:
                out[marker_cell:, names.index("motion")] = direction
            if glyph == NO_GLYPH:
                continue
            here = second * TOKENS + cell
            what = "number" if GLYPHS[glyph] in DIGITS else "shape"
            value = glyph if what == "number" else glyph - len(DIGITS)
            for attribute, number in (("colour", colour), (what, value)):
                first = names.index(f"{attribute}_first")
                if out[here, first] == len(STATES[names[first]]):
                    out[here:, first] = number
                out[here:, names.index(f"{attribute}_last")] = number
            out[here:, names.index("count")] = count
            count += 1
        return out

    @staticmethod
    def _kinds(rng: np.random.Generator, final: np.ndarray) -> list[str]:
        able = [kind for kind, state in zip(STATES, final, strict=True) if state < len(STATES[kind])]
        picked = list(rng.permutation(able))
        return [str(kind) for kind in (picked + list(rng.choice(able, QUESTIONS)))[:QUESTIONS]]

    def _block(self, rng: np.random.Generator, kind: str, final: np.ndarray) -> tuple[str, list[int]]:
        wording = self.wordings[kind][int(rng.integers(len(self.wordings[kind])))]
        word = STATES[kind][final[list(STATES).index(kind)]]
        return kind, [*self.before, *wording, *self.after, self.word[word]]
