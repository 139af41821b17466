"""The training loop of parts: steps, checkpoints from which a killed training goes on bit for bit, held-out figures.

Knows trainers and files. Refuses to know what is trained.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..common import checks
from ..common.atomic import replacing
from ..errors import ConfigError
from ..parts import Part, identity, read_part, write_part
from ..parts.files import SUFFIX
from ..stream.lm import VideoLM
from .examples import Examples
from .lines import Line, held_out
from .trainer import Trainer

_EVERY_SECONDS = 5.0
_CLIP = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast.

    Attributes
    ----------
    steps : int
        Of one update each.
    batch : int
        Lines of an update, all about one video, which is seen once for all of them.
    rate : float
        Learning rate of AdamW at its largest: it grows over the first twentieth of the steps, and ends at 0, as a
        cosine does.
    seed : int
        Of the first weights, the order of the lines and all noise.
    frames : int
        Most frames of a video.
    held : int
        Most lines that are held out for the figures, of every sixth video.
    every : int
        Steps between two checkpoints.
    """

    steps: int
    batch: int = 6
    rate: float = 1e-3
    seed: int = 0
    frames: int = 128
    held: int = 60
    every: int = 50

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("seed", 0), ("frames", 1), ("held", 1), ("every", 1)):
            checks.whole(name, getattr(self, name), least)
        checks.real("rate", self.rate, 0, above=True)


def train(
    trainer: Trainer,
    lines: Sequence[Line],
    out: Path,
    work: Path,
    plan: Plan,
    say: Callable[[str], None] = lambda line: None,
    stop: Callable[[int], bool] = lambda step: False,
) -> Part | None:
    """Train a part and write it to ``out/NAME.safetensors``; what is there already and was trained alike is left.

    Parameters
    ----------
    trainer : Trainer
    lines : sequence of Line
        Those of every sixth video are held out.
    out, work : path
        Folders of the file, and of checkpoints and labels. The same call with the same `work` goes on.
    plan : Plan
    say : callable
        Is given a line of progress now and then.
    stop : callable
        Asked after each step, by tests: True ends the training there and then, as a kill does.

    Returns
    -------
    Part
        As `read_part` gives it; None where it was stopped.

    Raises
    ------
    ConfigError
        If `work` holds a training of other settings, or a folder can't be written.
    """
    name, lm = trainer.part.name, trainer.lm
    settings = {**asdict(plan), **trainer.settings, "lines": _digest(lines)}
    path, here = out / f"{name}{SUFFIX}", identity(lm.model)
    if path.is_file():
        part = read_part(path, {name: trainer.part})
        assert part.trained is not None
        if part.trained.settings == settings and part.trained.model == here:
            say(f"{name}: {path} is there, trained by the same settings; nothing to do")
            return part
    work.mkdir(parents=True, exist_ok=True)
    learning, held = held_out(lines)
    held = random.Random(f"held out {plan.seed}").sample(held, min(plan.held, len(held)))
    examples = Examples(lm, plan.frames, trainer.knowing())
    with _frozen(lm):
        learning = list(trainer.prepare(learning, examples, work, say))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            part = trainer.begin().to(lm.device).train()
        run = _Run(trainer, part, plan, work / f"{name}.checkpoint", {"settings": settings, "model": here})
        before = run.resume(lambda: trainer.judged(part.eval(), examples, held))
        part.train()
        if not run.steps(learning, examples, say, stop):
            return None
        figures = {"before": before, "after": trainer.judged(part.eval(), examples, held), "held_out": len(held)}
    figures["seconds"] = round(run.seconds, 1)
    write_part(path, part, here, settings=settings, figures=figures)
    say(f"{name}: written to {path}; {_worded(figures)}")
    return read_part(path, {name: trainer.part})


class _Run:
    """Steps of one training, and what is written down of them."""

    def __init__(self, trainer: Trainer, part: Part, plan: Plan, path: Path, of: dict[str, Any]) -> None:
        self.trainer, self.part, self.plan, self.path, self.of = trainer, part, plan, path, of
        self.optimizer = torch.optim.AdamW(part.parameters(), lr=plan.rate, weight_decay=0.01)
        self.done, self.seconds = 0, 0.0
        self.before: dict[str, Any] = {}

    def resume(self, judge: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """From the checkpoint, if there is one; returns the held-out figures before the first step."""
        if not self.path.is_file():
            self.before = judge()
            return self.before
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            said, of = state["of"], self.of
        except Exception as error:  # torch has many kinds for a file that is none of its own
            raise ConfigError(f"{self.path} is no checkpoint of a part ({error}); remove it.") from error
        if said != of:
            raise ConfigError(f"{self.path} is of another training; give another --work, or the same settings.")
        self.part.load_state_dict(state["part"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done, self.seconds, self.before = state["done"], state["seconds"], state["before"]
        return self.before

    def save(self) -> None:
        """Write a checkpoint, in one step."""
        state = {
            "of": self.of,
            "part": self.part.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
            "seconds": self.seconds,
            "before": self.before,
        }
        with replacing(self.path) as temporary:
            torch.save(state, temporary)

    def steps(
        self, lines: Sequence[Line], examples: Examples, say: Callable[[str], None], stop: Callable[[int], bool]
    ) -> bool:
        """The steps that are left; whether all were done."""
        plan, began, told, smooth = self.plan, time.monotonic(), -math.inf, _Smooth()
        first, before = self.done, self.seconds
        for step in range(first, plan.steps):
            for group in self.optimizer.param_groups:
                group["lr"] = plan.rate * _schedule(step, plan.steps)
            drawn = [examples.of(line) for line in _drawn(lines, plan, step)]
            draw = torch.Generator().manual_seed(_seed(plan.seed, step))
            self.trainer.progress = step / plan.steps
            loss, figures = self.trainer.loss(self.part, drawn, draw)
            loss.backward()
            smooth.add(figures)
            torch.nn.utils.clip_grad_norm_(self.part.parameters(), _CLIP)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.done, self.seconds = step + 1, before + time.monotonic() - began
            if self.done % plan.every == 0 or self.done == plan.steps:
                self.save()
            if stop(self.done):
                return False
            if time.monotonic() - told > _EVERY_SECONDS:
                told = time.monotonic()
                left = (time.monotonic() - began) / (self.done - first) * (plan.steps - self.done)
                say(f"{self.part.name}: step {self.done} of {plan.steps}, {smooth}, about {left:.0f} s left")
        return True


class _Smooth:
    """Figures of steps, smoothed."""

    def __init__(self) -> None:
        self._known: dict[str, float] = {}

    def add(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._known[name] = 0.97 * self._known.get(name, value) + 0.03 * value

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.4f}" for name, value in self._known.items())


def _schedule(step: int, steps: int) -> float:
    warm = max(steps // 20, 1)
    return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps)))


def _drawn(lines: Sequence[Line], plan: Plan, step: int) -> list[Line]:
    """Some lines about the video of a step: all videos once, in a new order, and so on."""
    videos = list(dict.fromkeys(line.video for line in lines))
    turn, at = divmod(step, len(videos))
    video = random.Random(f"{plan.seed} {turn}").sample(videos, len(videos))[at]
    about = [line for line in lines if line.video == video]
    return random.Random(f"{plan.seed} {turn} {at}").sample(about, min(plan.batch, len(about)))


def _seed(*numbers: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:7], "little")


def _digest(lines: Sequence[Line]) -> str:
    """Of what the lines say; where their videos lie does not matter."""
    said = [(Path(line.video).name, line.question, line.answer, line.evidence) for line in lines]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def _worded(figures: dict[str, Any]) -> str:
    return "held-out loss " + ", ".join(f"{name} {said['loss']:.4f}" for name, said in figures["after"].items())


@contextmanager
def _frozen(lm: VideoLM) -> Iterator[None]:
    """The model without gradients of its own, as it was afterwards."""
    trained = [each for each in lm.model.parameters() if each.requires_grad]
    for each in trained:
        each.requires_grad_(False)
    try:
        yield
    finally:
        for each in trained:
            each.requires_grad_(True)
