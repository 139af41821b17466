"""Several worker processes on this machine, each with a model of its own; a worker that dies is replaced.

The parent hands out jobs and receives records through pipes. Children write nothing, and end when the parent does.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import pdrop_video as pv

from ..stats.record import Record
from .jobs import Job, MakeWorker, after_death


@dataclass(slots=True)
class _Child:
    index: int
    process: Any
    pipe: Connection
    job: Job | None = None
    done: list[str] = field(default_factory=list)


def local(
    jobs: Sequence[Job], make: MakeWorker, workers: int, give_up: Callable[[Job, str], Iterator[Record]]
) -> Iterator[Record]:
    """Carry jobs out in so many processes.

    Parameters
    ----------
    jobs : sequence of Job
    make : callable
        Makes a process's worker.
    workers : int
    give_up : callable
        Gives the records of a job's items whose worker died every time.

    Raises
    ------
    PDropError
        What a worker raised: with its type and text.
    """
    waiting = deque(jobs)
    children = [_begin(index, make) for index in range(min(workers, len(jobs)))]
    try:
        while waiting or any(child.job for child in children):
            for child in children:
                if child.job is None and waiting:
                    child.job, child.done = waiting.popleft(), []
                    _send(child)
            for pipe in wait([child.pipe for child in children if child.job]):
                child = next(child for child in children if child.pipe is pipe)
                try:
                    kind, value = child.pipe.recv()
                except (EOFError, OSError):
                    job, code = _bury(child)
                    again, lost = after_death(job, child.done)
                    waiting.extendleft(reversed(again))
                    if lost is not None:
                        yield from give_up(lost, f"its worker died {lost.deaths} times, the last time {code}")
                    children[children.index(child)] = _begin(child.index, make)
                    continue
                if kind == "record":
                    child.done.append(value.item)
                    yield value
                elif kind == "error":
                    raise value
                else:
                    child.job = None
    finally:
        for child in children:
            child.pipe.close()
            child.process.terminate()
        for child in children:
            child.process.join()


def _context() -> Any:
    """How processes are begun: from a server that has imported everything and started nothing, where there is one.

    A fork of the parent itself would not do: CUDA and threads do not survive it.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # and with it torch and transformers, which take seconds
    return context


def _begin(index: int, make: MakeWorker) -> _Child:
    context = _context()
    mine, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(index, make, theirs), daemon=True, name=f"worker {index}")
    process.start()
    theirs.close()  # so that the pipe ends when the child does
    return _Child(index, process, mine)


def _send(child: _Child) -> None:
    with suppress(OSError):  # where it died, the pipe's end says so next
        child.pipe.send(child.job)


def _bury(child: _Child) -> tuple[Job, str]:
    child.pipe.close()
    child.process.join()
    assert child.job is not None
    code = child.process.exitcode
    return child.job, f"by signal {-code}" if code < 0 else f"with exit code {code}"


def _serve(index: int, make: MakeWorker, pipe: Connection) -> None:
    """A child's life: jobs come, records go, until the pipe ends."""
    try:
        worker = make(index)
        while True:
            for record in worker(pipe.recv()):
                pipe.send(("record", record))
            pipe.send(("done", None))
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        return  # the parent is gone
    except Exception as error:
        known = error if isinstance(error, pv.PDropError) else pv.PDropError(f"{type(error).__name__}: {error}")
        pipe.send(("error", known))
