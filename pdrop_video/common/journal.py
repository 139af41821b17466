"""An append-only file of JSON lines that survives a crash: each line is there whole, or not at all.

Knows files. Refuses to know what the lines mean.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import ConfigError
from . import checks


class Journal:
    """Appends objects to a file, one line each, and has every line on the disk before the next one is written.

    When `append` returns, the line outlives the process, however that ends. A thread then waits for the disk, which
    takes milliseconds that the caller has better uses for: what a power cut can take is the last line alone.

    One writer a file. A last line that a crash cut short is removed when the file is opened again, so that its object
    counts as never appended.

    Parameters
    ----------
    path : str or path
        Created with its folder if missing.

    Raises
    ------
    ConfigError
        If the file can't be opened for writing.

    Examples
    --------
    >>> with Journal("records.jsonl") as journal:  # doctest: +SKIP
    ...     journal.append({"item": "001-1", "response": "C"})
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(checks.path("path", path))
        if self.path.exists() and not self.path.is_file():
            raise ConfigError(f"{self.path} is no regular file; choose another.")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            raise ConfigError(f"{self.path} can't be written ({error.strerror}); choose another folder.") from error
        self._drop_torn_line()
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="fsync")
        self._syncing: Future[None] | None = None

    def append(self, entry: dict[str, Any]) -> None:
        """Write one object as one line, once the line before is on the disk.

        Raises
        ------
        ConfigError
            If the disk did not take this line or the one before it.
        """
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        self._synced()
        with self._refusals():
            self._file.write(line)
            self._file.flush()
        self._syncing = self._syncer.submit(os.fsync, self._file.fileno())

    def close(self) -> None:
        """Wait for the disk and close the file; a second call does nothing."""
        try:
            self._synced()
        finally:
            self._syncer.shutdown()
            self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _synced(self) -> None:
        """Wait for the line in flight; an error of the disk is raised here."""
        syncing, self._syncing = self._syncing, None
        if syncing is not None:
            with self._refusals():
                syncing.result()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"{self.path} could not be written on ({error.strerror or error}); make room and start again: what was "
                "written before is kept."
            ) from error

    def _drop_torn_line(self) -> None:
        self._file.seek(0)
        whole = self._file.read().rfind(b"\n") + 1
        self._file.truncate(whole)
        self._file.seek(whole)


def read_journal(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Read the objects of a journal, in the order in which they were appended.

    A last line without its end is left out: whoever wrote it was killed in the middle, or is still writing.

    Parameters
    ----------
    path : str or path

    Raises
    ------
    ConfigError
        If a whole line is not a JSON object; the message names file and line.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if not isinstance(entry, dict):
                raise ConfigError(
                    f"line {number} of {path} is not a JSON object: {line[:80]!r}. A crash leaves no such line; was "
                    "the file edited? Remove the line and its item is done again."
                )
            yield entry
