"""Which videos browsers may play: those that a session has open, each under a name that nobody else can guess."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, PlainTextResponse, Response

from .saving import KIND
from .uploads import Uploads

KINDS = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mov": "video/quicktime",
    ".m4v": "video/x-m4v",
    ".ogv": "video/ogg",
}
"""What browsers play, by the ends of files' names."""
_PATIENCE = 4.0
"""Seconds that a browser may come too early: it shows an upload before the session that watches it is opened."""
_HEADERS = {
    "cache-control": "private, no-store",
    "content-security-policy": "sandbox; default-src 'none'; media-src 'self'",
    "x-content-type-options": "nosniff",
}


class Shown:
    """The names, and the answers to those who ask for one.

    Parameters
    ----------
    uploads : Uploads
        An upload's name is its path, which only its sender was told.
    """

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._open: dict[str, tuple[Path, int]] = {}
        self._changing = threading.Lock()

    def show(self, path: Path) -> tuple[str, Callable[[], None]]:
        """Let browsers play a file: its name, and what ends that."""
        path = path.resolve()
        own = path.is_relative_to(self._uploads.folder)
        name = str(path if own else self._uploads.folder / secrets.token_urlsafe(18) / path.name)
        with self._changing:
            self._open[name] = path, self._open.get(name, (path, 0))[1] + 1
        once = [name]
        return name, lambda: self._hide(once.pop()) if once else None

    def _hide(self, name: str) -> None:
        with self._changing:
            path, times = self._open.pop(name)
            if times > 1:
                self._open[name] = path, times - 1

    def find(self, name: str) -> Path | None:
        """The file of a name, if it is shown now."""
        with self._changing:
            path = self._open.get(name, (None, 0))[0]
        if Path(name).suffix == KIND and self._uploads.unopened(Path(name)):
            path = Path(name)  # a stream that was stored for this visitor a moment ago
        return path if path is not None and path.is_file() and path.resolve() == path else None

    async def answer(self, name: str, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request for a name; one for anything else gets the same answer, whether it is there or not."""
        now = asyncio.get_running_loop().time
        over, early = now() + _PATIENCE, Path(name).suffix.lower() in KINDS
        while (path := self.find(name)) is None and early and self._uploads.unopened(Path(name)) and now() < over:
            await asyncio.sleep(0.1)
        answer: Response = PlainTextResponse("There is no such video.", 403)
        if path is not None:
            # parts of a video are asked for one at a time; a list of them makes work
            asked = [(key, value) for key, value in scope["headers"] if key != b"range" or b"," not in value]
            scope = {**scope, "headers": asked}
            kind = KINDS.get(path.suffix.lower())
            how: dict[str, Any] = {"media_type": kind} if kind else {"filename": path.name}
            answer = FileResponse(path, headers=_HEADERS, **how)
        await answer(scope, receive, send)
