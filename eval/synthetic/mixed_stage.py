"""The language part goes on from an earlier version, on lessons of both worlds: still cameras and moving ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import Qwen2_5_VLForConditionalGeneration

from .language_stage import NOISE, Course, accuracy, clips_for, learn
from .lessons import BLIND, Lesson, Teacher
from .log import Log
from .puzzles import PUZZLES
from .quiz import KINDS

KINDS_OF: Mapping[str, tuple[str, ...]] = {"moving": PUZZLES, "still": KINDS}
LESSONS = {("moving", "words"): 0.77, ("still", "words"): 0.16, ("still", "letters"): 0.07}
"""Which lessons a step has, and how often."""
GRIDS = {
    0.4: {0.7: (3, 12), 0.93: (12, 24), 1.0: (24, 64)},
    1.0: {0.25: (3, 12), 0.5: (12, 24), 0.93: (24, 64), 1.0: (64, 129)},
}
"""How many grids the videos of a step have, by the cumulated share of the steps, up to a part of the run and after it:
short ones teach more a second."""


@dataclass(frozen=True)
class Teachers:
    """Who draws a world's lessons, for training and for the dev split."""

    train: Teacher
    dev: Teacher


def grids_of(progress: float, rng: np.random.Generator) -> int:
    """How many grids the videos of a step have."""
    draw = rng.random()
    spans = next(spans for until, spans in GRIDS.items() if progress < until)
    low, high = next(span for share, span in spans.items() if draw < share)
    return int(rng.integers(low, high))


def train_mixed(
    model: Qwen2_5_VLForConditionalGeneration,
    teachers: Mapping[str, Teachers],
    work: Path,
    log: Log,
    steps: int,
    seed: int,
    lr: float = 6e-4,
    name: str = "mixed",
) -> None:
    """Train `model.model.language_model` in place; goes on from the checkpoint in `work` where there is one.

    Parameters
    ----------
    model : Qwen2_5_VLForConditionalGeneration
        In bfloat16.
    teachers : mapping of str to Teachers
        Of the worlds `"moving"` and `"still"`.
    work, log, steps, seed, lr, name
        As `language_stage.train_language`'s.
    """

    def draw(step: int, progress: float, weights: Mapping[str, Mapping[str, float]]) -> tuple[str, str, Lesson]:
        rng = np.random.default_rng([seed, 3, step])
        world, form = list(LESSONS)[int(rng.choice(len(LESSONS), p=list(LESSONS.values())))]
        sort, gaps = f"{world}_{form}", bool(rng.random() < 0.5)
        grids = grids_of(progress, rng)
        train = teachers[world].train
        lesson = train.lesson(rng, clips_for(grids, form), grids, gaps, NOISE, form, weights[sort], BLIND)
        return sort, form, lesson

    def judge(progress: float) -> Iterator[tuple[str, dict[str, float]]]:
        for world, two in teachers.items():
            yield world, accuracy(model, two.dev, most=64, kinds=KINDS_OF[world])

    kinds = {f"{world}_{form}": KINDS_OF[world] for world, form in LESSONS}
    learn(model, Course(kinds, draw, judge), work, log, steps, seed, lr, name)
