"""Sessions over HTTP: open, feed, ask, listen, save, fork and end them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from starlette.datastructures import UploadFile

from ..stream import Answer, AsyncVideoStream
from ..stream.aio import apart
from ..video import FrameChunk
from . import pictures
from .chat import trimmed
from .copies import check_heard, chosen_name, tell
from .door import CLIENT
from .forms import (
    EVENTS,
    MOST_WATCHES,
    PICTURES,
    AnswerState,
    FramesWatched,
    NewFrames,
    NewSession,
    NewSource,
    NoteList,
    Proactive,
    Question,
    Saved,
    SessionState,
    answer_of,
    state_of,
)
from .refusals import RESPONSES, Refusal
from .sending import HEARTBEAT, ServerSent, attended, event, told
from .service import Service
from .sessions import Session

_BEAT = 15.0
"""Seconds between signs of life where nothing happens."""


def how_of(service: Service, asked: Question) -> dict[str, Any]:
    """Arguments of `AsyncVideoStream.ask`."""
    how = service.asked_with(asked)
    return {**how, "keep": asked.keep, "answer_prefix": asked.answer_prefix, "retrieve": asked.retrieve}


def routes(service: Service) -> APIRouter:
    """The addresses of sessions."""
    router = APIRouter(prefix="/v1/streaming/sessions", tags=["sessions"], responses=RESPONSES)
    sessions, limits = service.sessions, service.settings.limits

    async def mine(name: str, request: Request, *, to_use: bool = True) -> Session:
        session = await sessions.find(name, request.scope[CLIENT])
        tell(session, request.scope)
        if to_use:
            check_heard(session, request)
        return session

    async def opened(owner: str, asked: NewSession, name: str | None) -> Session:
        with sessions.seat(owner):
            if asked.resume is not None:
                if asked.recipe is not None or asked.system is not None or asked.standing_question is not None:
                    raise Refusal("A saved session goes on as it was; give resume without recipe and prompts.", 400)
                stream = await sessions.resumed(asked.resume, owner)
            else:
                if asked.standing_question is not None:
                    await service.bounded("the standing question", asked.standing_question)
                recipe = await apart(partial(service.recipe_of, asked.recipe))
                stream = await service.open(recipe, asked.system, asked.standing_question)
            return await looking(stream, owner, asked, name)

    async def looking(stream: AsyncVideoStream, owner: str, asked: Proactive, name: str | None) -> Session:
        """A session of a stream, with what it shall do without being asked."""
        try:
            if len(stream.watches) + len(asked.standing_questions) > MOST_WATCHES:
                raise Refusal(
                    f"{len(asked.standing_questions)} standing questions came beside {len(stream.watches)} that the "
                    f"session has; expected {MOST_WATCHES} at most.",
                    400,
                    "too_many",
                )
            for each in asked.standing_questions:
                for text in (each.question, *each.options):
                    await service.bounded("a standing question, or one of its options,", text)
                await stream.watch_for(**each.model_dump())
            if asked.notes is not None:
                if asked.notes.question is not None:
                    await service.bounded("the question of the notes", asked.notes.question)
                await stream.summarise(**asked.notes.model_dump(exclude_none=True))
        except BaseException:
            await asyncio.shield(stream.close())
            raise
        return await sessions.add(stream, owner, name)

    @router.post("", status_code=201, response_model=SessionState)
    async def open_session(request: Request, asked: NewSession | None = None) -> Any:
        """Open a session, or go on with a saved one."""
        work = opened(request.scope[CLIENT], asked or NewSession(), chosen_name(request))
        session = await attended(request, work, limits.deadline)
        tell(session, request.scope)
        return state_of(session)

    @router.get("/{session_id}", response_model=SessionState)
    async def get_session(session_id: str, request: Request) -> Any:
        """Tell how a session goes."""
        return state_of(await mine(session_id, request, to_use=False))

    @router.delete("/{session_id}", status_code=204, response_model=None)
    async def end_session(session_id: str, request: Request) -> None:
        """End a session and free what it remembers."""
        await sessions.remove(await mine(session_id, request, to_use=False))

    @router.post("/{session_id}/frames", response_model=FramesWatched, openapi_extra=PICTURES)
    async def push_frames(session_id: str, request: Request) -> Any:
        """Watch some pictures; the answer comes when they were watched."""
        session = await mine(session_id, request)
        with session.use():
            chunks = await _chunks(service, request)
            # frames that came are watched to their end, whether the client waits for it or not
            done = await session.push(chunks)
            return {
                "frames": sum(each.frames for each in done),
                "visual_tokens": sum(each.visual_tokens for each in done),
                "kept": sum(each.kept[-1] for each in done),
                "session": state_of(session),
            }

    @router.post("/{session_id}/source", status_code=202, response_model=SessionState)
    async def begin_source(session_id: str, asked: NewSource, request: Request) -> Any:
        """Let the server watch a video or a camera by itself; an event says when that ends."""
        session = await mine(session_id, request)
        source = await apart(partial(service.guard.source, asked.url, live=asked.live))
        motion = session.stream.stream.uses_motion
        opening = service.opening(source, motion, fps=asked.fps, start=asked.start, end=asked.end)
        session.begin(opening, source.name)
        return state_of(session)

    @router.delete("/{session_id}/source", response_model=SessionState)
    async def stop_source(session_id: str, request: Request) -> Any:
        """Stop watching the source."""
        session = await mine(session_id, request)
        await session.stop()
        return state_of(session)

    @router.post("/{session_id}/ask", response_model=AnswerState, responses=EVENTS)
    async def ask(session_id: str, asked: Question, request: Request) -> Any:
        """Ask about what was watched so far; with `stream` in pieces, and then the whole answer."""
        session = await mine(session_id, request)
        await service.bounded("the question", asked.question)
        if asked.stream:
            return ServerSent(told(_pieces(service, session, asked), limits.deadline))
        with session.use():
            work = session.stream.ask(asked.question, **how_of(service, asked))
            answer = await attended(request, _awaited(work), limits.deadline)
            if asked.keep:
                await sessions.turn_kept(session)
        service.metrics.answered(answer)
        return answer_of(answer)

    @router.get("/{session_id}/events", responses=EVENTS, response_model=None)
    async def listen(
        session_id: str, request: Request, last_event_id: Annotated[str | None, Header()] = None
    ) -> ServerSent:
        """Hear what standing questions found, and how sources end; Last-Event-ID goes on after a break."""
        session = await mine(session_id, request, to_use=False)
        after = int(last_event_id) if last_event_id is not None and last_event_id.isdecimal() else 0
        return ServerSent(_events(session, after))

    @router.get("/{session_id}/notes", response_model=NoteList)
    async def notes(session_id: str, request: Request) -> Any:
        """List the newest notes."""
        session = await mine(session_id, request)
        return {"object": "list", "data": [asdict(note) for note in session.stream.notes]}

    @router.post("/{session_id}/save", response_model=Saved)
    async def save(session_id: str, request: Request) -> Any:
        """Write all that a session remembers to a file of the server's."""
        session = await mine(session_id, request)
        with session.use():
            name, size = await sessions.save(session)
        return {"saved": name, "bytes": size}

    @router.post("/{session_id}/fork", status_code=201, response_model=SessionState)
    async def fork(session_id: str, request: Request, asked: Proactive | None = None) -> Any:
        """Open a second session with the same past, and standing questions and notes of its own."""
        session = await mine(session_id, request)
        with session.use(), sessions.seat(session.owner):
            return state_of(
                await looking(await session.stream.fork(), session.owner, asked or Proactive(), chosen_name(request))
            )

    return router


async def _awaited(work: Any) -> Answer:
    answer: Answer = await work
    return answer


async def _pieces(service: Service, session: Session, asked: Question) -> AsyncGenerator[bytes, None]:
    with session.use():
        async with aclosing(session.stream.ask(asked.question, **how_of(service, asked))) as live:
            async with aclosing(trimmed(live)) as texts:
                async for text in texts:
                    yield event({"object": "streaming.piece", "text": text})
            assert live.answer is not None
            if asked.keep:
                await service.sessions.turn_kept(session)
            service.metrics.answered(live.answer)
            yield event(answer_of(live.answer))
        yield event("[DONE]")


async def _events(session: Session, after: int) -> AsyncGenerator[bytes, None]:
    with session.use():
        yield HEARTBEAT  # so that the client knows that it is heard
        async for each in session.events.after(after, _BEAT):
            yield HEARTBEAT if each is None else event(each[2], name=each[1], number=each[0])


async def _chunks(service: Service, request: Request) -> list[FrameChunk]:
    """The pictures of a request, as frames."""
    limits = service.settings.limits
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        given = await apart(partial(NewFrames.model_validate_json, await request.body()))
        images: list[bytes | str] = [each.image for each in given.frames]
        seconds = [each.seconds for each in given.frames]
    elif kind == "multipart/form-data":
        form = await request.form(max_files=limits.frames, max_fields=limits.frames)
        files = [each for each in form.getlist("frames") if isinstance(each, UploadFile)]
        images = [await each.read() for each in files]
        try:
            seconds = [float(str(each)) for each in form.getlist("seconds")]
        except ValueError:
            raise Refusal("One of the seconds is no number.", 400, "invalid_value", "seconds") from None
    else:
        raise Refusal("Frames come as application/json or multipart/form-data.", 415, "unsupported_media_type")
    if not images or len(images) != len(seconds):
        raise Refusal(
            f"{len(images)} frames came with {len(seconds)} seconds; expected one for each.", 400, "invalid_value"
        )
    if len(images) > limits.frames:
        raise Refusal(f"{len(images)} frames came; expected {limits.frames} at most.", 413, "too_many")

    def read() -> list[FrameChunk]:
        data = [each if isinstance(each, bytes) else pictures.from_base64(each) for each in images]
        frames = [pictures.decoded(each, limits.pixels) for each in data]
        return list(pictures.in_chunks(frames, seconds, service.settings.chunk, "frames"))

    return await apart(read)
