"""The twin for asyncio does what the plain stream does, bit for bit; who is cancelled leaves nothing behind."""

from __future__ import annotations

import asyncio
import functools
import math
import threading
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from families import build, video
from test_session import same
from test_threads import QUESTION, opened, push

import pdrop_video as pv

pytestmark = pytest.mark.usefixtures("watchdog")
build_once = functools.cache(build)


@pytest.fixture
def lm() -> pv.VideoLM:
    return build_once("qwen2_5_vl")


async def push_async(stream: pv.AsyncVideoStream, number: int) -> pv.Pushed:
    return await stream.push(video(4, seed=number), [4.0 * number + i for i in range(4)])


async def until(true: Any) -> None:
    while not true():
        await asyncio.sleep(0.001)


class Forwards:
    """How often the last layer has run; the run of a number waits until it may go on."""

    def __init__(self, lm: pv.VideoLM, stop: int = 0) -> None:
        self.count, self.stop, self.go = 0, stop, threading.Event()
        self.handle = lm.model.get_decoder().layers[-1].register_forward_hook(self._note)

    def _note(self, *_: object) -> None:
        self.count += 1
        if self.count == self.stop:
            self.go.wait()


class Held:
    """The model, held by a thread of its own, behind a forward that was stopped: who wants a turn meanwhile waits."""

    def __init__(self, lm: pv.VideoLM, behind: Forwards | None = None) -> None:
        self.lm, self.held, self.free, self.behind = lm, threading.Event(), threading.Event(), behind
        self.thread = threading.Thread(target=self._hold)

    def _hold(self) -> None:
        with self.lm.turnstile:
            self.held.set()
            self.free.wait()

    async def __aenter__(self) -> Held:
        self.thread.start()
        if self.behind is not None:
            await until(lambda: len(self.lm.turnstile._line) == 1)
            self.behind.go.set()
        await until(self.held.is_set)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.free.set()
        await until(lambda: not self.thread.is_alive())


def test_what_is_awaited_is_what_the_plain_stream_gives(lm: pv.VideoLM, tmp_path: Path) -> None:
    """Pushes awaited together go in their order; answers, whole and in pieces; options; a fork; a file; told text."""
    plain = opened(lm)
    [push(plain, number) for number in range(3)]
    want = plain.ask(QUESTION, 8)
    pieces = list(plain.ask(QUESTION, 8, stream=True))
    likely = plain.likelihood(QUESTION, ["blue", "red and green"])

    async def main() -> None:
        schedule = pv.Pyramid(stages=3), pv.Memory(tokens=60)
        async with await lm.async_stream(*schedule) as stream:
            pushed = await asyncio.gather(*(push_async(stream, number) for number in range(3)))
            assert [each.frames for each in pushed] == [4, 4, 4]
            answer, said, options = await asyncio.gather(
                stream.ask(QUESTION, 8), collected(stream), stream.likelihood(QUESTION, ["blue", "red and green"])
            )
            assert answer.token_ids == want.token_ids and answer.evidence == want.evidence
            assert said == pieces and options == likely
            same(stream.stream, plain)
            fork = await stream.fork()
            await stream.save(tmp_path / "a.pdrop")
            resumed = await lm.async_resume(tmp_path / "a.pdrop")
            twin = plain.fork()
            twin.add_text("now something else"), push(twin, 3)
            for each in (fork, resumed):
                await each.add_text("now something else")
                await push_async(each, 3)
                same(each.stream, twin)
            assert stream.status.frames == 12 and fork.status.frames == 16
        assert stream.closed
        with pytest.raises(pv.StreamError, match="closed"):
            await push_async(stream, 3)

    async def collected(stream: pv.AsyncVideoStream) -> list[str]:
        asked = stream.ask(QUESTION, 8)
        said = [piece async for piece in asked]
        assert asked.answer is not None and asked.answer.token_ids == want.token_ids
        assert [piece async for piece in asked] == []  # it is through
        return said

    asyncio.run(main())


@pytest.mark.parametrize("how", ["whole", "pieces"])
def test_who_is_cancelled_stops_the_answer_and_leaves_no_trace(lm: pv.VideoLM, how: str) -> None:
    """In the middle of an answer of 200 tokens: not one more is generated, and the stream is as before."""

    async def main() -> None:
        stream, alone = pv.AsyncVideoStream(opened(lm)), opened(lm)
        await push_async(stream, 0), push(alone, 0)
        forwards = Forwards(lm, stop=4)
        asked = stream.ask(QUESTION, 200)

        async def waiting() -> None:
            if how == "whole":
                await asked
            else:
                async for _ in asked:
                    pass

        task = asyncio.ensure_future(waiting())
        await until(lambda: forwards.count > 3)
        async with Held(lm, behind=forwards):
            await until(lambda: len(lm.turnstile._line) == 1 or task.done())  # the next token waits for its turn
            task.cancel()
            await until(lambda: len(lm.turnstile._line) == 2)  # behind it comes the end
            before = forwards.count
        with pytest.raises(asyncio.CancelledError):
            await task
        assert forwards.count <= before + 1 <= 6
        with pytest.raises(pv.StreamError, match="cancelled"):
            await asked
        await push_async(stream, 1), push(alone, 1)
        same(stream.stream, alone)
        # nothing of it is held any more: the stream writes on where it is, and need not copy
        assert all(len(layer.columns.room.holders) == 1 for layer in stream.stream._state.cache.layers)
        forwards.handle.remove()

    asyncio.run(main())


def test_a_question_cancelled_while_it_waits_to_be_put_is_never_answered(lm: pv.VideoLM) -> None:
    async def main() -> None:
        stream = pv.AsyncVideoStream(opened(lm))
        await push_async(stream, 0)
        forwards = Forwards(lm)
        async with Held(lm):
            task = asyncio.ensure_future(asyncio.wait_for(stream.ask(QUESTION, 8), 60))
            await until(lambda: len(lm.turnstile._line) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await stream.ask(QUESTION, 1)
        assert forwards.count == 1  # that of the second question
        forwards.handle.remove()

    asyncio.run(main())


def test_streams_that_wait_keep_nobody_else_from_threads_and_the_loop(lm: pv.VideoLM) -> None:
    """More of them than asyncio's executor has threads wait for the model; what goes through that executor goes on."""

    async def main() -> None:
        streams = [pv.AsyncVideoStream(opened(lm)) for _ in range(40)]
        async with Held(lm):
            tasks = [asyncio.ensure_future(push_async(each, 0)) for each in streams]
            await until(lambda: len(lm.turnstile._line) == 40)
            assert await asyncio.to_thread(lambda: 7) == 7
            closing = asyncio.ensure_future(streams[0].close())
            await until(lambda: streams[0].closed)  # closing does not stand in line behind the push
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await closing
        assert isinstance(results[0], pv.StreamError) and all(isinstance(each, pv.Pushed) for each in results[1:])

    asyncio.run(main())


def test_errors_come_through_and_leave_the_stream_as_it_was(lm: pv.VideoLM) -> None:
    async def main() -> None:
        stream = pv.AsyncVideoStream(opened(lm))
        with pytest.raises(pv.StreamError, match="nothing was watched"):
            await stream.ask(QUESTION)
        with pytest.raises(pv.FrameError, match="uint8"):
            await stream.push(video(4).float(), [0.0, 1.0, 2.0, 3.0])
        await push_async(stream, 0)
        with pytest.raises(pv.ConfigError, match="max_new_tokens"):
            await stream.ask(QUESTION, 0)
        with pytest.raises(pv.ConfigError, match="max_new_tokens"):
            async for _ in stream.ask(QUESTION, 0):
                pass
        async with aclosing(stream.ask(QUESTION, 50)) as asked:
            await anext(asked)
        with pytest.raises(pv.StreamError, match="closed"):
            await anext(asked)
        with pytest.raises(pv.ConfigError, match="VideoStream"):
            pv.AsyncVideoStream(lm)  # type: ignore[arg-type]

    asyncio.run(main())


def test_events_are_iterated_over_as_they_come_and_who_stops_loses_none(
    lm: pv.VideoLM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those that the plain watch gives: to who waits, to who was cancelled, and to who goes on from a file."""
    likely = [0.1, 0.9, 0.8, 0.2, 0.7, 0.9, 0.3, 0.8]

    def weighed(stream: pv.VideoStream, question: str, options: Any) -> tuple[float, tuple[float, float]]:
        assert stream.span is not None
        yes = likely[int(stream.span[1]) // 4]
        return stream.span[1], (math.log(yes), math.log(1 - yes))

    monkeypatch.setattr(pv.VideoStream, "_weighed", weighed)
    plain = opened(lm)
    watch = plain.watch_for(QUESTION, 4.0)
    [push(plain, number) for number in range(8)]
    plain.close()
    want = list(watch.poll())
    assert [(each.begin, each.end) for each in want] == [(7, None), (7, 15), (19, None), (19, 27), (31, None), (31, 31)]

    async def main() -> None:
        stream = pv.AsyncVideoStream(opened(lm))
        watch, got = stream.watch_for(QUESTION, 4.0), []
        first = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        await push_async(stream, 0)
        assert not first.done()
        await push_async(stream, 1)
        got.append(await first)
        waiting = asyncio.ensure_future(anext(watch))
        await until(lambda: watch.watch._wakes)  # it waits; the loop went on
        waiting.cancel()
        for number in (2, 3, 4, 5):
            await push_async(stream, number)
        assert waiting.cancelled()
        got.append(await anext(watch))
        await stream.save(tmp_path / "a.pdrop")  # with one event that nobody took
        await stream.close()
        assert [(each.begin, each.cut) async for each in watch] == [(19, False), (19, True)]
        assert [each async for each in watch] == []
        resumed = await lm.async_resume(tmp_path / "a.pdrop")
        (watch,) = resumed.watches
        reading = asyncio.ensure_future(collected(watch))
        for number in (6, 7):
            await push_async(resumed, number)
        await resumed.close()  # who reads comes to an end
        assert got + await reading == want
        with pytest.raises(pv.StreamError, match="closed"):
            resumed.watch_for(QUESTION)

    async def collected(watch: pv.AsyncWatch) -> list[pv.Event]:
        return [event async for event in watch]

    asyncio.run(main())


def test_watches_and_notes_of_the_twin_are_the_streams(lm: pv.VideoLM) -> None:
    """Opened in order with pushes; wrong terms are told to who awaits them; each event goes to one who reads."""
    large = pv.Pyramid(stages=3), pv.Memory(tokens=1024)
    plain = lm.stream(*large)
    push(plain, 0)
    watch = plain.watch_for(QUESTION, 4.0, sure=1e-9, clear=0.0)
    plain.summarise(4.0, question="what ?", max_new_tokens=2)
    push(plain, 1)
    plain.look()

    async def main() -> None:
        stream = pv.AsyncVideoStream(lm.stream(*large))
        async with Held(lm):
            pushing = asyncio.ensure_future(push_async(stream, 0))
            await asyncio.sleep(0)
            asked = stream.watch_for(QUESTION, 4.0, sure=1e-9, clear=0.0)  # behind the push, which waits
            with pytest.raises(asyncio.InvalidStateError):
                _ = asked.watch
        await pushing
        opened_ = await asked
        await stream.summarise(4.0, question="what ?", max_new_tokens=2)
        await push_async(stream, 1)
        await stream.look()
        same(stream.stream, plain)
        assert stream.notes == plain.notes != ()
        assert opened_.watch.likelihood == watch.likelihood and opened_.watch.looks == watch.looks == 2
        assert [each.watch for each in stream.watches] == [opened_.watch]
        with pytest.raises(pv.ConfigError, match="clear below sure"):
            await stream.watch_for(QUESTION, sure=0.3, clear=0.5)
        with pytest.raises(pv.ConfigError, match="every"):
            async for _ in stream.watch_for(QUESTION, 0.0):
                pass
        await opened_.cancel()
        assert [each.cut async for each in opened_] == [False, True] and stream.watches == ()

    asyncio.run(main())
