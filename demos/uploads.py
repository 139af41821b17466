"""The files that visitors sent: each is deleted when no session has a use for it any more."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_PATIENCE = 900.0
"""Seconds after which an upload that was broken off counts as such."""


class Uploads:
    """One server's folder of uploads.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._held: Counter[Path] = Counter()  # the same file, sent twice, is one
        self._changing = threading.Lock()

    def hold(self, path: Path) -> Callable[[], None]:
        """Keep a file until the function that is returned is called; files from elsewhere are no business of this."""
        path = path.resolve()
        if not path.is_relative_to(self.folder):
            return lambda: None
        with self._changing:
            self._held[path] += 1
        once = [path]
        return lambda: self._let_go(once.pop()) if once else None

    def sweep(self) -> None:
        """Delete the beginnings of uploads that were broken off."""
        with suppress(OSError):
            for path in self.folder.iterdir():
                if path.is_file() and time.time() - path.stat().st_mtime > _PATIENCE:
                    path.unlink()

    def _let_go(self, path: Path) -> None:
        with self._changing:
            self._held[path] -= 1
            if self._held[path] > 0:
                return
            del self._held[path]
            with suppress(OSError):  # it may be gone, or still open where open files can't be deleted
                path.unlink()
                path.parent.rmdir()
