"""A lesson's forward pass with visual rows dropped where stages end, as streams drop them, for training.

A row of a lesson holds a whole video, and streams see it in chunks: here, too, each chunk's tokens compete among
themselves for a budget of their own, and what a scorer learned of one chunk it has for the next. What is dropped is
gone: later layers run fewer rows, which is what saves time; the others keep their positions. So a lesson's answers
are those of a stream that saw the video in chunks under the same schedule.

Several questions share a row, and streams rank before anybody asks, so only scorers that look at no question can rank
here: not PyramidDrop's own, whose training has one instruction a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

import pdrop_video as pv
from pdrop_video.common.checks import shown
from pdrop_video.pyramid.allocators import Allocator, allocator_named
from pdrop_video.pyramid.drop import drop
from pdrop_video.pyramid.rows import Rows
from pdrop_video.pyramid.scorers import Layout, Learner, Ranking, Scorer, scorer_named

from .known import TOKENS
from .language_stage import early, entering
from .lessons import PREFIX, Lesson
from .model import SIDE

CHUNK = 4
"""Grids a chunk: eight frames, as benchmarks push them."""
SCORER = "contrast"
"""What streams rank with where no question is known."""


def scorer_for(pyramid: pv.Pyramid) -> Scorer:
    """The schedule's scorer, `SCORER` where it names none.

    Raises
    ------
    ConfigError
        If it looks at a question.
    """
    scorer = scorer_named(pyramid.scorer or SCORER)
    if scorer.uses_probe:
        raise pv.ConfigError(
            f"scorer {shown(pyramid.scorer)} ranks by a question, but the questions of a lesson share one video; "
            f'expected one that looks at none, such as "{SCORER}" or "novelty".'
        )
    return scorer


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pass came to.

    Attributes
    ----------
    after : list of Tensor
        Hidden states after every layer, each `[clips, T of that layer, 256]`; the last ones with the final norm.
    kept : list of Tensor
        For each layer the visual tokens that entered it, `[clips, tokens]`, ascending numbers among the video's.
    text : int
        Rows behind the video, which all stay.
    """

    after: list[Tensor]
    kept: list[Tensor]
    text: int

    def tails(self) -> list[Tensor]:
        """Of each layer the rows behind the video, `[clips, text, 256]`."""
        return [hidden[:, hidden.shape[1] - self.text :] for hidden in self.after]


class _Chooser:
    """Chooses what stays at one boundary after another; knows the scores where they are made once."""

    def __init__(self, scorer: Scorer, allocator: Allocator, chunk: int) -> None:
        self.scorer, self.allocator, self.tokens = scorer, allocator, chunk * TOKENS
        self.scores: Tensor | None = None

    @torch.no_grad()
    def choose(self, layer: Any, hidden: Tensor, number: Tensor, visual: int, ratio: float) -> Tensor:
        """Of visual rows those that stay, `[clips, kept]`, ascending places among the rows that came.

        Parameters
        ----------
        layer : nn.Module
            The one that comes next.
        hidden : Tensor
            `[clips, rows, 256]`, the visual rows at the boundary.
        number : Tensor
            `[clips, rows]`, which of the video's tokens they are, ascending; as many of each chunk in each clip.
        visual : int
            Tokens of the whole video.
        ratio : float
            Share of each chunk's tokens that is left.
        """
        usual, start, staying, scored = None, 0, [], []
        chunks = torch.arange(0, visual + self.tokens, self.tokens).clamp(max=visual)
        ends = torch.searchsorted(number[0].contiguous(), chunks[1:]).tolist()
        for first, whole, end in zip(chunks[:-1].tolist(), chunks.diff().tolist(), ends, strict=True):
            if end == start:  # an earlier boundary left nothing of it
                continue
            rows, of = hidden[:, start:end], number[:, start:end]
            step, place = of // TOKENS, of % TOKENS
            since, steps = first // TOKENS, whole // TOKENS
            layout = Layout(step - since, place, steps, TOKENS, SIDE, since)
            among, wanted = torch.ones_like(of, dtype=torch.bool), [int(whole * ratio)] * len(of)
            if self.scores is None:
                ranking = Ranking(layer, rows, None, of[:, :0], among, layout, usual=usual, wanted=tuple(wanted))
                scores = self.scorer(ranking)
                usual = self.scorer.learn(ranking) if isinstance(self.scorer, Learner) else None
            else:
                scores = self.scores.gather(1, of)
            scored.append(scores)
            origin = torch.arange(end - start).expand(len(of), -1)
            there = Rows(rows, origin, among, None, origin, layout)
            exact = getattr(self.scorer, "exact", False)
            staying.append(start + drop(there, scores, self.allocator, wanted, [0] * len(of), exact=exact))
            start = end
        if self.scorer.once and self.scores is None:  # later boundaries drop by the same scores
            found = torch.cat(scored, 1)
            self.scores = found.new_zeros(len(found), visual).scatter(1, number, found)
        return torch.cat([number[:, :0], *staying], 1)


def run_dropping(
    model: Qwen2_5_VLForConditionalGeneration, lesson: Lesson, pyramid: pv.Pyramid, chunk: int = CHUNK
) -> Seen:
    """Run a lesson under a schedule; without boundaries the same operations as `language_stage.run`.

    Parameters
    ----------
    model : Qwen2_5_VLForConditionalGeneration
    lesson : Lesson
    pyramid : Pyramid
        Its scorer must look at no question.
    chunk : int
        Grids that compete among themselves.

    Raises
    ------
    ConfigError
        If the schedule does not fit the model, or its scorer needs a question.
    """
    text: Any = model.model.language_model
    schedule = pyramid.resolve(len(text.layers))
    ratio_of = dict(zip(schedule.layers, schedule.ratios, strict=True))
    chooser = _Chooser(scorer_for(pyramid), allocator_named(pyramid.allocator), chunk)
    visual = lesson.visual.shape[1]
    (hidden, angles, mask), positions = entering(text, lesson), lesson.positions
    clips, total = lesson.ids.shape
    number = torch.arange(visual).expand(clips, -1)
    after, kept = [], []
    for i, layer in enumerate(text.layers):
        if i in ratio_of and visual:
            rows = hidden[:, PREFIX : PREFIX + number.shape[1]]
            chosen = chooser.choose(layer, rows.detach(), number, visual, ratio_of[i])
            if chosen.shape[1] < number.shape[1]:
                behind = torch.arange(PREFIX + number.shape[1], hidden.shape[1]).expand(clips, -1)
                index = torch.cat([torch.arange(PREFIX).expand(clips, -1), PREFIX + chosen, behind], 1)
                hidden = hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[2]))
                positions = positions.gather(2, index.expand(3, -1, -1))
                angles = text.rotary_emb(hidden, positions)
                mask = torch.stack([m[:, at][:, :, at] for m, at in zip(mask, index, strict=True)])
                number = number.gather(1, chosen)
        kept.append(number)
        hidden = layer(hidden, attention_mask=mask, position_embeddings=angles)
        after.append(hidden)
    return Seen([*after[:-1], text.norm(hidden)], kept, total - PREFIX - visual)


def answers_loss(
    model: Qwen2_5_VLForConditionalGeneration, seen: Seen, lesson: Lesson, form: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of the answers, what `early` adds, and the scores `[learned, vocabulary]` of the slots with a target.

    The same of every schedule: it is read from text, which all stays. The heads of `language_stage` are left out: they
    read visual rows, of which schedules leave different ones.
    """
    behind = slice(PREFIX + lesson.visual.shape[1], None)
    cut = replace(lesson, targets=lesson.targets[:, behind], words=lesson.words[:, behind])
    tails, learned = seen.tails(), cut.targets >= 0
    scores = model.lm_head(tails[-1][learned]).float()
    loss = F.cross_entropy(scores, cut.targets[learned], reduction="sum") / len(lesson.asked)
    return loss, early(model, tails, cut, form), scores
