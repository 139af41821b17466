"""How much anybody may send in one request: gradio limits each file, but not how many there are, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException

_OTHER = 2**28
"""Bytes of a request that is no upload: the pictures of one push, with room to spare."""
_AROUND = 2**20
"""Bytes around an upload, so that gradio itself says of a single file that it is too large."""


class Intake:
    """ASGI middleware that reads no request further than to its limit.

    Parameters
    ----------
    app : callable
        What it stands in front of.
    upload : int
        Most bytes of a file to upload.
    other : int
        Most bytes of any other request.
    """

    def __init__(self, app: Any, upload: int, other: int = _OTHER) -> None:
        self._app, self._upload, self._other = app, upload + _AROUND, other

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sends_files = dict(scope["headers"]).get(b"content-type", b"").lower().startswith(b"multipart/")
        most = self._upload if sends_files else self._other
        taken = 0

        async def limited() -> Any:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, f"A request may have {most:,} bytes here; send less at a time.")
            return message

        await self._app(scope, limited, send)
