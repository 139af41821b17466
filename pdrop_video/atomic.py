"""A file replaced whole or not at all, whenever the process dies. Knows files; refuses to know what is in them."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: what a killed process leaves there stays
    fcntl = None  # type: ignore[assignment]


@contextmanager
def replacing(path: Path) -> Iterator[str]:
    """A new file beside `path`, to be filled in the block: then it is forced to disk and takes the place of `path`.

    Whoever is killed in the middle leaves ``.NAME.*.part`` behind, which the next one who replaces `path` removes.

    Parameters
    ----------
    path : Path

    Yields
    ------
    str
        The new file's name. It must be written on in place.

    Raises
    ------
    OSError
        If the folder can't be written.
    """
    _remove_stale(path)
    handle, name = _part(path)
    try:
        yield name
        os.fsync(handle)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    finally:
        os.close(handle)  # until here it is locked
    if hasattr(os, "O_DIRECTORY"):  # the rename itself must reach the disk too
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _part(path: Path) -> tuple[int, str]:
    """A new file, locked for as long as it is open: the lock ends with the process, however that ends."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        _locked(handle, wait=True)
        if os.path.exists(name):
            return handle, name
        os.close(handle)  # someone took it for a stale one before it was locked


def _remove_stale(path: Path) -> None:
    """Remove what killed processes left: it can be locked, since nobody writes it."""
    for name in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError):  # it is gone meanwhile, or somebody else's
            handle = os.open(name, os.O_RDWR)
            try:
                if _locked(handle, wait=False):
                    name.unlink()
            finally:
                os.close(handle)


def _locked(handle: int, *, wait: bool) -> bool:
    """Lock a file; whether that was done. File systems that can't lock say no."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
