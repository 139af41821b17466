"""The worker: a model that watches videos through the real streaming path and answers a task's items.

Knows the library, tasks and passes. Refuses to know journals, other workers and machines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.stream.terms import checked_for_looking

from ..drivers.jobs import Job, blank, failed
from ..stats.record import Record, digest
from ..tasks import Item, Task, task_named
from .clock import Clock
from .config import RunConfig
from .frames import Frames, Viewing
from .metered import LastFrames, Metered
from .talk import Talk
from .watch import Due, Pass


class StreamWorker:
    """Answers jobs with one model.

    Parameters
    ----------
    config : RunConfig
    index : int
        The number of this worker on its machine, which spreads workers over CUDA devices where none was chosen.
    """

    def __init__(self, config: RunConfig, index: int = 0) -> None:
        self.lm = load_model(config, index)
        self._begin(config)

    def _begin(self, config: RunConfig) -> None:
        """All but the model."""
        self.config, self.digest = config, config.digest
        self.task: Task = task_named(config.task, config.data)
        self.shape = DecoderShape.of(self.lm.model.config)
        self.frames = Frames(config.cache, config.cache_gb)
        self.clock = Clock()
        self._begun = False
        self.paraphrase = config.paraphraser()
        self._open("What?" if config.question_aware else None)  # settings that suit no item of this model
        asking = (config.ask_pyramid_object() or pv.Pyramid(stages=1)).resolve(self.shape.layers, self.shape.rank_at)
        checked_for_looking(config.decode, asking, self.shape.kinds, config.memory_object().archive)

    def twin(self) -> StreamWorker:
        """Another worker with the same model, for another thread."""
        other = object.__new__(type(self))
        other.lm = self.lm
        other._begin(self.config)
        return other

    def __call__(self, job: Job) -> Iterator[Record]:
        """One record for each item, as soon as it is finished."""
        if not self._begun:  # from here on every second belongs to some record
            self._begun = True
            self.clock.lap()
        for items in passes(job.items, self.config):
            left = {item.id: item for item in items}
            try:
                for record in self._watch(items):
                    del left[record.item]
                    yield replace(record, spent=self.clock.lap())
            except Exception as error:
                if self.config.strict:
                    raise
                for item in left.values():  # the video broke off: those who were not asked yet
                    yield replace(failed(item, self.config.task, self.digest, said(error)), spent=self.clock.lap())

    def _watch(self, items: list[Item]) -> Iterator[Record]:
        """One pass over a video."""
        _seed(int(digest(self.config.seed, items[0].video), 16) % 2**63)  # whatever was done before
        begun = self.clock.total["decode"]
        run: Pass[Talk] = Pass(self._stream(items[0]), self.task.cues(items[0]), [])
        for item in items:
            record = blank(item, self.config.task, self.digest)
            talk = Talk(item, self.task, self.config, run.seconds, record, self.paraphrase)
            run.due.append(Due(_first_moment(item), talk))
        chunks = self.frames(_viewing(items, self.config, self.task))
        for at, stream, talk in run.run(self.clock.drawn("decode", chunks)):
            try:
                later = talk.go(at, stream)
            except Exception as error:
                if self.config.strict:
                    raise
                yield failed(talk.item, self.config.task, self.digest, said(error))
                continue
            if later is not None:
                run.due.append(Due(later, talk))
            else:
                yield talk.finished(self.clock.total["decode"] - begun, len(items), self.frames.warnings)

    def _stream(self, item: Item) -> Metered | LastFrames:
        config = self.config
        if config.last_frames is not None:
            return LastFrames(self._open, config.last_frames)
        asked = item.question if self.paraphrase is None else self.paraphrase(item.question)
        return self._open(asked if config.question_aware else None)

    def _open(self, standing: str | None = None) -> Metered:
        with self.clock.part("model"):
            stream = self.lm.stream(self.config.recipe_object(), standing_question=standing, system=self.task.system)
        return Metered(stream, self.shape, self.clock)


def load_model(config: RunConfig, index: int) -> pv.VideoLM:
    """The configured model, on this worker's device."""
    device = config.device
    if device is None and torch.cuda.is_available():
        device = f"cuda:{index % torch.cuda.device_count()}"
    more: dict[str, Any] = {} if config.revision is None else {"revision": config.revision}
    more |= dict(dtype=config.dtype, attn=config.attn, batch=config.batch, parts=config.parts)
    return pv.load(config.model, device=device, **more)


def passes(items: Iterable[Item], config: RunConfig) -> list[list[Item]]:
    """The items of a video by the pass that they share.

    At a rate, those that begin at the same second; with N frames in all, those that see the same part; where the
    question ranks while watching, each has its own.
    """
    shared: dict[object, list[Item]] = {}
    for item in items:
        part = (item.path, item.start) if config.frames is None else (item.path, item.start, item.end)
        shared.setdefault(item.id if config.question_aware else part, []).append(item)
    return list(shared.values())


def _seed(seed: int) -> None:
    """As `torch.manual_seed`, which for each kind of device that is not there spends a millisecond on a stack trace."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def said(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _first_moment(item: Item) -> float:
    first = item.end if item.first is None else item.first
    return math.inf if first is None else first


def _viewing(items: list[Item], config: RunConfig, task: Task) -> Viewing:
    ends = [item.end for item in items]
    end = None if None in ends else max(end for end in ends if end is not None)
    motion = config.recipe_object().uses_motion
    return Viewing(
        items[0].path, items[0].start, end, config.fps, config.frames, task.rule, config.chunk, motion, task.pictures
    )
