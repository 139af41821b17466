"""Batches of question-answer lessons, assembled from the vision tower's features of a bank of grids.

One row of a batch is one video: prefix, the visual tokens, then blocks, one a question, that see the prefix, the video
and themselves, never each other. Every block's positions start where the text after the video starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from eval.synthetic.bank import CELLS, NO_GLYPH, NO_MARKER
from eval.synthetic.model import video_positions
from eval.synthetic.quiz import CORNERS, COUNTS, ENDS, KINDS, Question, corner, question
from eval.synthetic.tokenizer import ENDING, INSTRUCTION, LETTERS
from eval.synthetic.world import (
    COLOURS,
    DIGITS,
    DIRECTIONS,
    GLYPHS,
    ICONS,
    LAST_SHOWN,
    MOST_THINGS,
    SHAPES,
    Clip,
    Marker,
    Thing,
)

TOKENS = 16
PREFIX = 3
"""Text tokens before the video: start of turn, user, start of vision."""
BLOCKS = {"words": 8, "letters": 4}
"""Questions a video: bare ones that are answered in words, or as Video-MME puts them, answered by a letter."""
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
FACTS: dict[str, tuple[str, ...]] = {"colour": COLOURS, "corner": CORNERS, "before": GLYPHS, "number": COUNTS}
"""What every word for a thing, wherever a question holds one, is asked about that thing: its colour, its corner, the
thing before it, the how manieth it is; the class after the last is "not shown", or nothing before it."""
SPAN = 2048
"""Longest video, in seconds, that a lesson with gaps stands for."""


@dataclass
class Lesson:
    """One batch; T = 3 + 16 grids + blocks x their longest.

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
        `[clips, 16 grids, 14]`, the classes of `STATES` for the video so far.
    facts : Tensor
        `[clips, T, 4]`, the classes of `FACTS` at words for things in questions, else -100.
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
    asked: list[tuple[int, int, int, str]]


def multiple_choice(asked: Question) -> str:
    """A question as Video-MME's prompt puts it."""
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, asked.options, strict=True)]
    return "\n".join([INSTRUCTION, asked.text, *options, ENDING])


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
        self.glyphs = torch.full((len(tokenizer),), -1)
        self.glyphs[torch.tensor([ids[glyph] for glyph in GLYPHS])] = torch.arange(len(GLYPHS))
        self.end, self.pad = ids["<|im_end|>"], ids["<|endoftext|>"]

    def lesson(
        self,
        rng: np.random.Generator,
        clips: int,
        grids: int,
        gaps: bool,
        noise: float = 0.0,
        form: str = "words",
        kinds: tuple[str, ...] = KINDS,
    ) -> Lesson:
        """One batch of `clips` videos of `grids` grids; with `gaps` the grids lie at random seconds of a longer one."""
        rows = np.stack([self._rows(rng, grids) for _ in range(clips)])
        visual = self.features[torch.from_numpy(rows)].flatten(1, 2)
        if noise:
            spread = rng.uniform(0, noise, (clips, 1, 1)).astype(np.float32) / 16
            shape = tuple(visual.shape)
            visual = visual + torch.from_numpy(spread * rng.standard_normal(shape, np.float32)).to(visual.dtype)
        shown = [self._clip(self.labels[r]) for r in rows]
        states = np.stack([states_of(clip, self.labels[r]) for clip, r in zip(shown, rows, strict=True)])
        asked = [q for clip in shown for q in self._questions(rng, clip, form, kinds)]
        blocks = self._blocks(asked, form)
        longest = max(len(ids) for ids, _ in blocks)
        video = slice(PREFIX, PREFIX + grids * TOKENS)
        each = BLOCKS[form]
        total = video.stop + each * longest
        ids = torch.full((clips, total), self.pad)
        targets = torch.full((clips, total), -100)
        positions = torch.zeros(3, clips, total, dtype=torch.long)
        group = torch.zeros(total, dtype=torch.long)
        group[video.stop :] = 1 + torch.arange(each).repeat_interleave(longest)
        ids[:, : video.start] = torch.tensor(self.prefix)
        places = []
        for n in range(clips):
            positions[:, n, : video.start] = torch.arange(video.start)
            positions[:, n, video], text = video_positions(video.start, self._seconds(rng, grids, gaps))
            positions[:, n, video.stop :] = text + torch.arange(longest).repeat(each)
            for b, (block, answer) in enumerate(blocks[n * each : (n + 1) * each]):
                start = video.stop + b * longest
                ids[n, start : start + len(block)] = torch.tensor(block)
                first = start + len(block) - answer - 1
                targets[n, first : first + answer + 1] = torch.tensor([*block[-answer:], self.end])
                places.append((n, first, answer, asked[n * each + b].kind))
        same = (group[None, :] == group[:, None]) | (group[None, :] == 0)
        mask = (same & torch.ones(total, total, dtype=torch.bool).tril())[None, None]
        named = self.glyphs[ids]
        named[:, : video.stop] = -1
        known = torch.stack([facts_of(clip) for clip in shown])[torch.arange(clips)[:, None], named]
        facts = known.masked_fill(named[..., None] < 0, -100)
        return Lesson(ids, visual, positions, mask, targets, torch.from_numpy(states), facts, places)

    def _seconds(self, rng: np.random.Generator, grids: int, gaps: bool) -> Tensor:
        """When the grids are, `[grids]`: every second, or scattered over a span of up to `SPAN` (by its logarithm)."""
        span = int(grids * (SPAN / grids) ** rng.random()) if gaps else grids
        return torch.from_numpy(np.sort(rng.choice(span, grids, replace=False)).astype(np.float32))

    def _rows(self, rng: np.random.Generator, grids: int) -> np.ndarray:
        """Rows of the bank that make one video: one direction, 1 to 8 things, none of one glyph right after another."""
        direction = int(rng.integers(NO_MARKER)) if rng.random() < 0.8 else NO_MARKER
        rows = rng.choice(self.rows[direction, False], grids)
        when = np.sort(rng.choice(grids, int(rng.integers(1, min(MOST_THINGS, grids) + 1)), replace=False))
        if rng.random() < LAST_SHOWN:
            when[-1] = grids - 1
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

    def _questions(self, rng: np.random.Generator, clip: Clip, form: str, kinds: tuple[str, ...]) -> list[Question]:
        """Questions about one video; those about the first and last thing half as often as others."""
        weights = np.array([0.5 if kind in (*ENDS, "motion", "now") else 1.0 for kind in kinds])
        found: list[Question] = []
        while len(found) < BLOCKS[form]:
            for kind in rng.choice(kinds, BLOCKS[form], p=weights / weights.sum()):
                one = question(clip, str(kind), rng, self.split)
                if one is not None and (form == "words" or len(one.options) == len(LETTERS)):
                    found.append(one)
        return found[: BLOCKS[form]]

    def _blocks(self, asked: list[Question], form: str) -> list[tuple[list[int], int]]:
        """Token ids of each question's block, and how many of the last ones are the answer."""
        texts = [q.text if form == "words" else multiple_choice(q) for q in asked]
        answers = [q.answer if form == "words" else LETTERS[q.options.index(q.answer)] for q in asked]
        put, said = self.tokenizer(texts).input_ids, self.tokenizer(answers).input_ids
        return [([*self.before, *p, *self.after, *s], len(s)) for p, s in zip(put, said, strict=True)]


def facts_of(clip: Clip) -> Tensor:
    """Classes of `FACTS` for every glyph, `[25, 4]`; -100 for those that come more than once."""
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
