"""Archives as benchmarks are handed out, unpacked into the layout that the tasks read.

What is there already, at its full length, is not written again; a file appears whole or not at all. Knows zip and tar
files, whole or cut into parts. Refuses to know where they came from.
"""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

import pdrop_video as pv
from pdrop_video.common.checks import shown

from .files import VIDEO_SUFFIXES

Place: TypeAlias = Callable[[str, PurePosixPath], "PurePosixPath | None"]
"""Where a file goes, given its archive's name without endings and its path there; None for nowhere."""


def as_packed(_: str, path: PurePosixPath) -> PurePosixPath | None:
    """Where the archive has it."""
    return path


def by_name(_: str, path: PurePosixPath) -> PurePosixPath | None:
    """Videos and subtitles by their names alone, whatever folders the archive has."""
    wanted = path.suffix in (*VIDEO_SUFFIXES, ".srt", ".json", ".jsonl", ".vtt")
    return PurePosixPath(path.name) if wanted else None


@dataclass(frozen=True, slots=True)
class Unpack:
    """What is unpacked, and where to.

    Attributes
    ----------
    archives : str
        A pattern of paths in the data's folder.
    into : str
        A folder there.
    place : callable
    joined : bool
        The files are parts of one archive, in the order of their names.
    """

    archives: str
    into: str = "."
    place: Place = as_packed
    joined: bool = False


def unpack(data: Path, rule: Unpack) -> int:
    """Unpack what a rule says; returns how many files were written.

    Raises
    ------
    ConfigError
        If an archive is damaged, or names a place outside its folder.
    """
    found = sorted(path for path in data.glob(rule.archives) if path.is_file())
    if not found:
        return 0
    return sum(
        _unpacked(parts, data / rule.into, rule.place) for parts in ([found] if rule.joined else [[f] for f in found])
    )


def _unpacked(parts: Sequence[Path], into: Path, place: Place) -> int:
    written, stem = 0, parts[0].name.split(".")[0]
    try:
        for name, size, open_it in _members(parts):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name:
                raise pv.ConfigError(
                    f"{parts[0]} names {shown(name)}, outside of its folder; nothing of it is unpacked."
                )
            target = None if "__MACOSX" in path.parts else place(stem, path)
            if target is None or ((to := into / target).is_file() and to.stat().st_size == size):
                continue
            to.parent.mkdir(parents=True, exist_ok=True)
            beside = to.with_name(f".{to.name}.part")
            with open_it() as source, beside.open("wb") as file:
                shutil.copyfileobj(source, file, 2**20)
            beside.replace(to)
            written += 1
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise pv.ConfigError(f"{parts[0]} is damaged ({error}); remove it and fetch again.") from error
    except OSError as error:
        raise pv.ConfigError(
            f"{into} can't be written ({error.strerror or error}); make room and fetch again."
        ) from error
    return written


def _members(parts: Sequence[Path]) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    """Name, length and content of each file; of a tar's in the order in which it has them, each to be read at once."""
    if parts[0].suffix == ".zip":
        with zipfile.ZipFile(parts[0]) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield info.filename, info.file_size, lambda info=info: archive.open(info)  # type: ignore[misc]
        return
    with _Joined(parts) as stream, tarfile.open(fileobj=io.BufferedReader(stream, 2**20), mode="r|*") as tar:
        for member in tar:
            if member.isfile():
                yield member.name, member.size, lambda member=member: _of(tar, member)  # type: ignore[misc]


def _of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None  # it is a file
    return content


class _Joined(io.RawIOBase):
    """Files read as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = chain.from_iterable((path.open("rb"),) for path in paths)
        self._file: IO[bytes] | None = next(self._files, None)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while self._file is not None:
            data = self._file.read(len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
            self._file.close()
            self._file = next(self._files, None)
        return 0

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()
