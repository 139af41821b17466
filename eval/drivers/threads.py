"""Several jobs at once on one model: a thread for each, whose streams the engine computes together.

Knows threads and a queue of records. Refuses to know models; workers say how they share one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from threading import Event, Thread
from typing import Protocol

from ..stats.record import Record
from .jobs import Job, MakeWorker, Worker


class Sharing(Worker, Protocol):
    """A worker that others can stand beside."""

    def twin(self) -> Sharing:
        """Another one with the same model."""


def threads(jobs: Sequence[Job], make: MakeWorker, lanes: int) -> Iterator[Record]:
    """Carry jobs out in this process, up to so many at once.

    Parameters
    ----------
    jobs : sequence of Job
    make : callable
        Makes a `Sharing` worker.
    lanes : int

    Raises
    ------
    Exception
        What a worker raised first; the others end after the records that they are at.
    """
    waiting, over = deque(jobs), Event()
    records: SimpleQueue[Record | BaseException | None] = SimpleQueue()

    def work(worker: Worker) -> None:
        try:
            while not over.is_set():
                try:
                    job = waiting.popleft()
                except IndexError:
                    break
                for record in worker(job):
                    records.put(record)
                    if over.is_set():
                        break
            records.put(None)
        except BaseException as error:
            records.put(error)

    first: Sharing = make(0)  # type: ignore[assignment]
    workers = [first, *(first.twin() for _ in range(min(lanes, len(jobs)) - 1))]
    running = [Thread(target=work, args=(worker,), daemon=True) for worker in workers]
    try:
        for thread in running:
            thread.start()
        left = len(running)
        while left:
            record = records.get()
            if isinstance(record, BaseException):
                raise record
            if record is None:
                left -= 1
            else:
                yield record
    finally:
        over.set()
        for thread in running:
            thread.join()
