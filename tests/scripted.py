"""Runs of the runner's own worker in which real streams watch and remember, and say what a test tells them to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import pdrop_video as pv
from eval.runner import worker
from eval.runner.config import RunConfig
from eval.runner.execute import execute
from eval.runner.metered import Metered
from eval.runner.worker import StreamWorker
from eval.stats.record import Record, read_records

Words = Callable[[str, float], str]
"""From a question's text and the last second watched to the answer."""


@dataclass
class Scripted:
    """A stream that watches and remembers as it does, but says what it is told."""

    stream: pv.VideoStream
    words: Words

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def fork(self) -> Scripted:
        return Scripted(self.stream.fork(), self.words)

    def ask(self, question: str, max_new_tokens: int, **more: Any) -> pv.Answer:
        answer = self.stream.ask(question, 1, **more)
        return replace(answer, text=self.words(question, answer.seconds[1]))


class ScriptedWorker(StreamWorker):
    """The runner's own worker with scripted streams."""

    def __init__(self, words: Words, config: RunConfig, index: int = 0) -> None:
        self._words = words
        super().__init__(config, index)

    def _open(self, *arguments: Any) -> Metered:
        metered = super()._open(*arguments)
        return replace(metered, stream=Scripted(metered.stream, self._words))  # type: ignore[arg-type]


def ran(task: str, data: Path, out: Path, words: Words, **more: Any) -> tuple[dict[str, Any], dict[str, Record]]:
    """The summary of a run at one frame a second, and its records by item."""
    sampling = {} if "frames" in more else {"fps": 1.0}
    config = RunConfig(task=task, data=data, out=out, strict=True, device="cpu", **sampling, **more)
    summary = execute(config, make=partial(ScriptedWorker, words, config))
    return summary, {record.item: record for record in read_records(out).values()}


def means(figures: dict[str, Any]) -> dict[str, float]:
    """Figures without their errors."""
    return {name: figure["mean"] for name, figure in figures.items()}


def always(text: str) -> Words:
    return lambda question, second: text


def watched(records: dict[str, Record]) -> dict[str, tuple[int, float]]:
    return {name: (record.frames, record.at) for name, record in records.items()}


@contextmanager
def one_model() -> Iterator[None]:
    """The built-in model, loaded once for all runs within."""
    lm = pv.load(device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "load_model", lambda config, index: lm)
        yield
