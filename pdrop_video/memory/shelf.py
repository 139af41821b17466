"""A file without a name in which archived keys and values stand: bytes put, read, and their room used again.

Knows bytes and where there is room for them. Refuses to know tokens.
"""

from __future__ import annotations

import os
import tempfile
from bisect import insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any
from weakref import finalize

import torch
from torch import Tensor

from ..errors import StreamError

Span = tuple[int, int]
"""From a byte of the file up to another."""


class Shelf:
    """One open file for an archive, its forks and all that they ever hold: nothing that a system counts grows.

    It is gone when nobody holds it, also after a crash. What was given back is used before the file grows, so it is
    never longer than what was once held at a time.

    Parameters
    ----------
    folder : str

    Raises
    ------
    StreamError
        If the folder can't be written, or its disk is full.
    """

    def __init__(self, folder: str) -> None:
        self.folder, self._process = folder, os.getpid()
        self._lock = Lock()
        self._free: list[Span] = []  # ascending, none next to another
        self._returned: deque[Span] = deque()  # by finalisers, which may run in any thread in the middle of anything
        self._length = 0
        try:
            self._file: Any = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - stays open
        except OSError as error:
            raise self._refusal(0, error) from error
        finalize(self, self._file.close)

    def put(self, tensors: Sequence[Tensor]) -> list[Filed]:
        """Write tensors of any device behind one another; their room comes back when none of them is held any more."""
        self._check()
        size = sum(tensor.nbytes for tensor in tensors)
        with self._lock:
            try:
                run = Run(self, self._room(size))
                filed, start = [], 0
                for tensor in tensors:
                    content = _bytes(tensor.cpu().contiguous())
                    for (first, last), part in run.split(start, content):
                        self._file.seek(first)
                        while first < last:
                            first += self._file.write(part[first - last :])
                    filed.append(Filed(run, start, tuple(tensor.shape), tensor.dtype))
                    start += tensor.nbytes
            except OSError as error:
                raise self._refusal(size, error) from error
        return filed

    def read(self, run: Run, start: int, content: memoryview) -> None:
        """Fill `content` with what stands in a run from its byte `start` on."""
        self._check()
        with self._lock:
            try:
                for (first, last), part in run.split(start, content):
                    self._file.seek(first)
                    while first < last:
                        read = self._file.readinto(part[first - last :])
                        if not read:
                            raise OSError(f"the file ends at byte {first}")
                        first += read
            except OSError as error:
                raise StreamError(f"the archive in {self.folder!r} can't be read: {error}") from error

    def give_back(self, spans: Sequence[Span]) -> None:
        """Let others have this room; never waits."""
        self._returned.extend(spans)

    def _room(self, size: int) -> list[Span]:
        """Free spans of so many bytes together, at best one; the file grows by what is missing."""
        if not size:
            return []
        while self._returned:
            insort(self._free, self._returned.popleft())
        free: list[Span] = []
        for first, last in self._free:
            if free and free[-1][1] == first:
                first = free.pop()[0]
            free.append((first, last))
        wanted, spans = size, []
        roomy = next((span for span in free if span[1] - span[0] >= size), None)
        for span in list(free) if roomy is None else [roomy]:
            first, last = span[0], min(span[1], span[0] + wanted)
            place = free.index(span)
            free[place : place + 1] = [(last, span[1])] if last < span[1] else []
            spans.append((first, last))
            wanted -= last - first
            if not wanted:
                break
        if wanted:
            if hasattr(os, "posix_fallocate"):  # a full disk must be an error before anything is written
                os.posix_fallocate(self._file.fileno(), self._length, wanted)
            spans.append((self._length, self._length + wanted))
            self._length += wanted
        self._free = free  # only now: what was refused has taken nothing
        return spans

    def _check(self) -> None:
        if os.getpid() != self._process:
            raise StreamError(
                "this stream's archive is in a file of the process that opened the stream, and both would write to it; "
                "save the stream there and resume it here."
            )

    def _refusal(self, size: int, error: OSError) -> StreamError:
        return StreamError(
            f"{size} bytes can't be archived in {self.folder!r}: {error}; choose a folder with more room, or a smaller "
            "archive. The stream is as it was before this push."
        )


class Run:
    """Room in a file for what was put at one time; given back when nobody holds it."""

    __slots__ = ("shelf", "spans")

    def __init__(self, shelf: Shelf, spans: list[Span]) -> None:
        self.shelf, self.spans = shelf, spans

    def __del__(self) -> None:
        self.shelf.give_back(self.spans)

    def split(self, start: int, content: memoryview) -> Iterator[tuple[Span, memoryview]]:
        """Where the parts of `content`, which stands in the run from its byte `start` on, are in the file."""
        done = 0
        for first, last in self.spans:
            length = last - first
            if start < length and done < len(content):
                taken = min(length - start, len(content) - done)
                yield (first + start, first + start + taken), content[done : done + taken]
                start, done = 0, done + taken
            else:
                start = max(start - length, 0)


@dataclass(frozen=True, slots=True)
class Filed:
    """A tensor in a file.

    Attributes
    ----------
    run : Run
    start : int
        Its first byte in there.
    shape : tuple of int
    dtype : torch.dtype
    """

    run: Run
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def read(self) -> Tensor:
        """The tensor, on the host."""
        tensor = torch.empty(self.shape, dtype=self.dtype, device="cpu")
        self.run.shelf.read(self.run, self.start, _bytes(tensor))
        return tensor

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the host."""
    return tensor.flatten().view(torch.uint8).numpy().data
