"""Download a benchmark: `python -m eval.fetch videomme --data Video-MME`; without a name, what there is.

Says what is downloaded, how large it is and under which licence, asks, downloads what is not there yet, unpacks it into
the layout that the task reads, and says what is missing. Knows the hub. What comes from where stands in
`eval.tasks.sources`.
"""

from __future__ import annotations

import shutil
import sys
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import pdrop_video as pv
from pdrop_video.video.decode import counted

from .runner.doors import clear_errors, encodable, out_folder
from .stats.record import writable
from .tasks import TASKS, task_named
from .tasks.sources import BY_HAND, NOT_STATED, SOURCES, Source, source_of
from .tasks.unpack import unpack

Given = TypeVar("Given")

_out = Console()
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Found:
    """What the hub says of a data set now.

    Attributes
    ----------
    sizes : dict of str to int
        Bytes of each file that is needed.
    licence : str or None
    revision : str
    """

    sizes: dict[str, int]
    licence: str | None
    revision: str


def found(source: Source) -> Found:
    """Ask the hub.

    Raises
    ------
    PDropError
        If it can't be reached, does not have the data set, or has none of the files.
    """
    info = _of_hub(source, lambda: HfApi().dataset_info(source.repo, timeout=_PATIENCE, files_metadata=True))
    sizes = {
        file.rfilename: int(file.size or 0)
        for file in info.siblings or ()
        if any(fnmatch(file.rfilename, pattern) for pattern in source.files)
    }
    if not sizes:
        raise pv.PDropError(
            f"{source.repo} has no {' or '.join(source.files)} on the hub any more; see its page for where they went."
        )
    licence = getattr(info.card_data, "license", None)
    said = licence if licence is None or isinstance(licence, str) else ", ".join(map(str, licence))
    return Found(sizes, said, str(info.sha))


def _of_hub(source: Source, ask: Callable[[], Given]) -> Given:
    """What the hub gives; what goes wrong there is one sentence."""
    page = f"https://huggingface.co/datasets/{source.repo}"
    try:
        return ask()
    except GatedRepoError as error:
        raise pv.PDropError(
            f"{source.repo} asks for its terms to be accepted: do so at {page}, then log in here with `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise pv.PDropError(f"the hub has no data set {source.repo} for you; see {page}.") from error
    except Exception as error:  # its clients raise errors of several libraries: no network, time-outs, a full disk
        why = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise pv.PDropError(
            f"{source.repo} can't be downloaded now ({why}); is there a network? What is there already is kept, and "
            f"the same command goes on. By hand: {page}."
        ) from error


def fetched(task: str, data: Path, agreed: Callable[[], bool]) -> bool:
    """Say what is downloaded, and if it is agreed to, download and unpack it.

    Returns
    -------
    bool
        Whether it was agreed to.

    Raises
    ------
    PDropError
        If it can't be done; the message says what is left to do.
    """
    source = source_of(task)
    _say(f"{task}: the data set {source.repo} of the hub. Licence: {source.licence}. Size: {source.size}.")
    if source.terms:
        _say("Its page asks to accept terms first, with an account of the hub.")
    now = found(source)
    total, there = sum(now.sizes.values()), _there(data, now.sizes)
    _say(
        f"Now: {counted(len(now.sizes), 'file')}, {_size(total)}, of which {_size(there)} are in {data}. Licence by "
        f"its page: {now.licence or NOT_STATED}. Videos belong to their owners: read the licence before you use them."
    )
    _room(data, total - there, source)
    if not agreed():
        return False
    writable(data)
    _of_hub(
        source,
        lambda: snapshot_download(
            source.repo,
            repo_type="dataset",
            revision=now.revision,
            local_dir=data,
            allow_patterns=list(source.files),
        ),
    )
    for address, name in source.more:
        _plain(address, data / name)
    for rule in source.unpack:
        if written := unpack(data, rule):
            _say(f"unpacked {counted(written, 'file')} of {rule.archives} into {data / rule.into}")
    _say(_checked(task, data / source.folder))
    return True


def _there(data: Path, sizes: dict[str, int]) -> int:
    return sum(size for name, size in sizes.items() if (data / name).is_file() and (data / name).stat().st_size == size)


def _room(data: Path, needed: int, source: Source) -> None:
    """Refuse a download that the disk can't take, with what is unpacked of it."""
    folder = next(path for path in (data.absolute(), *data.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    whole = needed * (2 if source.unpack else 1)
    if whole > free:
        raise pv.ConfigError(
            f"about {_size(whole)} are needed in {data}, archives and what is in them, and {_size(free)} are free; "
            "make room or choose another --data."
        )


def _plain(address: str, path: Path) -> None:
    """Download a small file, unless it is there."""
    if path.exists():
        return
    beside = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE) as response, beside.open("wb") as file:
            shutil.copyfileobj(response, file)
    except (OSError, HTTPException) as error:
        raise pv.PDropError(f"{address} can't be downloaded ({error}); the same command goes on.") from error
    beside.replace(path)


def _checked(task: str, data: Path) -> str:
    """Whether the task can read what is there, in a sentence."""
    try:
        items = task_named(task, data).items()
    except pv.PDropError as error:
        return f"The task can't read it yet: {error}"
    paths = {item.path for item in items}
    missing = sorted(path for path in paths if not path.exists())
    said = f"{counted(len(items), 'question')} on {counted(len(paths), 'video')}"
    if not missing:
        return f"{said}, all there: python -m {__package__}.run {task} --data {data} ..."
    return f"{said}; {len(missing)} of the videos are not where the task reads them, for example {missing[0]}."


def _size(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"


def _say(sentence: str) -> None:
    _out.print(escape(sentence), highlight=False, soft_wrap=True)


def listed(tasks: Sequence[str] = tuple(SOURCES)) -> Table:
    """What there is to download, a row a benchmark."""
    table = Table()
    table.add_column("benchmark", no_wrap=True)
    for head in ("data set of the hub", "size", "licence", "terms to accept"):
        table.add_column(head, overflow="fold")
    for name in tasks:
        source: Any = SOURCES[name]
        row = (name, source.repo, source.size, source.licence, "yes" if source.terms else "")
        table.add_row(*map(escape, row))
    return table


def main(
    task: Annotated[str | None, typer.Argument(help="A task of eval.run; left out: a table of all of them.")] = None,
    data: Annotated[Path | None, typer.Option(help="Where it goes; left out: a folder of the task's name.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Begin without asking.")] = False,
) -> None:
    """Say what a benchmark's data are, how large and under which licence, and download them; goes on where it ended."""
    with clear_errors():
        if task is None:
            _out.print(listed())
            for name, how in BY_HAND.items():
                _say(f"{name} is on no hub: {how}.")
            return
        encodable("TASK", task)
        source_of(task)
        if task not in TASKS:
            raise pv.ConfigError(f"there is no task {task!r}; there are {', '.join(TASKS)}.")
        folder = out_folder(Path(task) if data is None else data, "--data")
        if not fetched(task, folder, lambda: yes or _agreed()):
            _say("nothing was downloaded")


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise pv.ConfigError("nothing is downloaded without a yes: give --yes where nobody can be asked.")
    return typer.confirm("Download?")


if __name__ == "__main__":
    typer.run(main)
