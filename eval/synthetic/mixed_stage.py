"""The language part goes on from an earlier version, on lessons of both worlds: still cameras and moving ones."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from .language_stage import (
    EVERY_SECONDS,
    LEAST_ERROR,
    NOISE,
    Ladder,
    accuracy,
    answered,
    clips_for,
    follow,
    losses,
)
from .lessons import BLIND, Teacher
from .log import Log
from .optim import MasterAdamW, load_checkpoint, save_checkpoint
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
    torch.manual_seed(seed)
    model.set_attn_implementation("bf16_softmax")
    heads = Ladder(model)
    optimiser = MasterAdamW([*model.model.language_model.parameters(), *heads.parameters()], lr, steps)
    wrong = {f"{world}_{form}": dict.fromkeys(KINDS_OF[world], 1.0) for world, form in LESSONS}
    if saved := load_checkpoint(work / f"{name}.pt"):
        optimiser.restore(saved["optimiser"])
        wrong = saved["wrong"]
    began = last = time.monotonic()
    while optimiser.done < steps:
        rng = np.random.default_rng([seed, 3, optimiser.done])
        world, form = list(LESSONS)[int(rng.choice(len(LESSONS), p=list(LESSONS.values())))]
        kinds, gaps = wrong[f"{world}_{form}"], bool(rng.random() < 0.5)
        grids = grids_of(optimiser.done / steps, rng)
        weights = {kind: share + LEAST_ERROR for kind, share in kinds.items()}
        lesson = teachers[world].train.lesson(rng, clips_for(grids, form), grids, gaps, NOISE, form, weights, BLIND)
        loss, extra, known, scores = losses(model, heads, lesson, form)
        (loss + extra).backward()
        norm = optimiser.step()
        follow(kinds, answered(scores, lesson))
        if optimiser.done % 25 == 0 or optimiser.done == steps:
            values = {"loss": loss.item(), "auxiliary": extra.item(), "norm": norm}
            values |= {kind: float(value) for kind, value in known.items()}
            log.write(f"{name}_{world}_{form}", optimiser.done, time.monotonic() - began, grids=grids, **values)
        if optimiser.done % 250 == 0 or optimiser.done == steps:
            for each, two in teachers.items():
                right = accuracy(model, two.dev, most=64, kinds=KINDS_OF[each])
                log.write(f"{name}_dev_{each}", optimiser.done, time.monotonic() - began, **right)
        if time.monotonic() - last > EVERY_SECONDS or optimiser.done == steps:
            save_checkpoint(work / f"{name}.pt", optimiser=optimiser.state(), wrong=wrong)
            last = time.monotonic()
