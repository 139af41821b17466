"""One run, or one share of it: what is left is carried out, each record is written down, and the whole is reported.

Knows folders, journals and drivers. Refuses to know models and how a driver works.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout
from rich.console import Console

import pdrop_video as pv
from pdrop_video.cli.fetching import announced
from pdrop_video.common.journal import Journal

from ..drivers import Place
from ..drivers.jobs import Driver, MakeWorker, item_key, jobs_of, pending, serial
from ..stats.record import HEADER, read_header, read_records, writable
from ..stats.summary import summarise
from ..tasks import Item, Task, task_named
from .config import RunConfig
from .header import differences, header_of
from .progress import shown
from .report import markdown
from .worker import StreamWorker

_err = Console(stderr=True)


def execute(
    config: RunConfig, place: Place | None = None, driver: Driver = serial, make: MakeWorker | None = None
) -> dict[str, Any]:
    """Do what is left of a run, or of a share of it.

    Parameters
    ----------
    config : RunConfig
    place : Place, optional
        Which share; by default all of it.
    driver : callable
        How jobs are carried out.
    make : callable, optional
        Makes workers; by default `StreamWorker`.

    Returns
    -------
    dict
        The summary of what is finished so far, which is also written to ``summary.json`` and ``summary.md``.

    Raises
    ------
    ConfigError
        If data are missing, another process works on the same share, or the folder holds another run. A folder becomes
        a run's with its first record, so that a wrong model or setting leaves it free.
    """
    place = place or Place()
    task = task_named(config.task, config.data)
    items = task.items()[: config.limit]
    if not items:
        raise pv.ConfigError(f"{config.data} has no question of {config.task}; was its download cut short?")
    with _alone(config.out, f"{place.index}of{place.count}"):
        coming = announced(config.model if make is None else None, revision=config.revision)
        header = _header(config, header_of(config, task.note))
        jobs = jobs_of(items, place.shard)
        earlier = read_records(config.out)
        left = pending(jobs, config.digest, earlier, config.retry)
        if left:
            _check(config, task, [item for job in left for item in job.items])
            known = [earlier[key] for key in _keys(config, [i for job in jobs for i in job.items]) if key in earlier]
            coming.fetch()  # once, before workers want it all at the same time
            todo = sum(len(job.items) for job in left)
            records = driver(left, make or partial(_worker, config, place.local))
            counted = shown(records, todo, known, f"{config.task} {place}", _err)
            if (first := next(counted, None)) is not None:  # the model is loaded, and suits the settings
                header = _claim(config, header)
                with Journal(config.out / f"records-{uuid4().hex[:12]}.jsonl") as journal:
                    for record in chain((first,), counted):
                        journal.append(record.to_json())
    return report(config, task, items, header)


def report(config: RunConfig, task: Task, items: Sequence[Item], header: dict[str, Any]) -> dict[str, Any]:
    """Summarise what is finished, by whichever share, and write it down with the official files."""
    with FileLock(config.out / ".report.lock"):  # shares that end together: the last one sees everything
        everything = read_records(config.out)
        records = [everything[key] for key in _keys(config, items) if key in everything]
        summary = summarise(header, records, task.formula(), len(items))
        write(config.out / "summary.json", json.dumps(summary, ensure_ascii=False, indent=1) + "\n")
        write(config.out / "summary.md", markdown(summary))
        task.outputs(records, config.out)
    return summary


def write(path: Path, text: str) -> None:
    """Write a file in one step: whoever reads it sees the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _worker(config: RunConfig, first: int, index: int) -> StreamWorker:
    return StreamWorker(config, first + index)


def _keys(config: RunConfig, items: Sequence[Item]) -> list[str]:
    return [item_key(config.digest, item) for item in items]


@contextmanager
def _alone(out: Path, share: str) -> Iterator[None]:
    """Hold a share's lock, which the system frees when the process ends, however it ends."""
    try:
        lock = FileLock(writable(out) / f".{share}.lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise pv.ConfigError(
            f"another process is at work on share {share} of {out}; wait for it, or share the work out with --shard."
        ) from error
    except OSError as error:
        raise pv.ConfigError(f"{out} can't be written ({error.strerror}); choose another --out.") from error
    try:
        yield
    finally:
        lock.release()


def _claim(config: RunConfig, header: dict[str, Any]) -> dict[str, Any]:
    """Make the folder this run's, now that it has something to write, unless it is already."""
    with FileLock(config.out / ".report.lock"):  # shares that begin together
        header = _header(config, header)
        write(config.out / HEADER, json.dumps(header, ensure_ascii=False, indent=1) + "\n")
    return header


def _header(config: RunConfig, header: dict[str, Any]) -> dict[str, Any]:
    """The run's header: the one that is there, or else the new one.

    Raises
    ------
    ConfigError
        If there is one of another configuration; the message names the differences.
    """
    path = config.out / HEADER
    if path.exists():
        old = read_header(path)
        if old["config_digest"] != config.digest:
            raise pv.ConfigError(
                f"{config.out} holds a run with other settings ({'; '.join(differences(old, header))}); choose another "
                "--out, or the same settings to go on."
            )
        return old
    return header


def _check(config: RunConfig, task: Task, items: Sequence[Item]) -> None:
    """Say now what would otherwise be said once an item."""
    unlike = [item for item in items if config.answer == "likelihood" and not task.ask(item, ()).choices]
    if len(unlike) == len(items):
        raise pv.ConfigError(f"{config.task} asks open questions, without options to compare; use --answer generate.")
    if unlike:
        _warn(f"{len(unlike)} of {len(items)} questions are open, without options to compare: they will be errors.")
    paths = {item.path for item in items}
    missing = sorted(path for path in paths if not path.exists())
    if len(missing) == len(paths):
        raise pv.ConfigError(f"none of the {len(paths)} videos is there, for example {missing[0]}; see --data.")
    if missing:
        _warn(
            f"{len(missing)} of {len(paths)} videos are missing, for example {missing[0]}: their items will be errors."
        )


def _warn(text: str) -> None:
    _err.print(text, soft_wrap=True, highlight=False, markup=False)
