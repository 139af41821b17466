"""What is kept of a session elsewhere, up to which second, and whether its client knows. Knows headers, and no files.

A client may let go of frames up to `resume-from-seconds`, which every answer of the session carries. If the machine
dies, the session goes on elsewhere from there; nothing is done for the client until it says, in a header of that name,
that it heard so: or frames that are missing would go unnoticed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.requests import HTTPConnection

from ..video import FrameChunk
from .refusals import Refusal

HEADER = "resume-from-seconds"
START = "start"
"""In the header: there is nothing of which a second could be told."""
STICKS = "serve-multiplexed-model-id"
"""The header by which Ray Serve sends a request to where its session is."""
NAME = re.compile(r"[A-Za-z0-9_-]{16,64}")
_SESSION = "pdrop_video.session"


@dataclass(slots=True)
class Copy:
    """Of one session.

    Attributes
    ----------
    second : float or None
        Of the last frame that is in it; None if there is none.
    frames : int
        How many are in it.
    heard : bool
        Whether the client knows from where it goes on; False after what was newer was lost.
    leaving : bool
        Whether the session moves elsewhere.
    writing : asyncio.Lock
        Held by who writes it, or takes it away.
    """

    second: float | None = None
    frames: int = 0
    heard: bool = True
    leaving: bool = False
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def told(self) -> str:
        """The second, as the header has it."""
        return START if self.second is None else repr(self.second)

    def check_later(self, chunk: FrameChunk, seen: tuple[float, float] | None) -> None:
        """Refuse frames that are remembered already.

        Raises
        ------
        Refusal
        """
        if self.leaving:
            raise Refusal("This session moves to another replica; send the request again.", 503, "moving", retry=1)
        if seen is not None and chunk.seconds[0] <= seen[1]:
            raise Refusal(
                f"These frames begin at {chunk.seconds[0]:g} s, but this session remembers frames up to {seen[1]!r} s; "
                "send only what is later than that.",
                409,
                "already_watched",
                "seconds",
            )


class Remembers(Protocol):
    """What has a copy, or None."""

    copy: Copy | None


def check_heard(session: Remembers, connection: HTTPConnection) -> None:
    """Refuse to do anything in a session that lost something until its client knows.

    Raises
    ------
    Refusal
    """
    copy = session.copy
    if copy is None or copy.heard:
        return
    given = connection.headers.get(HEADER) or connection.query_params.get(HEADER.replace("-", "_"))
    if given != copy.told:
        raise Refusal(
            f"This session went on elsewhere and remembers frames up to {copy.told} s; send the header "
            f"'{HEADER}: {copy.told}', and then all frames after that again.",
            409,
            "session_resumed",
            HEADER,
        )
    copy.heard = True


def chosen_name(connection: HTTPConnection) -> str | None:
    """The name that a client chose for a new session, by the header that brings its requests there.

    Raises
    ------
    Refusal
    """
    given = connection.headers.get(STICKS) or connection.headers.get(STICKS.replace("-", "_"))
    if given is not None and not NAME.fullmatch(given):
        raise Refusal(
            f"The header {STICKS} holds no name of a session; expected 16 to 64 letters, digits, '-' or '_'.",
            400,
            "invalid_value",
            STICKS,
        )
    return given


def tell(session: Remembers, scope: MutableMapping[str, Any]) -> None:
    """Let the answer say how far a session is kept."""
    scope[_SESSION] = session


class Telling:
    """Middleware that adds the header to answers, errors included."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Handle a request."""

        async def telling(message: Any) -> None:
            session = scope.get(_SESSION)
            begins = message["type"] in ("http.response.start", "websocket.accept")
            if begins and session is not None and session.copy is not None:
                told = (HEADER.encode(), session.copy.told.encode())
                message = {**message, "headers": [*message.get("headers", ()), told]}
            await send(message)

        await self._app(scope, receive, telling)
