"""Runs that learn the same lessons in turns, each under schedules of its own, and their clocks and checkpoints.

Seconds are those of this process's processors, all threads together: what it would take on a machine of its own. Where
others run beside it, the wall clock says what they do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.search.budget import Costs

from .dropping import answers_loss, run_dropping
from .language_stage import NOISE, answered, clips_for
from .lessons import BLIND, Lesson
from .log import Log
from .mixed_stage import KINDS_OF, LESSONS, Teachers, grids_of
from .optim import MasterAdamW, load_checkpoint, save_checkpoint

Draw: TypeAlias = Callable[[np.random.Generator], pv.Pyramid]
"""The schedule of a step, by the step's own generator."""

WITHOUT = "without"
"""The run that drops nothing."""
VISUAL = 1024
"""Visual tokens of the prefill whose FLOPs shares are of, as in `eval.tables depth`."""
MEASURED = (1.0, 0.5, 0.25, 0.15)
"""Shares of the FLOPs at which checkpoints are measured."""
DEV_BATCHES, DEV_CLIPS = 6, 8
EVERY_SECONDS = 120.0
LOGGED = 25
WARMUP = 20
LATE = 0.9
"""The part of `train_mixed` whose lengths of videos lessons have."""


def spending(config: Any, share: float, scorer: str) -> pv.Pyramid:
    """PyramidDrop's shape at a share of the decoder's FLOPs of one prefill; all tokens at 1.

    Raises
    ------
    ConfigError
        If no schedule spends so little on the model.
    """
    if share == 1:
        return pv.Pyramid(stages=1)
    found = Costs(DecoderShape.of(config), VISUAL).paper(pv.Pyramid(scorer=scorer), 4, share)
    if found is None:
        raise pv.ConfigError(f"no schedule brings this model to {share:.0%} of its FLOPs; expected a larger share.")
    return found


class Trapezoid(MasterAdamW):
    """`MasterAdamW` whose rate rises, stays, and falls to nothing over the last `cooling` steps before `end`."""

    end: float = math.inf
    cooling: int = 1

    def rate(self) -> float:
        """Learning rate of the next step."""
        return self.lr * max(0.0, min(1.0, (self.done + 1) / self.warmup, (self.end - self.done) / self.cooling))


class Run:
    """A model that learns, and the processor's seconds that it took.

    Parameters
    ----------
    name : str
    model : Qwen2_5_VLForConditionalGeneration
        Its language part is trained in place.
    draw : callable
        What it drops.
    lr : float
        Peak learning rate.
    """

    def __init__(self, name: str, model: Qwen2_5_VLForConditionalGeneration, draw: Draw, lr: float) -> None:
        self.name, self.model, self.draw, self.seconds = name, model, draw, 0.0
        model.set_attn_implementation("bf16_softmax")
        self.optimiser = Trapezoid(model.model.language_model.parameters(), lr, 1, WARMUP)

    def learn(self, lesson: Lesson, form: str, pyramid: pv.Pyramid) -> dict[str, float]:
        """One step; what is worth a line of the log."""
        seen = run_dropping(self.model, lesson, pyramid)
        loss, extra, scores = answers_loss(self.model, seen, lesson, form)
        (loss + extra).backward()
        norm = self.optimiser.step()
        right = [x for each in answered(scores.detach(), lesson).values() for x in each]
        return {"loss": loss.item(), "early": extra.item(), "norm": norm, "right": float(np.mean(right))}

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {"optimiser": self.optimiser.state(), "seconds": self.seconds}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, weights included."""
        self.optimiser.restore(state["optimiser"])
        self.seconds = state["seconds"]


class Turns:
    """Teaches runs, and keeps where they are.

    Parameters
    ----------
    teachers : mapping of str to Teachers
        What is learned, and what is asked at the ends: of the worlds "moving" and "still", or of one of them.
    work : Path
        For checkpoints: `turns.pt` of all runs, `NAME.pt` of an end.
    log : Log
    seed : int
        Of lessons and schedules.
    scorer : str
        What ranks on the dev split.
    cooling : int
        Steps over which the learning rate falls before an end.
    """

    def __init__(
        self, teachers: Mapping[str, Teachers], work: Path, log: Log, seed: int, scorer: str, cooling: int = 1
    ) -> None:
        self.teachers, self.work, self.log = teachers, work, log
        self.seed, self.scorer, self.cooling = seed, scorer, cooling
        self.lessons = {which: share for which, share in LESSONS.items() if which[0] in teachers}

    def together(self, runs: Sequence[Run], until: int) -> None:
        """All runs up to a step, each lesson by each of them before the next; on from the checkpoint if there is one.

        Every other lesson goes through the runs backwards, as in `eval.bench.common.in_turns`.
        """
        path = self.work / "turns.pt"
        if saved := load_checkpoint(path):
            for run in runs:
                run.restore(saved[run.name])
        self._go(runs, until, lambda: save_checkpoint(path, **{run.name: run.state() for run in runs}), "")

    def alone(self, run: Run, end: int, name: str) -> float:
        """One run from where the turns left it to an end of this name; the seconds that it took from its start on."""
        path = self.work / f"{name}.pt"
        saved = load_checkpoint(path)
        if saved is None:
            saved = (load_checkpoint(self.work / "turns.pt") or {})[run.name]
        run.restore(saved)
        run.optimiser.end, run.optimiser.cooling = end, self.cooling
        self._go([run], end, lambda: save_checkpoint(path, **run.state()), f"_{name.removeprefix(run.name + '_')}")
        run.optimiser.end = math.inf
        return run.seconds

    def _go(self, runs: Sequence[Run], until: int, save: Callable[[], None], ending: str) -> None:
        """Lesson after lesson."""
        began = last = time.monotonic()
        while (done := runs[0].optimiser.done) < until:
            begun = time.process_time()
            lesson, form = self.lesson(done)
            making = time.process_time() - begun
            for run in runs if done % 2 else runs[::-1]:
                begun = time.process_time()
                pyramid = run.draw(np.random.default_rng([self.seed, 6, done]))
                values = run.learn(lesson, form, pyramid)
                took = making + time.process_time() - begun  # each would have made its lesson
                run.seconds += took
                if (done + 1) % LOGGED == 0 or done + 1 == until:
                    name, grids = f"{run.name}{ending}_{form}", lesson.visual.shape[1] // 16
                    self.log.write(name, done + 1, time.monotonic() - began, grids=grids, step_s=took, **values)
            if time.monotonic() - last > EVERY_SECONDS or done + 1 == until:
                save()
                last = time.monotonic()

    def lesson(self, step: int) -> tuple[Lesson, str]:
        """The lesson of a step and its form, the same for all runs and after every restart, as late in `train_mixed`.

        All kinds are asked as often, right or wrong: asking by errors would give each run lessons of its own.
        """
        rng = np.random.default_rng([self.seed, 5, step])
        share = np.array(list(self.lessons.values()))
        world, form = list(self.lessons)[int(rng.choice(len(share), p=share / share.sum()))]
        grids, gaps, weights = grids_of(LATE, rng), bool(rng.random() < 0.5), dict.fromkeys(KINDS_OF[world], 1.0)
        teacher = self.teachers[world].train
        return teacher.lesson(rng, clips_for(grids, form), grids, gaps, NOISE, form, weights, BLIND), form

    @torch.no_grad()
    def dev_accuracy(self, model: Qwen2_5_VLForConditionalGeneration) -> dict[str, dict[str, float]]:
        """Share of right answers in words, by world and share of the FLOPs, on fixed lessons of 4 to 64 grids."""
        found: dict[str, dict[str, float]] = {}
        for world, two in self.teachers.items():
            found[world], weights = {}, dict.fromkeys(KINDS_OF[world], 1.0)
            for share in MEASURED:
                pyramid, right = spending(model.config, share, self.scorer), list[bool]()
                for number in range(DEV_BATCHES):
                    rng = np.random.default_rng([77, number])
                    lesson = two.dev.lesson(rng, DEV_CLIPS, int(rng.integers(4, 65)), gaps=False, weights=weights)
                    scores = answers_loss(model, run_dropping(model, lesson, pyramid), lesson, "words")[2]
                    right += [x for each in answered(scores, lesson).values() for x in each]
                found[world][f"{share:g}"] = float(np.mean(right))
        return found


def seconds_a_step(runs: Sequence[Run]) -> dict[str, float]:
    """What a step of each run took on average, lessons included, once they have gone as far in turns."""
    return {run.name: run.seconds / run.optimiser.done for run in runs}
