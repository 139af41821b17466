"""What every driver shares: what is to be done, in jobs of one video each, and what is done already.

Work items go to a worker, which gives one record for each; records go to a journal. Whoever carries this out, in one
process or on many machines, needs nothing else. Refuses to know models, videos and schedulers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from ..stats.record import Record, digest
from ..tasks.base import Item


@dataclass(frozen=True, slots=True)
class Job:
    """The items of one video, which share its decoding and, where the method allows it, its ingestion."""

    video: str
    items: tuple[Item, ...]
    deaths: int = 0

    def without(self, done: Iterable[str]) -> Job:
        """The same job without the items of these names."""
        names = set(done)
        return replace(self, items=tuple(item for item in self.items if item.id not in names))


ATTEMPTS = 3
"""So often an item is begun before it is given up: one that kills its worker each time must not do so for ever."""


def after_death(job: Job, done: Iterable[str]) -> tuple[list[Job], Job | None]:
    """What to do with a job whose worker died: jobs to do again, and what is given up.

    Before they are given up, its items get a last chance each by itself, so that only the guilty one is lost.
    """
    left = replace(job.without(done), deaths=job.deaths + 1)
    if not left.items:
        return [], None
    if left.deaths < ATTEMPTS:
        return [left], None
    if len(left.items) > 1:
        return [Job(job.video, (item,), ATTEMPTS - 1) for item in left.items], None
    return [], left


class Worker(Protocol):
    """Does jobs: one record an item, each as soon as it is finished."""

    def __call__(self, job: Job) -> Iterator[Record]:
        """Give the records of a job's items, errors of single items among them."""


MakeWorker: TypeAlias = Callable[[int], Worker]
"""Makes the worker of a process, given its number on the machine; must be picklable."""

Driver: TypeAlias = Callable[[Sequence[Job], MakeWorker], Iterator[Record]]
"""Carries jobs out and gives the records in the order in which they are finished; its consumer writes them down."""


def item_key(config: str, item: Item) -> str:
    """What a finished item is known by: the configuration's digest, and all that the item's answer depends on."""
    return digest(config, item.id, item.video, item.question, item.options, item.start, item.end, item.first)


def jobs_of(items: Sequence[Item], shard: tuple[int, int] = (0, 1)) -> list[Job]:
    """Items by video, in the order in which videos first come, and of these every n-th from the i-th on.

    Parameters
    ----------
    items : sequence of Item
        All of them, finished or not: what belongs to a shard must not depend on what is done already.
    shard : (i, n)
        From (0, 1), which is everything.
    """
    videos: dict[str, list[Item]] = {}
    for item in items:
        videos.setdefault(item.video, []).append(item)
    index, count = shard
    return [Job(video, tuple(of)) for video, of in list(videos.items())[index::count]]


def pending(jobs: Sequence[Job], config: str, records: Mapping[str, Record], retry: bool = False) -> list[Job]:
    """What is left to do.

    Parameters
    ----------
    jobs : sequence of Job
    config : str
        The configuration's digest.
    records : mapping
        Finished items by their keys.
    retry : bool
        Count an item with an error as unfinished.
    """

    def finished(item: Item) -> bool:
        record = records.get(item_key(config, item))
        return record is not None and not (retry and record.error is not None)

    left = [job.without(item.id for item in job.items if finished(item)) for job in jobs]
    return [job for job in left if job.items]


def failed(item: Item, task: str, config: str, error: str) -> Record:
    """The record of an item that could not be answered: it counts as wrong where there is a truth."""
    score = None if item.answer is None else 0.0
    return replace(blank(item, task, config), error=error, score=score, official_score=score)


def blank(item: Item, task: str, config: str) -> Record:
    """The part of a record that is known beforehand."""
    return Record(
        key=item_key(config, item),
        item=item.id,
        video=item.video,
        task=task,
        config=config,
        category=dict(item.category),
        question=item.question,
        options=list(item.options),
        answer=item.answer,
    )


def serial(jobs: Sequence[Job], make: MakeWorker) -> Iterator[Record]:
    """The simplest driver: one after the other, in this process."""
    worker = make(0)
    for job in jobs:
        yield from worker(job)
