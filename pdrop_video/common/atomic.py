"""A file replaced whole or not at all, whenever the process dies. Knows files; refuses to know what is in them."""

from __future__ import annotations

import errno
import glob
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: what a killed process leaves there stays
    fcntl = None  # type: ignore[assignment]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """A new file beside `path`, to be filled in the block: then it is forced to disk and takes the place of `path`.

    A link stays one: the file that it leads to is replaced. The new file has the old one's mode, and its owner and
    group where this process may give them; without an old one, what the umask leaves of 0666. Whoever is killed in the
    middle leaves ``.NAME.*.part`` behind, which the next one who replaces `path` removes.

    Parameters
    ----------
    path : str or path

    Yields
    ------
    str
        The new file's name. It must be written on in place.

    Raises
    ------
    OSError
        If the folder can't be written, or if what stands at `path` is no regular file: a folder, a device, a pipe.
    """
    target, old = _target(path)
    _remove_stale(target)
    handle, name = _part(target, 0o666 if old is None else 0o600)  # nobody reads it before it is as private as the old
    try:
        yield name
        if old is not None:
            _like(name, old)
        os.fsync(handle)
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    finally:
        os.close(handle)  # until here it is locked
    if hasattr(os, "O_DIRECTORY"):  # the rename itself must reach the disk too
        folder = os.open(target.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Whether `replacing` could begin now; nothing is left behind. To be called before work whose fruit goes there.

    Raises
    ------
    OSError
        As for `replacing`.
    """
    target, _ = _target(path)
    handle, name = _part(target, 0o600)
    os.close(handle)
    os.unlink(name)


def _target(path: str | os.PathLike[str]) -> tuple[Path, os.stat_result | None]:
    """The file that a path leads to, through all links, and what is known of it if it is there."""
    target = Path(os.path.realpath(path))
    try:
        old = os.stat(path)
    except FileNotFoundError:
        return target, None
    if not stat.S_ISREG(old.st_mode):
        raise OSError(errno.EINVAL, "what stands there is no regular file and would be lost", os.fspath(path))
    if not (target.exists() and os.path.samestat(old, target.stat())):  # /dev/fd/N of a file that has no name any more
        raise OSError(errno.ENOENT, "the file there has no name that could be replaced", os.fspath(path))
    return target, old


def _like(name: str, old: os.stat_result) -> None:
    """Give a new file the owner, group and mode of the old one, as far as this process may."""
    if hasattr(os, "chown"):
        for owner in ((-1, old.st_gid), (old.st_uid, -1)):
            with suppress(OSError):  # not ours to give away
                os.chown(name, *owner)
    os.chmod(name, stat.S_IMODE(old.st_mode))


def _part(path: Path, mode: int) -> tuple[int, str]:
    """A new file, locked for as long as it is open: the lock ends with the process, however that ends."""
    while True:
        name = os.path.join(path.parent, f".{path.name}.{secrets.token_hex(8)}.part")
        try:
            handle = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), mode)
        except FileExistsError:
            continue
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
