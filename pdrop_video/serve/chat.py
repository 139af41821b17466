"""Chat completions: a conversation about videos, its beginning remembered from the last time it was seen."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter, Request

from ..errors import ModelError
from ..guard import Source
from ..stream import Answer, AsyncAnswer, AsyncVideoStream, TokenLogprob
from ..stream.aio import apart
from . import pictures
from .conversation import Conversation, Shown, Turn, conversation_of
from .media import Media, Wanted
from .prefixes import Prefix
from .refusals import RESPONSES, Refusal
from .sending import ServerSent, attended, event, told
from .service import Service
from .watching import watch
from .wire import ChatAnswer, ChatRequest, ModelCard, ModelList

_APART = 1.0
"""Seconds between two pictures of one message, of which no times are known."""


@dataclass(frozen=True, slots=True)
class Known:
    """A conversation up to its last question.

    Attributes
    ----------
    ask : callable
        Puts the question; takes how it is to be answered.
    texts : int
        Tokens of the prompt up to there, but for the visual ones.
    cached : int
        How much of it had been remembered, in tokens.
    """

    ask: Callable[..., AsyncAnswer]
    texts: int = 0
    cached: int = 0


class Chat:
    """Answers conversations.

    Parameters
    ----------
    service : Service
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self._recipe = repr(service.settings.recipe)

    async def known(self, talk: Conversation) -> Known:
        """The stream that was shown and told all but the last question."""
        most = self.service.settings.limits
        if len(talk.wanted) > most.frames:
            raise Refusal(
                f"{len(talk.wanted)} videos and pictures came; expected {most.frames} at most.", 413, "too_many"
            )
        await self.service.bounded("the question", talk.question)
        if not talk.wanted:
            return await self._text_alone(talk)
        media: list[Media] = []
        done: list[Callable[[], None]] = []
        try:
            for wanted in talk.wanted:
                got, release = await self._got(wanted)
                media.append(got)
                done.append(release)
            prefix, cached = await self._remembered(talk, media)
            return Known(partial(prefix.stream.ask, talk.question), prefix.texts, cached)
        finally:
            for release in done:
                release()

    async def _got(self, wanted: Wanted) -> tuple[Media, Callable[[], None]]:
        """A file; one that comes when nobody waits for it any more is let go at once."""
        coming = asyncio.ensure_future(apart(partial(self.service.library.get, wanted)))
        try:
            return await asyncio.shield(coming)
        except asyncio.CancelledError:
            coming.add_done_callback(lambda come: come.cancelled() or come.exception() or come.result()[1]())
            raise

    async def _text_alone(self, talk: Conversation) -> Known:
        """Where nothing is shown, there is nothing to remember: the model reads all of it anew."""
        lm, most = self.service.lm, self.service.settings.limits
        for text in (*talk.said, *([] if talk.system is None else [talk.system])):
            await self.service.bounded("a message", text)
        await apart(partial(lm.bounded, "the conversation", "\n".join(talk.said), most.memory))
        try:
            await apart(partial(lm.prompt.alone, talk.said, talk.system))
        except ModelError as error:
            raise Refusal(
                "This model's chat template does not take text alone; send a video or picture as video_url or "
                "image_url.",
                400,
                "no_video",
                "messages",
            ) from error
        return Known(partial(lm.async_chat, talk.said, system=talk.system))

    async def _remembered(self, talk: Conversation, media: Sequence[Media]) -> tuple[Prefix, int]:
        """The stream, and how much of it had been remembered, in tokens."""
        prefixes, names = self.service.prefixes, talk.names(media, self._recipe)
        async with prefixes.making(names[0]):  # whoever comes with the same video meanwhile finds it watched
            count, prefix = prefixes.longest(names)
            self.service.metrics.prefixes.labels("yes" if count else "no").inc()
            cached = 0 if prefix is None else prefix.tokens
            self.service.metrics.cached_tokens.inc(cached)
            if prefix is not None and count == len(names):
                return prefix, cached
            if prefix is None:
                stream = await self.service.open(self.service.settings.recipe, talk.system)
                texts = len(await apart(partial(self.service.lm.prompt.before, talk.system)))
            else:
                stream, texts = await prefix.stream.fork(), prefix.texts
            left = iter(media[sum(len(step.wanted) for step in talk.steps[:count] if isinstance(step, Shown)) :])
            for number, step in enumerate(talk.steps[count:], count):
                if isinstance(step, Turn):
                    for said in (step.question, step.answer):
                        await self.service.bounded("a message", said)
                    texts += await stream.add_turn(step.question, step.answer)
                else:
                    await self._show(stream, [next(left) for _ in step.wanted])
                prefix = Prefix(stream, texts)
                last = number + 1 == len(names)
                if isinstance(step, Shown) and not last:  # a stream that goes on is not what is remembered
                    prefixes.keep(names[number], Prefix(await stream.fork(), texts))
                elif last:
                    prefixes.keep(names[number], prefix)
            assert prefix is not None
            return prefix, cached

    async def _show(self, stream: AsyncVideoStream, media: Sequence[Media]) -> None:
        """Videos one after the other, and runs of pictures as videos of their own."""
        begun = 0
        for i, each in enumerate(media):
            if each.wanted.kind == "video":
                await self._watch(stream, each)
                begun = i + 1
            elif i + 1 == len(media) or media[i + 1].wanted.kind == "video":
                await self._look(stream, media[begun : i + 1])
                begun = i + 1

    async def _watch(self, stream: AsyncVideoStream, video: Media) -> None:
        how = video.wanted
        source = Source("the video", str(video.path))
        opening = self.service.opening(
            source, stream.stream.uses_motion, fps=how.fps, start=how.start, end=how.end, frames=how.frames
        )
        rate = how.fps or self.service.fps
        await watch(
            stream,
            opening,
            lambda pushed, second: self.service.metrics.pushed(pushed),
            later=_next(stream, 1 / rate),
            check=self.service.check_length,
        )

    async def _look(self, stream: AsyncVideoStream, media: Sequence[Media]) -> None:
        most, chunk = self.service.settings.limits.pixels, self.service.settings.chunk

        def read() -> list[Any]:
            frames = [pictures.decoded(each.path.read_bytes(), most) for each in media]
            first = _next(stream, _APART)
            return list(pictures.in_chunks(frames, [first + _APART * i for i in range(len(frames))], chunk, "pictures"))

        for part in await apart(read):
            self.service.metrics.pushed(await stream.push(part))


def _next(stream: AsyncVideoStream, apart: float) -> float:
    """When the next video of a conversation begins, in seconds of the stream."""
    span = stream.status.seconds
    return 0.0 if span is None else span[1] + apart


def routes(service: Service) -> APIRouter:
    """The addresses of chat completions."""
    router, chat, began = APIRouter(tags=["chat"], responses=RESPONSES), Chat(service), int(time.time())

    @router.get("/v1/models")
    async def models() -> ModelList:
        """List the models that are served: one."""
        return ModelList(data=[ModelCard(id=service.settings.name, created=began)])

    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> ModelCard:
        """Tell of a model."""
        _check_name(service, name)
        return ModelCard(id=service.settings.name, created=began)

    @router.post("/v1/chat/completions", response_model=ChatAnswer, responses={200: _STREAMED})
    async def completions(asked: ChatRequest, request: Request) -> Any:
        """Answer a conversation about videos and pictures."""
        _check_name(service, asked.model)
        if asked.top_logprobs is not None and not asked.logprobs:
            raise Refusal("top_logprobs came without logprobs; set logprobs to true.", 400, None, "top_logprobs")
        talk, deadline = conversation_of(asked.messages), service.settings.limits.deadline
        if asked.stream:
            # what is wrong with the videos is answered with a status of its own: streaming begins with the question
            known = await attended(request, chat.known(talk), deadline)
            return ServerSent(told(_streamed(service, known, asked), deadline))
        return await attended(request, _whole(chat, talk, asked), deadline)

    return router


_STREAMED: dict[str, Any] = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}


def _check_name(service: Service, name: str) -> None:
    if name != service.settings.name:
        shown = name.encode("utf-8", "backslashreplace").decode()[:100]
        raise Refusal(
            f"There is no model {shown!r} here; this server has {service.settings.name!r}.",
            404,
            "model_not_found",
            "model",
        )


def _how(service: Service, asked: ChatRequest) -> dict[str, Any]:
    return service.asked_with(asked, asked.max_completion_tokens, (asked.top_logprobs or 0) if asked.logprobs else None)


async def _whole(chat: Chat, talk: Conversation, asked: ChatRequest) -> dict[str, Any]:
    known = await chat.known(talk)
    answer = await known.ask(**_how(chat.service, asked))
    chat.service.metrics.answered(answer)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answer.text},
        "logprobs": _logprobs(chat.service, answer.logprobs) if asked.logprobs else None,
        "finish_reason": _reason(answer),
    }
    return {**_head(chat.service), "object": "chat.completion", "choices": [choice], "usage": _usage(known, answer)}


async def _streamed(service: Service, known: Known, asked: ChatRequest) -> AsyncGenerator[bytes, None]:
    head = {**_head(service), "object": "chat.completion.chunk"}

    def chunk(delta: dict[str, Any], reason: str | None = None, logprobs: Any = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return event({**head, "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    async with aclosing(known.ask(**_how(service, asked))) as live:
        told_of = 0
        async with aclosing(trimmed(live)) as texts:
            async for text in texts:
                new = live.logprobs[told_of:]
                told_of += len(new)
                yield chunk({"content": text}, logprobs=_logprobs(service, new) if asked.logprobs else None)
        answer = live.answer
    assert answer is not None
    service.metrics.answered(answer)
    left = answer.logprobs[told_of:]
    yield chunk({}, _reason(answer), _logprobs(service, left) if left else None)
    if asked.stream_options is not None and asked.stream_options.include_usage:
        yield event({**head, "choices": [], "usage": _usage(known, answer)})
    yield event("[DONE]")


async def trimmed(pieces: AsyncIterator[str]) -> AsyncGenerator[str, None]:
    """The pieces of a text without the white space around it."""
    begun, held = False, ""
    async for piece in pieces:
        text = held + piece if begun else piece.lstrip()
        kept = text.rstrip()
        if kept:
            begun, held = True, text[len(kept) :]
            yield kept
        elif begun:
            held = text


def _head(service: Service) -> dict[str, Any]:
    return {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": service.settings.name}


def _reason(answer: Answer) -> str:
    return "stop" if answer.finished else "length"


def _usage(known: Known, answer: Answer) -> dict[str, Any]:
    prompt = known.texts + answer.visual_tokens + answer.question_tokens  # with a frame that waited
    completion = len(answer.token_ids)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": known.cached},
        "visual_tokens": {"entered": answer.visual_tokens, "remembered": list(answer.kept)},
    }


def _logprobs(service: Service, likely: Sequence[TokenLogprob]) -> dict[str, Any]:
    def one(token: int, logprob: float) -> dict[str, Any]:
        text = service.lm.tokenizer.decode([token])
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode())}

    content = [
        {**one(each.token, each.logprob), "top_logprobs": [one(token, value) for token, value in each.top]}
        for each in likely
    ]
    return {"content": content, "refusal": None}
