"""A WebSocket into a session: frames in, answers and events out, several questions at a time.

In: binary, 8 bytes of a big-endian double (the second) and a JPEG, PNG or WebP; or text, JSON, of "type" "frame"
("image", "seconds"), "ask" ("id", and what `POST .../ask` takes) or "cancel" ("id"). Out: JSON of "type" "watched",
"piece", "answer", "cancelled", "event" or "error".
"""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from ..errors import FrameError
from ..stream.aio import apart
from . import pictures
from .chat import trimmed
from .copies import check_heard, tell
from .door import CLIENT
from .forms import Frame, Question, answer_of, state_of
from .live import how_of
from .refusals import Refusal, said
from .service import Service
from .sessions import Session

_FRAMES = 8
"""Frames that wait; while so many do, nothing more is read."""
_QUESTIONS = 8
"""Questions answered at a time."""


def routes(service: Service) -> APIRouter:
    """The address of WebSockets."""
    router = APIRouter()

    @router.websocket("/v1/streaming/sessions/{session_id}/ws")
    async def connect(socket: WebSocket, session_id: str) -> None:
        try:
            session = await service.sessions.find(session_id, socket.scope[CLIENT])
            check_heard(session, socket)
        except Refusal as error:
            await socket.close(1008, str(error)[:100])
            return
        tell(session, socket.scope)
        await socket.accept()
        with session.use():
            await _Conversation(service, session, socket).run()

    return router


class _Conversation:
    """One client at one session."""

    def __init__(self, service: Service, session: Session, socket: WebSocket) -> None:
        self._service, self._session, self._socket = service, session, socket
        self._frames: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_FRAMES)
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        works = [asyncio.ensure_future(work()) for work in (self._read, self._push, self._listen)]
        try:
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        finally:
            every = [*works, *self._asked.values()]
            for work in every:
                work.cancel()
            await asyncio.wait(every)
        for work in works:
            error = None if work.cancelled() else work.exception()
            if error is not None and not isinstance(error, WebSocketDisconnect):
                raise error
        with suppress(RuntimeError):  # it is closed
            await self._socket.close()

    async def _say(self, kind: str, **data: Any) -> None:
        async with self._sending:
            await self._socket.send_text(json.dumps({"type": kind, **data}))

    async def _complain(self, error: BaseException, **about: Any) -> None:
        await self._say("error", **said(error), **about)

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            self._session.touch()
            try:
                if message.get("bytes") is not None:
                    data = message["bytes"]
                    if len(data) < 9:
                        raise FrameError("a binary message has no picture; expected 8 bytes of seconds, and one.")
                    await self._frames.put((struct.unpack(">d", data[:8])[0], data[8:]))
                else:
                    await self._told(json.loads(message.get("text") or ""))
            except (ValueError, RecursionError) as error:
                known = isinstance(error, FrameError | ValidationError)
                await self._complain(error if known else Refusal("A message is no JSON.", 400, "invalid_request"))
            except Refusal as error:
                await self._complain(error)

    async def _told(self, given: Any) -> None:
        kind = given.pop("type", None) if isinstance(given, dict) else None
        if kind == "frame":
            frame = Frame.model_validate(given)
            await self._frames.put((frame.seconds, await apart(partial(pictures.from_base64, frame.image))))
        elif kind == "ask":
            name = str(given.pop("id", ""))[:64]
            if name in self._asked or len(self._asked) >= _QUESTIONS:
                raise Refusal(
                    f"{len(self._asked)} questions are being answered; wait for one.", 429, "queue_full", "id"
                )
            self._asked[name] = asyncio.ensure_future(self._answer(name, Question.model_validate(given)))
        elif kind == "cancel":
            if (task := self._asked.get(str(given.get("id", ""))[:64])) is not None:
                task.cancel()
        else:
            raise Refusal("A message has no type that is known; expected frame, ask or cancel.", 400, "invalid_request")

    async def _push(self) -> None:
        limits = self._service.settings.limits
        while True:
            second, data = await self._frames.get()
            try:
                picture = await apart(partial(pictures.decoded, data, limits.pixels))
                (pushed,) = await self._session.push(pictures.in_chunks([picture], [second], 1, "frames"))
                state = state_of(self._session)
                more = {"frames": state["frames"], "resume_from_seconds": state["resume_from_seconds"]}
                await self._say("watched", seconds=second, visual_tokens=pushed.visual_tokens, **more)
            except Exception as error:
                await self._complain(error, seconds=second if second == second and abs(second) < 1e300 else None)
                if self._session.stream.closed:
                    return

    async def _answer(self, name: str, asked: Question) -> None:
        try:
            await self._service.bounded("the question", asked.question)
            how = how_of(self._service, asked)
            async with aclosing(self._session.stream.ask(asked.question, **how)) as live:
                async with aclosing(trimmed(live)) as texts:
                    async for text in texts:
                        await self._say("piece", id=name, text=text)
                assert live.answer is not None
                if asked.keep:
                    await self._service.sessions.turn_kept(self._session)
                self._service.metrics.answered(live.answer)
                await self._say("answer", id=name, **answer_of(live.answer))
        except asyncio.CancelledError:
            with suppress(Exception):
                await self._say("cancelled", id=name)
            raise
        except Exception as error:
            with suppress(Exception):
                await self._complain(error, id=name)
        finally:
            del self._asked[name]

    async def _listen(self) -> None:
        async for each in self._session.events.after(self._session.events.last, 15.0):
            if each is None:
                self._session.touch()
            else:
                await self._say("event", id=each[0], event=each[1], **each[2])
