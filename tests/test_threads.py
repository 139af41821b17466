"""Streams in many threads: what each watches and answers is what it would alone, bit for bit; nothing is timed."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from families import build, video
from test_session import same

import pdrop_video as pv
from pdrop_video.memory.evictors import EVICTORS

pytestmark = pytest.mark.usefixtures("watchdog")

QUESTION = "what is shown first ?"
build_once = functools.cache(build)


@pytest.fixture
def lm() -> pv.VideoLM:
    return build_once("qwen2_5_vl")


def until(true: Callable[[], object]) -> None:
    """Wait for another thread to come somewhere; a test that waits in vain is ended by the watchdog."""
    while not true():
        time.sleep(0.001)


def opened(lm: pv.VideoLM, evictor: Any = "pyramid") -> pv.VideoStream:
    return lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=60, evictor=evictor))


def push(stream: pv.VideoStream, number: int, seed: int = 0) -> None:
    stream.push(video(4, seed=100 * seed + number), [4.0 * number + i for i in range(4)])


def together(*works: Callable[[], object]) -> None:
    """Run each in a thread of its own; what one raises is raised."""
    errors: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    if errors:
        raise errors[0]


@dataclass(frozen=True)
class Failing:
    """An evictor that fails as soon as it is asked."""

    by_table: ClassVar[bool] = True
    uses_query: ClassVar[bool] = False

    def __call__(self, held: Any, keep: int) -> torch.Tensor:
        raise ZeroDivisionError


def test_frames_are_pushed_while_an_answer_streams(lm: pv.VideoLM) -> None:
    """A push between any two tokens; neither the answer nor the stream notices."""
    alone, stream = opened(lm), opened(lm)
    for each in (alone, stream):
        [push(each, number) for number in range(3)]
    want = alone.ask(QUESTION, max_new_tokens=8)
    answer = stream.ask(QUESTION, max_new_tokens=8, stream=True)
    for number, _ in enumerate(answer, start=3):
        together(lambda number=number: push(stream, number))
        push(alone, number)
    assert answer.answer is not None and answer.answer.token_ids == want.token_ids
    assert answer.answer.frames == 12 and stream.status.frames > 12
    same(alone, stream)


@pytest.mark.parametrize("evictor", EVICTORS)
def test_forks_and_questions_in_threads_equal_one_after_the_other(lm: pv.VideoLM, evictor: str, tmp_path: Path) -> None:
    """Four branches of one past, one of them resumed from a file, questions meanwhile: each as if it were alone."""
    root = opened(lm, evictor)
    [push(root, number) for number in range(3)]
    root.save(tmp_path / "root")
    branches = [root, root.fork(), root.fork(), lm.resume(tmp_path / "root")]
    alone = [root.fork() for _ in branches]

    def live(stream: pv.VideoStream, seed: int) -> list[tuple[int, ...]]:
        answers = []
        for number in range(3, 6):
            push(stream, number, seed)
            answers.append(stream.ask(QUESTION, max_new_tokens=4).token_ids)
        return answers

    got: dict[int, Any] = {}
    works = [lambda i=i, each=each: got.update({i: live(each, i)}) for i, each in enumerate(branches)]
    together(*works)
    assert [got[i] for i in range(4)] == [live(each, i) for i, each in enumerate(alone)]
    for left, right in zip(branches, alone, strict=True):
        same(left, right)


def test_files_saved_meanwhile_are_whole_pushes(lm: pv.VideoLM, tmp_path: Path) -> None:
    """Whatever moment a save falls on, its file is the stream after some whole push, and goes on bit for bit."""
    stream, frames = opened(lm), []

    def saving() -> None:
        for number in range(8):
            stream.save(tmp_path / str(number))

    together(
        lambda: [push(stream, number) for number in range(8)],
        saving,
        lambda: [stream.fork().save(tmp_path / "fork") for _ in range(4)],
    )
    for number in range(8):
        resumed = lm.resume(tmp_path / str(number))
        frames.append(resumed.status.frames)
        assert frames[-1] % 4 == 0
        [push(resumed, following) for following in range(frames[-1] // 4, 8)]
        same(resumed, stream)
    assert frames == sorted(frames)


def test_an_error_in_one_stream_leaves_the_others_alive(lm: pv.VideoLM) -> None:
    bad, good, alone = opened(lm, Failing()), opened(lm), opened(lm)
    failures = []

    def failing() -> None:
        for number in range(6):
            try:
                push(bad, number)
            except ZeroDivisionError:
                failures.append(number)

    together(failing, lambda: [push(good, number) for number in range(6)])
    [push(alone, number) for number in range(6)]
    same(good, alone)
    assert failures and bad.status.frames == 4 * (6 - len(failures))
    assert bad.ask(QUESTION, max_new_tokens=2).frames == bad.status.frames  # what it saw before is still there


def test_close_frees_a_producer_that_waits_for_room(lm: pv.VideoLM) -> None:
    """The push in flight has no turn, the queue is full, the producer waits: close ends all three, and memory goes."""
    stream, told = opened(lm), []
    feed = stream.feed(queue=1, policy="block")

    def produce() -> None:
        with pytest.raises(pv.StreamError, match="closed"):
            for number in range(100):
                feed.put(video(4), [4.0 * number + i for i in range(4)])
                until(lambda: feed._line._running)  # the first is taken out of the queue before the next is put
        told.append(feed.stats)

    producer, closer = threading.Thread(target=produce), threading.Thread(target=stream.close)
    with lm.turnstile:
        producer.start()
        until(lambda: feed.stats.blocked)  # one is being pushed, one waits in the queue, one has no room
        closer.start()
        until(lambda: stream.closed)
    producer.join(), closer.join(), feed.close()
    assert told[0].put == 8 and feed.stats.blocked == 1
    assert (feed.stats.watched, feed.stats.dropped, feed.stats.failed, feed.stats.waiting) == (0, 8, 0, 0)
    assert not feed._thread.is_alive() and not hasattr(stream, "_current") and stream not in lm.streams
    for use in (lambda: push(stream, 0), lambda: stream.ask(QUESTION), stream.fork, lambda: stream.status):
        with pytest.raises(pv.StreamError, match="closed"):
            use()


def test_close_ends_an_open_answer(lm: pv.VideoLM) -> None:
    stream = opened(lm)
    push(stream, 0)
    answer = stream.ask(QUESTION, max_new_tokens=8, stream=True)
    next(answer)
    stream.close(), stream.close()
    with pytest.raises(pv.StreamError, match="closed"):
        next(answer)


def test_drop_oldest_drops_and_counts(lm: pv.VideoLM) -> None:
    """While the model is busy ten chunks come: the first is being pushed, the last two wait, seven are dropped."""
    stream, alone = opened(lm), opened(lm)
    with stream.feed(queue=2, policy="drop_oldest") as feed, lm.turnstile:
        feed.put(video(4, seed=0), [0.0, 1, 2, 3])
        until(lambda: feed._line._running)
        for number in range(1, 10):
            feed.put(video(4, seed=number), [4.0 * number + i for i in range(4)])
        assert feed.stats == pv.FeedStats(put=40, watched=0, dropped=28, failed=0, waiting=12, blocked=0)
    assert feed.stats == pv.FeedStats(put=40, watched=12, dropped=28, failed=0, waiting=0, blocked=0)
    [push(alone, number) for number in (0, 8, 9)]
    same(stream, alone)


def test_a_feed_hands_on_errors_and_goes_on(lm: pv.VideoLM) -> None:
    stream, alone = opened(lm), opened(lm)
    with stream.feed() as feed:
        for number in (0, 0, 1):
            feed.put(video(4, seed=number), [4.0 * number + i for i in range(4)])
            until(lambda: not feed.stats.waiting)
            if feed.stats.failed and number == 0:
                with pytest.raises(pv.FrameError, match="times go back"):
                    feed.flush()
    assert feed.stats == pv.FeedStats(put=12, watched=8, dropped=0, failed=4, waiting=0, blocked=0)
    [push(alone, number) for number in range(2)]
    same(stream, alone)


def test_streams_are_listed_with_their_bytes() -> None:
    """One copy of the weights, and the caches within the sum of their budgets; closed and forgotten ones are gone."""
    lm = build("qwen2_5_vl")
    weights = [id(parameter) for parameter in lm.model.parameters()]
    streams = [opened(lm) for _ in range(3)]
    together(*(lambda each=each, i=i: [push(each, n, i) for n in range(4)] for i, each in enumerate(streams)))
    assert lm.streams == tuple(streams)
    for each in streams:
        assert each.status.cache_bytes == sum(each.cache_tokens) * each.token_bytes
        assert max(each.cache_tokens) <= 60
    assert [id(parameter) for parameter in lm.model.parameters()] == weights
    streams[1].close()
    assert lm.streams == (streams[0], streams[2])
    del streams[0], each
    assert lm.streams == (streams[1],)
