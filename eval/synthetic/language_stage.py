"""Stage 2: the language part alone learns to answer, on features of the finished vision tower.

The loss is the answer's cross entropy, plus half of a dense auxiliary one: after layer 5 every visual slot must know
the video so far (`lessons.STATES`: first and last colour, number, shape and icon, the count, the direction, the last
thing and the one before it, the last one's corner), and another half of one on words for things in questions
(`lessons.FACTS`). The heads are thrown away afterwards.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from eval.synthetic.lessons import BLOCKS, FACTS, PREFIX, STATES, TOKENS, Lesson, Teacher
from eval.synthetic.log import Log
from eval.synthetic.optim import MasterAdamW, load_checkpoint, save_checkpoint
from eval.synthetic.quiz import KINDS

AUXILIARY_LAYER = 5
LETTERS_FROM = 0.5
AUXILIARY_WEIGHT = 0.5
BATCH_TOKENS = 5000
NOISE = 0.6
EVERY_SECONDS = 60.0
FACTS_WEIGHT = 0.5


class Heads(nn.Module):
    """Linear heads on one norm, each with a class for every word of its own and one more for none."""

    words: ClassVar[Mapping[str, tuple[str, ...]]]

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = [len(words) + 1 for words in self.words.values()]
        self.norm = nn.RMSNorm(width)
        self.out = nn.Linear(width, sum(self.sizes))

    def scores(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Each head's scores `[..., classes]` from `[..., width]`, in float32."""
        return self.out(self.norm(hidden)).float().split(self.sizes, -1)


class StateHeads(Heads):
    """They read the clip's state so far from a visual slot."""

    words = STATES

    def loss(self, hidden: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross entropy over the heads, and their accuracies `[14]`, from `[clips, slots, 256]` and `[.., 14]`."""
        scores, wanted = self.scores(hidden), states.unbind(-1)
        losses = [F.cross_entropy(s.flatten(0, 1), w.flatten()) for s, w in zip(scores, wanted, strict=True)]
        right = [(s[:, -1].argmax(-1) == w[:, -1]).float().mean() for s, w in zip(scores, wanted, strict=True)]
        return torch.stack(losses).mean(), torch.stack(right)


class FactHeads(Heads):
    """They read what is known of a thing from a word for it."""

    words = FACTS

    def loss(self, hidden: Tensor, facts: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross entropy over the heads, and their accuracies `[4]`, from `[clips, T, 256]` and `[clips, T, 4]`."""
        some = (facts >= 0).any(-1)
        facts = facts[some]
        scores, wanted = self.scores(hidden[some]), facts.unbind(-1)
        count = [(w >= 0).sum().clamp(min=1) for w in wanted]
        losses = [F.cross_entropy(s, w, reduction="sum") / n for s, w, n in zip(scores, wanted, count, strict=True)]
        right = [((s.argmax(-1) == w) & (w >= 0)).sum() / n for s, w, n in zip(scores, wanted, count, strict=True)]
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
            middle = hidden
    return text.norm(hidden), middle


def grids_for(progress: float, rng: np.random.Generator) -> int:
    """How many grids the videos of a step have: few for long, which teach most a token, up to 40 (128) in the end."""
    if progress > 0.7 and rng.random() < 0.06:
        return int(rng.integers(41, 129))
    most = 4 if progress < 0.06 else 6 if progress < 0.45 else 12 if progress < 0.65 else 24 if progress < 0.85 else 40
    return int(rng.integers(2, most + 1))


def form_for(progress: float, rng: np.random.Generator) -> str:
    """Words only at first, then letters in a third of the steps."""
    return "letters" if progress > LETTERS_FROM and rng.random() < 0.35 else "words"


def clips_for(grids: int, form: str) -> int:
    """How many videos make a batch of about `BATCH_TOKENS`."""
    return max(2, BATCH_TOKENS // (grids * TOKENS + (200 if form == "words" else 360)))


@torch.no_grad()
def accuracy(
    model: Qwen2_5_VLForConditionalGeneration, teacher: Teacher, form: str = "words", batches: int = 12, most: int = 32
) -> dict[str, float]:
    """Share of right answers (all tokens of an answer) by kind, on fixed lessons of 4 to `most` grids."""
    right: dict[str, list[bool]] = defaultdict(list)
    for number in range(batches):
        rng = np.random.default_rng([77, number])
        lesson = teacher.lesson(rng, 12, int(rng.integers(4, most + 1)), gaps=False, form=form)
        hidden, _ = run(model, lesson)
        for clip, slot, length, kind in lesson.asked:
            slots = slice(slot, slot + length)
            said = model.lm_head(hidden[clip, slots]).argmax(-1)
            right[kind].append(bool((said == lesson.targets[clip, slots]).all()))
    report = {kind: float(np.mean(right[kind])) for kind in KINDS if right[kind]}
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
    words = FactHeads(model.lm_head.in_features).to(model.dtype)
    optimiser = MasterAdamW(
        [*model.model.language_model.parameters(), *heads.parameters(), *words.parameters()], lr, steps
    )
    if saved := load_checkpoint(work / f"{name}.pt"):
        optimiser.restore(saved["optimiser"])
    began = last = time.monotonic()
    while optimiser.done < steps:
        rng = np.random.default_rng([seed, 2, optimiser.done])
        progress = optimiser.done / steps
        grids, form = grids_for(progress, rng), form_for(progress, rng)
        gaps = bool(rng.random() < 0.5)
        lesson = teacher.lesson(rng, clips_for(grids, form), grids, gaps, NOISE, form)
        hidden, middle = run(model, lesson)
        learned = lesson.targets >= 0
        loss = F.cross_entropy(model.lm_head(hidden[learned]).float(), lesson.targets[learned])
        extra, known = heads.loss(middle[:, PREFIX : PREFIX + lesson.visual.shape[1]], lesson.states)
        named, facts = words.loss(middle, lesson.facts)
        (loss + AUXILIARY_WEIGHT * extra + FACTS_WEIGHT * named).backward()
        norm = optimiser.step()
        if optimiser.done % 25 == 0 or optimiser.done == steps:
            values = {"loss": loss.item(), "auxiliary": extra.item(), "known": float(known.mean()), "norm": norm}
            values |= {"named": named.item(), **dict(zip(FACTS, facts.tolist(), strict=True))}
            log.write(f"{name}_{form}", optimiser.done, time.monotonic() - began, grids=grids, **values)
        if optimiser.done % 250 == 0 or optimiser.done == steps:
            for form in BLOCKS if progress > LETTERS_FROM else ("words",):
                log.write(f"{name}_dev_{form}", optimiser.done, time.monotonic() - began, **accuracy(model, dev, form))
        if time.monotonic() - last > EVERY_SECONDS or optimiser.done == steps:
            save_checkpoint(work / f"{name}.pt", optimiser=optimiser.state())
            last = time.monotonic()
