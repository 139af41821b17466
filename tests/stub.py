"""A worker without a model: gives each item a response that follows from its name, slowly enough to be killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from eval.drivers.jobs import Job, blank, failed
from eval.runner.config import RunConfig
from eval.runner.execute import execute
from eval.runner.worker import StreamWorker
from eval.stats.record import Record, digest
from eval.tasks import task_named

ITEMS = 48


@dataclass
class Stub:
    """One of A to D for each item; every seventh item fails, every fifth answer can't be read.

    `log` gets one line for every answer given; `killed` names a file: where it is missing, it is made and the process
    is killed after the first answer to the item `victim`.
    """

    config: RunConfig
    index: int = 0
    pause: float = 0.0
    log: Path | None = None
    victim: str | None = None
    killed: Path | None = None

    def __call__(self, job: Job) -> Iterator[Record]:
        task = task_named(self.config.task, self.config.data)
        for item in job.items:
            time.sleep(self.pause)
            number = int(digest(item.id), 16)
            if number % 7 == 0:
                record = failed(item, self.config.task, self.config.digest, "on purpose")
            else:
                response = "" if number % 5 == 0 else "ABCD"[number % 4]
                mark = task.mark(item, response, [])
                record = replace(
                    blank(item, self.config.task, self.config.digest),
                    response=response,
                    strict=mark.strict,
                    official=mark.official,
                    score=mark.score,
                    official_score=mark.official_score,
                )
            if self.log is not None:
                with self.log.open("a") as log:
                    log.write(item.id + "\n")
            yield record
            if item.id == self.victim and self.killed is not None:
                die_once(self.killed)


@dataclass
class Mortal:
    """The real worker, whose process is killed once, after its first answer to the item `victim`."""

    config: RunConfig
    victim: str
    killed: Path
    index: int = 0

    def __call__(self, job: Job) -> Iterator[Record]:
        if not hasattr(self, "_worker"):
            self._worker = StreamWorker(self.config, self.index)
        for record in self._worker(job):
            yield record
            if record.item == self.victim:
                die_once(self.killed)


def die_once(killed: Path) -> None:
    """Kill this process, unless the file says that it was done before."""
    if not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def config(data: Path, out: Path, **more: Any) -> RunConfig:
    """Settings of a run over `ITEMS` questions of a small Video-MME."""
    return RunConfig(task="videomme", data=data, out=out, fps=1, **more)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def written(out: Path) -> list[str]:
    """The items on record, in whole lines; somebody may be writing another."""
    whole = [line for path in out.glob("records*.jsonl") for line in path.read_text().split("\n")[:-1]]
    return [json.loads(line)["item"] for line in whole]


def check(settings: RunConfig, alone: dict[str, object]) -> None:
    """The same summary, every item on record exactly once."""
    assert result(settings.out) == alone
    items = written(settings.out)
    assert len(items) == len(set(items)) == ITEMS


def undisturbed(data: Path, out: Path) -> dict[str, object]:
    """What a single process that nobody disturbs comes to."""
    settings = config(data, out)
    execute(settings, make=partial(Stub, settings))
    return result(out)


def result(out: Path) -> dict[str, object]:
    """A run's summary without what differs from run to run: times and the machine."""
    summary = json.loads((out / "summary.json").read_text())
    return {name: value for name, value in summary.items() if name not in ("header", "time", "cost")}
