"""Stage 2: the language part alone learns to answer, on features of the finished vision tower.

The loss is the answers' cross entropy, plus half of what each group of `heads` loses: after layer 2 a visual slot must
know where in its grid it is, after layer 5 every visual slot the video so far (first and last colour, number, shape and
icon, the count, the direction, the last thing and the one before it, the last one's corner) and every word for a thing
in a question what is known of that thing, after layer 7 every option whether it is right (`known`). A question's last
word must know the answer after layer 6, questions in words are answered after layers 6 and 7 too, and half of the
answers can't see the video. Kinds of question that are often answered wrong are asked more often.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import AttentionInterface, Qwen2_5_VLForConditionalGeneration

from .heads import FactHeads, OptionHeads, PlaceHeads, StateHeads
from .known import TOKENS, places_of
from .lessons import BLIND, BLOCKS, LONG, PREFIX, Lesson, Teacher
from .log import Log
from .optim import MasterAdamW, load_checkpoint, save_checkpoint
from .quiz import KINDS

PLACES_AFTER, KNOWN_AFTER, OPTIONS_AFTER = 2, 5, 7
"""Layers after which the heads read."""
HEADS_WEIGHT = 0.5
WORDS_AFTER = 6
EARLY_AFTER = (6, 7)
EARLY_WEIGHT = 0.3
"""Layers after which a question's last word must know the answer, and after which a question in words must be answered
already; what each of these counts beside the last layer."""
LETTERS_FROM = 0.4
LETTERS_SHARE = 0.5
"""Part of the run after which letters are taught, and in how many of the steps."""
BATCH_TOKENS = 5000
NOISE = 0.2
EVERY_SECONDS = 60.0
SMOOTHING = 0.03
LEAST_ERROR = 0.04
"""Kinds of question are asked in proportion to their share of wrong answers lately, and this."""


def attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Attention with an additive mask whose softmax stays in bf16, which on a CPU takes a sixth of the time.

    Parameters
    ----------
    module : nn.Module
        Not needed; transformers hands it over.
    query : Tensor
        `[clips, heads, T, 64]`.
    key, value : Tensor
        `[clips, key heads, T, 64]`.
    mask : Tensor
        `[clips, 1, T, T]`.
    scaling : float
        What scores are multiplied with.

    Returns
    -------
    tuple
        `[clips, T, heads, 64]`, and no weights.
    """
    heads, length = key.shape[1], key.shape[2]
    grouped = rearrange(query * scaling, "c (k g) t d -> c k (g t) d", k=heads)
    scores = rearrange(grouped @ key.mT, "c k (g t) s -> c k g t s", t=length) + mask[:, :, None]
    out = rearrange(scores.softmax(-1), "c k g t s -> c k (g t) s") @ value
    return rearrange(out, "c k (g t) d -> c t (k g) d", t=length), None


AttentionInterface.register("bf16_softmax", attention)


def entering(text: Any, lesson: Lesson) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """What the first layer of a language part `text` is given: rows `[clips, T, 256]`, angles, and the mask to add."""
    hidden = text.embed_tokens(lesson.ids)
    video = slice(PREFIX, PREFIX + lesson.visual.shape[1])
    hidden = torch.cat([hidden[:, : video.start], lesson.visual.to(hidden.dtype), hidden[:, video.stop :]], 1)
    mask = torch.zeros(lesson.mask.shape, dtype=hidden.dtype).masked_fill(~lesson.mask, -1e4)
    return hidden, text.rotary_emb(hidden, lesson.positions), mask


def run(model: Qwen2_5_VLForConditionalGeneration, lesson: Lesson) -> list[Tensor]:
    """Hidden states after every layer, each `[clips, T, 256]`; the last ones with the final norm."""
    text: Any = model.model.language_model
    hidden, angles, mask = entering(text, lesson)
    after = []
    for layer in text.layers:
        hidden = layer(hidden, attention_mask=mask, position_embeddings=angles)
        after.append(hidden)
    return [*after[:-1], text.norm(hidden)]


class Ladder:
    """All heads, each group on its layer."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration) -> None:
        width = model.lm_head.in_features
        groups = (StateHeads, PlaceHeads, FactHeads, OptionHeads)
        self.states, self.places, self.facts, self.options = (g(width).to(model.dtype) for g in groups)

    def parameters(self) -> list[torch.nn.Parameter]:
        """Of all heads."""
        return [p for heads in (self.states, self.places, self.facts, self.options) for p in heads.parameters()]

    def loss(self, after: list[Tensor], lesson: Lesson) -> tuple[Tensor, dict[str, Tensor]]:
        """The heads' losses, weighted, and their accuracies."""
        video = slice(PREFIX, PREFIX + lesson.visual.shape[1])
        where = places_of(lesson.visual.shape[1]).expand(*lesson.visual.shape[:2], 2)
        asked = [
            (self.states, after[KNOWN_AFTER - 1][:, video], lesson.states),
            (self.places, after[PLACES_AFTER - 1][:, video], where),
            (self.facts, after[KNOWN_AFTER - 1], lesson.facts),
        ]
        if (lesson.options >= 0).any():
            asked.append((self.options, after[OPTIONS_AFTER - 1], lesson.options[..., None]))
        found = [heads.loss(hidden, classes) for heads, hidden, classes in asked]
        right = {name: value for _, accuracies in found for name, value in accuracies.items()}
        return HEADS_WEIGHT * torch.stack([loss for loss, _ in found]).sum(), right


def early(model: Qwen2_5_VLForConditionalGeneration, after: list[Tensor], lesson: Lesson, form: str) -> Tensor:
    """The weighted loss of knowing answers before the last layer: what words know is read sooner so."""
    learned, asks = lesson.targets >= 0, lesson.words >= 0
    layers = EARLY_AFTER if form == "words" else ()
    hidden = torch.cat([after[WORDS_AFTER - 1][asks], *(after[layer - 1][learned] for layer in layers)])
    wanted = torch.cat([lesson.words[asks], *(lesson.targets[learned] for _ in layers)])
    text: Any = model.model.language_model
    scores = model.lm_head(text.norm(hidden)).float()
    return EARLY_WEIGHT * F.cross_entropy(scores, wanted, reduction="sum") / len(lesson.asked)


def losses(
    model: Qwen2_5_VLForConditionalGeneration, heads: Ladder, lesson: Lesson, form: str
) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
    """Of one lesson: the answers' loss, all others, the heads' accuracies, and the answers' scores without gradient."""
    after = run(model, lesson)
    learned = lesson.targets >= 0
    scores = model.lm_head(after[-1][learned]).float()
    loss = F.cross_entropy(scores, lesson.targets[learned], reduction="sum") / len(lesson.asked)
    extra, known = heads.loss(after, lesson)
    return loss, extra + early(model, after, lesson, form), known, scores.detach()


def follow(wrong: dict[str, float], right: Mapping[str, Sequence[bool]]) -> None:
    """Bring the shares of wrong answers by kind up to date."""
    for kind, answers in right.items():
        wrong[kind] += SMOOTHING * min(len(answers), 10) / 5 * (1 - float(np.mean(answers)) - wrong[kind])


def grids_for(progress: float, rng: np.random.Generator) -> int:
    """How many grids the videos of a step have: few at first, which teach most a token, up to 40 (128) later."""
    draw = rng.random()
    if progress < 0.06:
        return int(rng.integers(2, 5))
    if progress < 0.35 or draw < 0.3:
        return int(rng.integers(2, 9))
    low, high = (8, 16) if draw < 0.65 else (16, 41) if draw < 0.94 else (41, 129)
    return int(rng.integers(low, high))


def form_for(progress: float, rng: np.random.Generator) -> str:
    """Words only at first, then letters in some of the steps."""
    return "letters" if progress > LETTERS_FROM and rng.random() < LETTERS_SHARE else "words"


def clips_for(grids: int, form: str) -> int:
    """How many videos make a batch of about `BATCH_TOKENS`."""
    text = BLOCKS[form] * (18 if form == "words" else 75) * (2 if grids >= LONG else 1)
    return max(2, BATCH_TOKENS // (grids * TOKENS + text))


def answered(scores: Tensor, lesson: Lesson) -> dict[str, list[bool]]:
    """Whether each question is answered right (all tokens of an answer), by kind.

    Parameters
    ----------
    scores : Tensor
        `[learned, vocabulary]`, of the slots with a target in order.
    lesson : Lesson
    """
    wrong = torch.zeros_like(lesson.targets)
    learned = lesson.targets >= 0
    wrong[learned] = (scores.argmax(-1) != lesson.targets[learned]).long()
    total = np.concatenate([np.zeros((len(wrong), 1), int), wrong.cumsum(1).numpy()], 1)
    right: dict[str, list[bool]] = defaultdict(list)
    for clip, slot, length, kind in lesson.asked:
        right[kind].append(bool(total[clip, slot + length] == total[clip, slot]))
    return right


@torch.no_grad()
def accuracy(
    model: Qwen2_5_VLForConditionalGeneration,
    teacher: Teacher,
    form: str = "words",
    batches: int = 12,
    most: int = 32,
    kinds: Sequence[str] = KINDS,
) -> dict[str, float]:
    """Share of right answers (all tokens of an answer) by kind, on fixed lessons of 4 to `most` grids."""
    weights = None if kinds is KINDS else dict.fromkeys(kinds, 1.0)
    right: dict[str, list[bool]] = defaultdict(list)
    for number in range(batches):
        rng = np.random.default_rng([77, number])
        lesson = teacher.lesson(rng, 12, int(rng.integers(4, most + 1)), gaps=False, form=form, weights=weights)
        scores = model.lm_head(run(model, lesson)[-1][lesson.targets >= 0])
        for kind, answers in answered(scores, lesson).items():
            right[kind] += answers
    report = {kind: float(np.mean(right[kind])) for kind in kinds if right[kind]}
    return {"all": float(np.mean([x for xs in right.values() for x in xs])), **report}


@dataclass(frozen=True)
class Course:
    """What a language part is taught, step by step.

    Attributes
    ----------
    kinds : mapping
        Kinds of question of each sort of lesson.
    draw : callable
        Of a step's number, its part of the run, and the weights of the kinds of each sort: the sort, the form of
        answers, and the lesson.
    judge : callable
        Of the part of the run: names of what is asked of the dev split, and its figures.
    """

    kinds: Mapping[str, Sequence[str]]
    draw: Callable[[int, float, Mapping[str, Mapping[str, float]]], tuple[str, str, Lesson]]
    judge: Callable[[float], Iterable[tuple[str, dict[str, float]]]]


def learn(
    model: Qwen2_5_VLForConditionalGeneration,
    course: Course,
    work: Path,
    log: Log,
    steps: int,
    seed: int,
    lr: float,
    name: str,
) -> None:
    """Train `model.model.language_model` in place; goes on from the checkpoint in `work` where there is one.

    Kinds of question are asked in proportion to their share of wrong answers lately.
    """
    torch.manual_seed(seed)
    model.set_attn_implementation("bf16_softmax")
    heads = Ladder(model)
    optimiser = MasterAdamW([*model.model.language_model.parameters(), *heads.parameters()], lr, steps)
    wrong = {sort: dict.fromkeys(kinds, 1.0) for sort, kinds in course.kinds.items()}
    if saved := load_checkpoint(work / f"{name}.pt"):
        optimiser.restore(saved["optimiser"])
        wrong = saved["wrong"]
    began = last = time.monotonic()
    while optimiser.done < steps:
        progress = optimiser.done / steps
        weights = {sort: {kind: share + LEAST_ERROR for kind, share in kinds.items()} for sort, kinds in wrong.items()}
        sort, form, lesson = course.draw(optimiser.done, progress, weights)
        loss, extra, known, scores = losses(model, heads, lesson, form)
        (loss + extra).backward()
        norm = optimiser.step()
        follow(wrong[sort], answered(scores, lesson))
        if optimiser.done % 25 == 0 or optimiser.done == steps:
            values = {"loss": loss.item(), "auxiliary": extra.item(), "norm": norm}
            values |= {kind: float(value) for kind, value in known.items()}
            grids = lesson.visual.shape[1] // TOKENS
            log.write(f"{name}_{sort}", optimiser.done, time.monotonic() - began, grids=grids, **values)
        if optimiser.done % 250 == 0 or optimiser.done == steps:
            for asked, figures in course.judge(progress):
                log.write(f"{name}_dev_{asked}", optimiser.done, time.monotonic() - began, **figures)
        if time.monotonic() - last > EVERY_SECONDS or optimiser.done == steps:
            save_checkpoint(work / f"{name}.pt", optimiser=optimiser.state(), wrong=wrong)
            last = time.monotonic()


def train_language(
    model: Qwen2_5_VLForConditionalGeneration,
    teacher: Teacher,
    dev: Teacher,
    work: Path,
    log: Log,
    steps: int,
    seed: int,
    lr: float = 1e-3,
    name: str = "language",
) -> None:
    """Train `model.model.language_model` in place; goes on from the checkpoint in `work` where there is one."""

    def draw(step: int, progress: float, weights: Mapping[str, Mapping[str, float]]) -> tuple[str, str, Lesson]:
        rng = np.random.default_rng([seed, 2, step])
        grids, form = grids_for(progress, rng), form_for(progress, rng)
        gaps = bool(rng.random() < 0.5)
        lesson = teacher.lesson(rng, clips_for(grids, form), grids, gaps, NOISE, form, weights[form], BLIND)
        return form, form, lesson

    def judge(progress: float) -> Iterator[tuple[str, dict[str, float]]]:
        for form in BLOCKS if progress > LETTERS_FROM else ("words",):
            yield form, accuracy(model, dev, form)

    learn(model, Course(dict.fromkeys(BLOCKS, KINDS), draw, judge), work, log, steps, seed, lr, name)
