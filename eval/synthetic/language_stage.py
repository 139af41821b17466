"""Stage 2: the language part alone learns to answer, on features of the finished vision tower.

The loss is the answer's cross entropy, plus half of a dense auxiliary one: after layer 5 every visual slot must know
the clip so far (first and last colour, number and shape, the count, the direction). Its heads are thrown away
afterwards.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from eval.synthetic.lessons import PREFIX, STATES, TOKENS, Lesson, Teacher
from eval.synthetic.log import Log
from eval.synthetic.optim import MasterAdamW, load_checkpoint, save_checkpoint

AUXILIARY_LAYER = 5
AUXILIARY_WEIGHT = 0.5
BATCH_TOKENS = 5000
NOISE = 0.6
EVERY_SECONDS = 60.0
SIZES = [len(words) + 1 for words in STATES.values()]


class StateHeads(nn.Module):
    """Linear heads that read the clip's state so far from a visual slot."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.out = nn.Linear(width, sum(SIZES))

    def loss(self, hidden: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross entropy over the heads, and their accuracies `[8]`, from `[clips, slots, width]` and `[.., 8]`."""
        scores = self.out(self.norm(hidden)).float().split(SIZES, -1)
        wanted = [states[..., n] for n in range(len(SIZES))]
        losses = [F.cross_entropy(s.flatten(0, 1), w.flatten()) for s, w in zip(scores, wanted, strict=True)]
        right = [(s[:, -1].argmax(-1) == w[:, -1]).float().mean() for s, w in zip(scores, wanted, strict=True)]
        return torch.stack(losses).mean(), torch.stack(right)


def run(model: Qwen2_5_VLForConditionalGeneration, lesson: Lesson) -> tuple[Tensor, Tensor]:
    """Final hidden states and those after the auxiliary layer, each `[clips, T, 256]`."""
    text: Any = model.model.language_model
    hidden = text.embed_tokens(lesson.ids)
    video = slice(PREFIX, PREFIX + lesson.visual.shape[1])
    hidden = torch.cat([hidden[:, : video.start], lesson.visual.to(hidden.dtype), hidden[:, video.stop :]], 1)
    angles = text.rotary_emb(hidden, lesson.positions)
    mask = torch.zeros(lesson.mask.shape, dtype=hidden.dtype).masked_fill(~lesson.mask, -1e4)
    middle = hidden
    for number, layer in enumerate(text.layers):
        hidden = layer(hidden, attention_mask=mask, position_embeddings=angles)
        if number + 1 == AUXILIARY_LAYER:
            middle = hidden[:, video]
    return text.norm(hidden), middle


def grids_for(progress: float, rng: np.random.Generator) -> int:
    """How many grids the clips of a step have: short ones first, up to 20 from 45 % of the run on."""
    most = 4 if progress < 0.15 else 8 if progress < 0.45 else 20
    return int(rng.integers(2, most + 1))


def clips_for(grids: int) -> int:
    """How many clips make a batch of about `BATCH_TOKENS`."""
    return max(4, BATCH_TOKENS // (grids * TOKENS + 180))


@torch.no_grad()
def accuracy(model: Qwen2_5_VLForConditionalGeneration, teacher: Teacher, batches: int = 12) -> dict[str, float]:
    """Share of right answers by kind, on fixed lessons of 4 to 16 grids."""
    right: dict[str, list[bool]] = defaultdict(list)
    for number in range(batches):
        rng = np.random.default_rng([77, number])
        lesson = teacher.lesson(rng, 12, int(rng.integers(4, 17)), gaps=False)
        hidden, _ = run(model, lesson)
        for clip, slot, kind in lesson.asked:
            scores = model.lm_head(hidden[clip, slot])
            right[kind].append(int(scores.argmax()) == int(lesson.targets[clip, slot]))
    report = {kind: float(np.mean(right[kind])) for kind in STATES}
    return {"all": float(np.mean([x for xs in right.values() for x in xs])), **report}


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
    torch.manual_seed(seed)
    model.set_attn_implementation("eager")  # in bf16 on a CPU the fused kernel's backward is slower
    heads = StateHeads(model.lm_head.in_features).to(model.dtype)
    optimiser = MasterAdamW([*model.model.language_model.parameters(), *heads.parameters()], lr, steps)
    if saved := load_checkpoint(work / f"{name}.pt"):
        optimiser.restore(saved["optimiser"])
    began = last = time.monotonic()
    while optimiser.done < steps:
        rng = np.random.default_rng([seed, 2, optimiser.done])
        grids = grids_for(optimiser.done / steps, rng)
        lesson = teacher.lesson(rng, clips_for(grids), grids, gaps=bool(rng.random() < 0.5), noise=NOISE)
        hidden, middle = run(model, lesson)
        learned = lesson.targets >= 0
        loss = F.cross_entropy(model.lm_head(hidden[learned]).float(), lesson.targets[learned])
        extra, known = heads.loss(middle, lesson.states)
        (loss + AUXILIARY_WEIGHT * extra).backward()
        norm = optimiser.step()
        if optimiser.done % 25 == 0 or optimiser.done == steps:
            values = {"loss": loss.item(), "auxiliary": extra.item(), "known": float(known.mean()), "norm": norm}
            log.write(name, optimiser.done, time.monotonic() - began, grids=grids, **values)
        if optimiser.done % 250 == 0 or optimiser.done == steps:
            log.write(f"{name}_dev", optimiser.done, time.monotonic() - began, **accuracy(model, dev))
        if time.monotonic() - last > EVERY_SECONDS or optimiser.done == steps:
            save_checkpoint(work / f"{name}.pt", optimiser=optimiser.state())
            last = time.monotonic()
