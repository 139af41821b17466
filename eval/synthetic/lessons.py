"""Batches of question-answer lessons, assembled from the vision tower's features of a bank of grids.

One row of a batch is one video: prefix, the visual tokens, then blocks, one a question, that see the prefix, the video
and themselves, never each other. Every block's positions start where the text after the video starts. Blocks lie side
by side without padding; padding ends a row that is shorter than others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .bank import CELLS, NO_GLYPH, NO_MARKER
from .known import FACTS, TOKENS, facts_by_name, not_shown, states_of
from .model import video_positions
from .quiz import ENDS, KINDS, Question, question
from .tokenizer import ENDING, INSTRUCTION, LETTERS
from .world import COLOURS, DIRECTIONS, GLYPHS, LAST_SHOWN, MOST_THINGS, Clip, Marker, Thing

PREFIX = 3
"""Text tokens before the video: start of turn, user, start of vision."""
BLOCKS = {"words": 8, "letters": 4}
"""Questions a video: bare ones that are answered in words, or as Video-MME puts them, answered by a letter."""
LONG = 16
"""A video of so many grids is asked twice as much."""
SPAN = 8192
"""Longest video, in seconds, that a lesson with gaps stands for."""
JUST_GONE = 0.2
"""How often, in training, the last thing is gone for one second: what is hardest to tell from what is there now."""
BLIND = 0.5
"""Share of the questions after whose text nothing sees the video: what is asked for must be known by the question."""


DULL = re.compile(
    r"\b(a|the|this|in|is|was|of|at|you|me|do|does|can|please|tell|video|clip|there|these|one|that|to) ", re.IGNORECASE
)
"""Words that training leaves out of questions now and then, so that what is asked does not hang on them."""


def shortened(text: str, rng: np.random.Generator) -> str:
    """A question without some of its `DULL` words, or as it is."""
    share = 0.3 * (rng.random() < 0.5)
    return DULL.sub(lambda found: "" if rng.random() < share else found[0], text)


@dataclass
class Lesson:
    """One batch; T = 3 + 16 grids + the tokens of the questions of that video which has most.

    Attributes
    ----------
    ids : Tensor
        `[clips, T]`, token ids (any id at visual slots).
    visual : Tensor
        `[clips, 16 grids, 256]`, the features for slots 3 to 3 + 16 grids.
    positions : Tensor
        `[3, clips, T]`.
    mask : Tensor
        `[clips, 1, T, T]`, True where a token may look; padding sees itself.
    targets : Tensor
        `[clips, T]`, next token where it is learned, else -100.
    states : Tensor
        `[clips, 16 grids, states]`, the classes of `STATES` for the video so far.
    facts : Tensor
        `[clips, T, facts]`, the classes of `FACTS` at words for things in questions, else -100.
    words : Tensor
        `[clips, T]`, at the last token of a question the first token of the words that answer it, else -100.
    options : Tensor
        `[clips, T]`, at the last token of an option that is a line of its own 1 if it is right, else 0; -100 elsewhere.
    asked : list of (int, int, int, str)
        (clip, first slot that must answer, slots, kind) of every question.
    """

    ids: Tensor
    visual: Tensor
    positions: Tensor
    mask: Tensor
    targets: Tensor
    states: Tensor
    facts: Tensor
    words: Tensor
    options: Tensor
    asked: list[tuple[int, int, int, str]]


@dataclass
class _Block:
    """A question's tokens.

    `asks` is the place of the question's last token and `word` the first token of the words that answer it; from `told`
    on nothing is told any more; `answer` of the last ones are the answer; `options` hold (place, right) of each
    option's last token.
    """

    ids: list[int]
    asks: int
    word: int
    told: int
    answer: int
    options: list[tuple[int, bool]]
    kind: str


def _lines(asked: Question) -> list[str]:
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, asked.options, strict=True)]
    return [INSTRUCTION, asked.text, *options, ENDING]


def multiple_choice(asked: Question) -> str:
    """A question as Video-MME's prompt puts it."""
    return "\n".join(_lines(asked))


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
        self.features, self.labels, self.tokenizer, self.split = features, labels, tokenizer, split
        thing = labels[:, 1] != NO_GLYPH
        self.rows = {
            (direction, shows): np.flatnonzero((labels[:, 3] == direction) & (thing == shows))
            for direction in range(NO_MARKER + 1)
            for shows in (False, True)
        }
        ids = tokenizer.get_vocab()
        self.prefix = [ids[t] for t in ("<|im_start|>", "user", "<|vision_start|>")]
        self.before = [ids["<|vision_end|>"]]
        self.after = [ids[t] for t in ("<|im_end|>", "<|im_start|>", "assistant")]
        self.named = {ids[glyph]: glyph for glyph in GLYPHS}
        self.end, self.pad = ids["<|im_end|>"], ids["<|endoftext|>"]

    def lesson(
        self,
        rng: np.random.Generator,
        clips: int,
        grids: int,
        gaps: bool,
        noise: float = 0.0,
        form: str = "words",
        weights: Mapping[str, float] | None = None,
        blindness: float = 0.0,
    ) -> Lesson:
        """One batch of `clips` videos of `grids` grids; with `gaps` the grids lie at random seconds of a longer one.

        `weights` say how often each kind is asked; by default those about the first and last thing half as often. A
        share `blindness` of the questions is answered from what their own tokens know.
        """
        rows = self._rows_of(rng, clips, grids)
        visual = self.features[torch.from_numpy(rows)].flatten(1, 2)
        if noise:
            spread = rng.uniform(0, noise, (clips, 1, 1)).astype(np.float32) / 16
            shape = tuple(visual.shape)
            visual = visual + torch.from_numpy(spread * rng.standard_normal(shape, np.float32)).to(visual.dtype)
        shown = self._clips(rows)
        states = np.stack([states_of(clip, self.labels[r]) for clip, r in zip(shown, rows, strict=True)])
        each = BLOCKS[form] * (2 if grids >= LONG else 1)
        weights = weights or {kind: 0.5 if kind in (*ENDS, "motion", "now") else 1.0 for kind in KINDS}
        asked_of = [self._questions(rng, clip, form, each, weights) for clip in shown]
        if self.split == "train":
            asked_of = [[replace(q, text=shortened(q.text, rng)) for q in row] for row in asked_of]
        blocks = [[self._block(q, form) for q in row] for row in asked_of]
        video = slice(PREFIX, PREFIX + grids * TOKENS)
        total = video.stop + max(sum(len(block.ids) for block in row) for row in blocks)
        ids = torch.full((clips, total), self.pad)
        targets = torch.full((clips, total), -100)
        words, options = (torch.full((clips, total), -100) for _ in range(2))
        positions = torch.zeros(3, clips, total, dtype=torch.long)
        group = torch.zeros(clips, total, dtype=torch.long)
        blind = torch.zeros(clips, total, dtype=torch.bool)
        ids[:, : video.start] = torch.tensor(self.prefix)
        asked = []
        for n, row in enumerate(blocks):
            positions[:, n, : video.start] = torch.arange(video.start)
            positions[:, n, video], text = video_positions(video.start, self._seconds(rng, grids, gaps))
            start = video.stop
            for number, block in enumerate(row):
                end = start + len(block.ids)
                ids[n, start:end] = torch.tensor(block.ids)
                positions[:, n, start:end] = text + torch.arange(len(block.ids))
                group[n, start:end] = 1 + number
                blind[n, start + block.told : end] = bool(rng.random() < blindness)
                first = end - block.answer - 1
                targets[n, first:end] = torch.tensor([*block.ids[-block.answer :], self.end])
                words[n, start + block.asks] = block.word
                for place, right in block.options:
                    options[n, start + place] = int(right)
                asked.append((n, first, block.answer, block.kind))
                start = end
            group[n, start:] = -1
        same = (group[:, None, :] == group[:, :, None]) | ((group[:, None, :] == 0) & (group[:, :, None] >= 0))
        same[:, :, video] &= ~blind[:, :, None]
        mask = (same & torch.ones(total, total, dtype=torch.bool).tril())[:, None]
        facts = self._facts(shown, ids, video.stop)
        return Lesson(ids, visual, positions, mask, targets, torch.from_numpy(states), facts, words, options, asked)

    def _seconds(self, rng: np.random.Generator, grids: int, gaps: bool) -> Tensor:
        """When the grids are, `[grids]`: every second, or scattered over a span of up to `SPAN` (by its logarithm)."""
        span = int(grids * (SPAN / grids) ** rng.random()) if gaps else grids
        return torch.from_numpy(np.sort(rng.choice(span, grids, replace=False)).astype(np.float32))

    def _facts(self, shown: Sequence[Clip], ids: Tensor, start: int) -> Tensor:
        """What is known of every thing that a question names, at the last token of its name; `start` ends the video."""
        facts = torch.full((*ids.shape, len(FACTS)), -100)
        for n, clip in enumerate(shown):
            known = facts_by_name(clip)
            row = ids[n].tolist()
            for at in range(start, len(row)):
                name = self._name(row, at)
                if name:
                    facts[n, at] = torch.tensor(known.get(name, not_shown()))
        return facts

    def _name(self, row: list[int], at: int) -> tuple[str | None, str] | None:
        """The colour (here always none) and the glyph that a token names, if it names one."""
        return (None, self.named[row[at]]) if row[at] in self.named else None

    def _rows_of(self, rng: np.random.Generator, clips: int, grids: int) -> np.ndarray:
        """Rows of the bank that make so many videos, `[clips, grids]`."""
        return np.stack([self._rows(rng, grids) for _ in range(clips)])

    def _clips(self, rows: np.ndarray) -> list[Clip]:
        """What they show."""
        return [self._clip(self.labels[r]) for r in rows]

    def _rows(self, rng: np.random.Generator, grids: int) -> np.ndarray:
        """Rows of the bank that make one video: one direction, 1 to 8 things, none of one glyph right after another.

        Training has many things more often: few are learned soon.
        """
        direction = int(rng.integers(NO_MARKER)) if rng.random() < 0.8 else NO_MARKER
        rows = rng.choice(self.rows[direction, False], grids)
        number = int(rng.integers(1, min(MOST_THINGS, grids) + 1, 2 if self.split == "train" else 1).max())
        when = np.sort(rng.choice(grids, number, replace=False))
        draw = rng.random()
        if draw < LAST_SHOWN:
            when[-1] = grids - 1
        elif self.split == "train" and draw < LAST_SHOWN + JUST_GONE and grids - 2 not in when[:-1] and grids > 1:
            when[-1] = grids - 2
        glyph = NO_GLYPH
        for second in when:
            candidates = rng.choice(self.rows[direction, True], 8)
            other = candidates[self.labels[candidates, 1] != glyph]
            rows[second] = other[0] if len(other) else candidates[0]
            glyph = int(self.labels[rows[second], 1])
        return rows

    def _clip(self, labels: np.ndarray) -> Clip:
        """What rows of the bank show, as a video; things are in the middle of their cell."""
        things = tuple(
            Thing(second, GLYPHS[glyph], COLOURS[colour], (cell % CELLS + 0.5) / CELLS, (cell // CELLS + 0.5) / CELLS)
            for second, (colour, glyph, cell) in enumerate(labels[:, :3].tolist())
            if glyph != NO_GLYPH
        )
        direction = int(labels[0, 3])
        marker = None if direction == NO_MARKER else Marker(DIRECTIONS[direction], 0.5, 0.0, 0.3)
        return Clip(self.split, len(labels), things, marker, (0,))

    def _questions(
        self, rng: np.random.Generator, clip: Clip, form: str, number: int, weights: Mapping[str, float]
    ) -> list[Question]:
        """So many questions about one video."""
        share = np.array(list(weights.values()))
        found: list[Question] = []
        while len(found) < number:
            for kind in rng.choice(list(weights), number, p=share / share.sum()):
                one = self._ask(clip, str(kind), rng)
                if one is not None and (form == "words" or len(one.options) == len(LETTERS)):
                    found.append(one)
        return found[:number]

    def _ask(self, clip: Clip, kind: str, rng: np.random.Generator) -> Question | None:
        return question(clip, kind, rng, self.split)

    def _block(self, asked: Question, form: str) -> _Block:
        """A question as the chat template puts it after a video, with its answer."""
        right = asked.options.index(asked.answer)
        lines = [asked.text] if form == "words" else _lines(asked)
        *told, words, letter = self.tokenizer([*lines, asked.answer, LETTERS[right]]).input_ids
        said = words if form == "words" else letter
        ends = np.cumsum([len(self.before), *map(len, told)]) - 1
        options = [] if form == "words" else [(int(e), n == right) for n, e in enumerate(ends[3 : 3 + len(LETTERS)])]
        put = [token for piece in told for token in piece]
        asks, last = (ends[1], ends[1]) if form == "words" else (ends[2], ends[-2])  # before the line that ends it
        ids = [*self.before, *put, *self.after, *said]
        return _Block(ids, int(asks), words[0], int(last) + 1, len(said), options, asked.kind)
