"""What a stream looks out for: events by the plain formula, whoever reads them, through failures, saves and forks."""

from __future__ import annotations

import copy
import math
import pickle
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import build, video
from test_session import same

import pdrop_video as pv
from pdrop_video.stream import saved
from pdrop_video.stream.events import Phase, Terms

QUESTION, OTHER = "what is shown first ?", "how many ?"
CLIP = Path(__file__).parent.parent / "demos" / "clips" / "clip.mp4"
Found = Callable[[str, float], float]
"""The likelihood of yes, by question and seconds."""


@pytest.fixture
def finding(monkeypatch: pytest.MonkeyPatch) -> Callable[[Found], list[tuple[str, float]]]:
    """Let looks find what a function says; gives the looks that were done."""

    def let(found: Found) -> list[tuple[str, float]]:
        looks: list[tuple[str, float]] = []

        def weighed(stream: pv.VideoStream, question: str, options: list[list[int]]) -> tuple[float, Any]:
            assert stream.span is not None
            looks.append((question, stream.span[1]))
            yes = found(question, stream.span[1])
            return stream.span[1], (math.log(yes) - 3, math.log(1 - yes) - 3)  # of any scale

        monkeypatch.setattr(pv.VideoStream, "_weighed", weighed)
        return looks

    return let


def push(stream: pv.VideoStream, *seconds: float) -> None:
    stream.push(video(len(seconds)), list(seconds))


def spans(events: Any) -> list[tuple[float, float | None]]:
    return [(event.begin, event.end) for event in events]


def plainly(times: list[float], likely: list[float], sure: float, clear: float, cooldown: float) -> list[pv.Event]:
    """The formula, look by look: on at `sure` unless within the cooldown, off at `clear`, else as before."""
    events, on, since, peak, last = [], False, 0.0, 0.0, -math.inf
    for time, p in zip(times, likely, strict=True):
        if not on and p >= sure and time >= last + cooldown:
            on, since, peak = True, time, p
            events.append(pv.Event(QUESTION, since, None, peak))
        elif on:
            peak = max(peak, p)
            if p <= clear:
                on, last = False, time
                events.append(pv.Event(QUESTION, since, time, peak))
    return events


def test_exact_sequences(finding: Any) -> None:
    """Written out: a wobble between the thresholds changes nothing, nor does one within the cooldown."""
    #         0    1    2    3    4    5    6    7    8    9    10
    likely = [0.1, 0.6, 0.7, 0.5, 0.9, 0.4, 0.8, 0.8, 0.3, 0.8, 0.41]
    finding(lambda question, seconds: likely[int(seconds)])
    for cooldown, want in (
        (0.0, [(2, None), (2, 5), (6, None), (6, 8), (9, None)]),
        (1.0, [(2, None), (2, 5), (6, None), (6, 8), (9, None)]),  # as long as it, and no longer
        (1.5, [(2, None), (2, 5), (7, None), (7, 8)]),
        (4.5, [(2, None), (2, 5)]),
    ):
        stream = build("llava_onevision").stream()
        watch = stream.watch_for(QUESTION, 1.0, sure=0.7, clear=0.4, cooldown=cooldown)
        events = []
        for second in range(11):
            push(stream, second)
            events += watch.poll()
        assert spans(events) == want
        assert [event.peak for event in events[:2]] == pytest.approx([0.7, 0.9])
        assert (watch.looks, watch.failed, watch.missed) == (11, 0, 0) and watch.likelihood == pytest.approx(0.41)


def test_both_thresholds_belong_to_what_they_decide() -> None:
    """Exactly `sure` begins, exactly `clear` ends, and the cooldown is over when it has passed: without rounding."""
    terms, phase, told = Terms(QUESTION, sure=0.75, clear=0.25, cooldown=2), Phase(), []
    under, over = math.nextafter(0.75, 0), math.nextafter(0.25, 1)
    for seconds, likelihood in enumerate((under, 0.75, over, 0.25, 1.0, 0.75, over, 0.0, 0.9)):
        phase, event = phase.after(terms, seconds, likelihood)
        told += [] if event is None else [event]
    assert spans(told) == [(1, None), (1, 3), (5, None), (5, 7)] and phase.cut() == (phase, None)
    assert [event.peak for event in told] == [0.75, 0.75, 0.75, 0.75]


def test_random_sequences_equal_the_formula(finding: Any) -> None:
    """Pushes of any size at irregular times: one look where a mark was passed, at the time of the last frame."""
    rng = random.Random(0)
    begun = 0
    for _ in range(4):
        likely: dict[float, float] = {}
        looks = finding(lambda question, seconds, likely=likely: likely.setdefault(seconds, rng.uniform(0.05, 0.95)))
        stream = build("llava_onevision").stream(pv.Pyramid(stages=1), pv.Memory(tokens=120))
        every, cooldown = rng.choice([0.5, 1.3, 4.0]), rng.choice([0.0, 2.0, 9.0])
        sure, clear = rng.choice([(0.7, 0.4), (0.6, 0.5), (0.9, 0.1)])
        watch = stream.watch_for(QUESTION, every, sure=sure, clear=clear, cooldown=cooldown)
        first = now = rng.choice([0.0, 3.7, 1.7e9])
        ends, times = [], []
        for _ in range(25):
            chunk = []
            for _ in range(rng.randrange(1, 4)):
                chunk.append(now)
                now += rng.choice([0.1, 0.7, 3.1])
            push(stream, *chunk)
            ends.append(chunk[-1])
        for before, end in zip([-math.inf, *ends], ends, strict=False):
            marks = [k for k in range(1000) if before < first + k * every <= end]
            times += [end] if marks else []
        assert [seconds for _, seconds in looks] == times
        want = plainly(times, [likely[time] for time in times], sure, clear, cooldown)
        got = watch.poll()
        assert spans(got) == spans(want)
        assert [event.peak for event in got] == pytest.approx([event.peak for event in want])
        begun += len(want)
    assert begun > 12


def test_the_likelihood_is_that_of_the_options() -> None:
    """By `likelihood`, divided by the sum; and the stream is bit for bit what it is without watches."""
    lm = build("qwen2_5_vl")
    stream, alone = (lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=64)) for _ in range(2))
    watches = [stream.watch_for(QUESTION, 1.0, options=options) for options in (("red", "blue seven"), ("red",))]
    for second in range(6):
        for each in (stream, alone):
            each.push(video(3, seed=second), [second, second + 0.3, second + 0.6])
        values = [math.exp(value) for value in alone.likelihood(QUESTION, ["red", "blue seven"])]
        assert watches[0].likelihood == pytest.approx(values[0] / sum(values), abs=1e-6)
        assert watches[1].likelihood == pytest.approx(values[0], abs=1e-6)
    assert [watch.looks for watch in watches] == [6, 6]
    same(stream, alone)
    assert torch.equal(stream.next_logits(OTHER), alone.next_logits(OTHER))


def test_a_thread_pushes_and_others_iterate(finding: Any) -> None:
    """Each gets the events of its watch as they come; cancelling one ends its loop, closing the stream the other's."""
    finding(lambda question, seconds: 0.9 if (int(seconds) // 2 + (question == OTHER)) % 2 else 0.1)
    stream = build("llava_onevision").stream()
    watches = [stream.watch_for(question, 1.0) for question in (QUESTION, OTHER)]
    got: list[list[pv.Event]] = [[], []]
    came = threading.Semaphore(0)

    def read(number: int) -> None:
        for event in watches[number]:
            got[number].append(event)
            came.release()

    readers = [threading.Thread(target=read, args=(number,)) for number in (0, 1)]
    for reader in readers:
        reader.start()
    with stream.feed() as feed:
        for second in range(7):
            feed.put(video(1), [second])
        feed.flush()
        for _ in range(7):
            assert came.acquire(timeout=60)
        assert spans(got[0]) == [(2, None), (2, 4), (6, None)]
        assert spans(got[1]) == [(0, None), (0, 2), (4, None), (4, 6)]
        watches[0].cancel()
        readers[0].join(60)
        assert not readers[0].is_alive() and readers[1].is_alive()
        assert got[0][-1] == pv.Event(QUESTION, 6, 6, pytest.approx(0.9), cut=True)
        assert stream.watches == (watches[1],)
        feed.put(video(1), [8])
    stream.close()
    readers[1].join(60)
    assert not readers[1].is_alive() and watches[1].over
    assert spans(got[0]) == [(2, None), (2, 4), (6, None), (6, 6)]
    assert [(event.begin, event.end, event.cut) for event in got[1][-2:]] == [(8, None, False), (8, 8, True)]


def test_who_iterates_does_not_wait_for_a_stream_that_is_gone() -> None:
    stream = build("llava_onevision").stream()
    watch, came = stream.watch_for(QUESTION), []
    reader = threading.Thread(target=lambda: came.extend(watch))
    reader.start()
    del stream
    reader.join(60)
    assert not reader.is_alive() and watch.over and came == []


def test_a_callback_may_use_the_stream(finding: Any, tmp_path: Path) -> None:
    """Ask it, save it, cancel its own watch, and push; and what it raises reaches the push, when all have looked."""
    finding(lambda question, seconds: 0.9)
    stream = build("llava_onevision").stream()
    heard: list[Any] = []

    def call(event: pv.Event) -> None:
        heard.append((event.begin, event.end, threading.current_thread()))
        if event.end is None:
            stream.ask(OTHER, 1)
            stream.save(tmp_path / "a.pdrop")
            push(stream, 5)
            first.cancel()
            raise ValueError("mine")

    first = stream.watch_for(QUESTION, 1.0, call=call)
    second = stream.watch_for(OTHER, 1.0)
    with pytest.raises(ValueError, match="mine"):
        push(stream, 0)
    here = threading.current_thread()
    assert heard == [(0, None, here), (0, 5, here)]
    assert stream.status.frames == 2 and spans(second.poll()) == [(0, None)]  # before the push within
    push(stream, 6)
    assert len(heard) == 2 and first.poll() == ()


def test_nothing_is_lost_if_a_look_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The push stands, the event lasts, the other watch looks; the next mark is looked at again."""
    likely, fails = {0: 0.9, 1: 0.9, 2: 0.1, 3: 0.1}, {1, 2}

    def weighed(stream: pv.VideoStream, question: str, options: Any) -> Any:
        assert stream.span is not None
        if question == QUESTION and stream.span[1] in fails:
            raise pv.ConfigError("no room") if stream.span[1] == 1 else torch.OutOfMemoryError("no room")
        yes = likely[int(stream.span[1])]
        return stream.span[1], (math.log(yes), math.log(1 - yes))

    monkeypatch.setattr(pv.VideoStream, "_weighed", weighed)
    stream = build("llava_onevision").stream()
    watch, other = (stream.watch_for(question, 1.0) for question in (QUESTION, OTHER))
    push(stream, 0)
    with pytest.warns(UserWarning, match="came to nothing: no room"):
        push(stream, 1)
    push(stream, 2)  # says it once
    assert stream.status.frames == 3 and (watch.looks, watch.failed) == (1, 2)
    assert isinstance(watch.error, torch.OutOfMemoryError) and watch.event == pv.Event(
        QUESTION, 0, None, pytest.approx(0.9)
    )
    push(stream, 3)
    assert spans(watch.poll()) == [(0, None), (0, 3)] and watch.error is None
    assert spans(other.poll()) == [(0, None), (0, 2)]


def test_who_never_reads_does_not_fill_the_memory(finding: Any) -> None:
    finding(lambda question, seconds: 0.9 if int(seconds) % 2 else 0.1)
    stream = build("llava_onevision").stream(pv.Pyramid(stages=1), pv.Memory(tokens=60))
    watch = stream.watch_for(QUESTION, 1.0)
    push(stream, 0)
    for second in range(1, 1101):
        stream._state.span = (0.0, float(second))  # as if it was watched
        stream._status = stream._state.status()
        stream._look()
    events = watch.poll()
    assert (len(events), watch.missed) == (1024, 76) and events[-1].end == 1100


def test_a_watch_that_comes_late_looks_at_the_next_mark_or_when_told(finding: Any) -> None:
    looks = finding(lambda question, seconds: 0.9)
    stream = build("llava_onevision").stream()
    with pytest.raises(pv.StreamError, match="nothing was watched"):
        stream.look()
    push(stream, 0, 5)
    watch = stream.watch_for(QUESTION, 4.0)
    push(stream, 6)
    assert looks == [] and watch.likelihood is None
    stream.look()
    assert looks == [(QUESTION, 6)] and spans(watch.poll()) == [(6, None)]
    push(stream, 7)
    push(stream, 8)
    assert looks == [(QUESTION, 6), (QUESTION, 8)]


def test_a_resumed_stream_goes_on_looking(finding: Any, tmp_path: Path) -> None:
    """Saved after any push, also before its look: what was not read and all that comes is the same."""
    likely = [0.1, 0.9, 0.5, 0.2, 0.9, 0.9, 0.1, 0.1, 0.1]
    looks = finding(
        lambda question, seconds: likely[int(seconds)] if question == QUESTION else 1 - likely[int(seconds)]
    )
    lm = build("qwen2_5_vl")

    def watched() -> pv.VideoStream:
        stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=64))
        stream.watch_for(QUESTION, 1.0, sure=0.75, clear=0.25, cooldown=1.0)
        stream.watch_for(OTHER, 2.0, options=("red", "blue"))
        stream.watch_for(OTHER, 2.0).cancel()
        return stream

    stream = watched()
    for second in range(len(likely)):
        push(stream, second)
    want, done = [watch.poll() for watch in stream.watches], list(looks)
    assert len(want) == 2 and min(map(len, want)) > 2
    for stop in range(len(likely)):
        for early in (False, True):
            looks.clear()
            stream = watched()
            for second in range(stop + 1):
                if early and second == stop:
                    with pytest.MonkeyPatch.context() as patch:
                        patch.setattr(pv.VideoStream, "_look", lambda stream: None)
                        push(stream, second)
                else:
                    push(stream, second)
            stream.save(tmp_path / "a.pdrop")
            resumed = lm.resume(tmp_path / "a.pdrop")
            assert [watch.event for watch in resumed.watches] == [watch.event for watch in stream.watches]
            for second in range(stop + 1, len(likely)):
                push(resumed, second)
            if not (early and stop == len(likely) - 1):
                assert [watch.poll() for watch in resumed.watches] == want and looks == done
    assert resumed.watches[0].terms == stream.watches[0].terms and resumed.watches[0].call is None


@pytest.mark.slow
def test_a_killed_process_goes_on_from_its_file(tmp_path: Path) -> None:
    """With the built-in model and a real video: the event that lasted at the save ends where it would have ended."""
    path, question, options = tmp_path / "a.pdrop", "What is shown now?", ("fish", "nothing", "circle", "cross")
    code = f"""
import os, signal, pdrop_video as pv
stream = pv.load(dtype="float32", device="cpu").stream()
watch = stream.watch_for({question!r}, 1.0, options={options!r})
for chunk in pv.open_video({str(CLIP)!r}, fps=2, chunk=2):
    stream.push(chunk)
    if watch.event:
        assert watch.poll()
        stream.save({str(path)!r})
        os.kill(os.getpid(), signal.SIGKILL)
"""
    root = str(Path(pv.__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    lm = pv.load(dtype="float32", device="cpu")
    resumed, alone = lm.resume(path), lm.stream()
    assert resumed.span == (0, 9.5)
    alone.watch_for(question, 1.0, options=options)
    for stream, start in ((resumed, 10), (alone, 0)):
        with pv.open_video(CLIP, fps=2, chunk=2, start=start) as reader:
            for chunk in reader:
                stream.push(chunk)
    (ended,), (_, want) = resumed.watches[0].poll(), alone.watches[0].poll()
    assert ended == want and want.begin == 9.5 and want.end is not None and not want.cut
    assert resumed.watches[0].looks == alone.watches[0].looks


def test_real_events_of_a_real_video() -> None:
    """What is in the clip is found when it comes and not before; what is not in it never is."""
    stream = pv.load(dtype="float32", device="cpu").stream()
    asked = {"Is there a red cross?": 4, "Does a fish appear?": 9, "Is a circle shown?": 11, "Does a key appear?": None}
    watches = [stream.watch_for(question, 1.0) for question in asked]
    with pv.open_video(CLIP, fps=2, chunk=2) as reader:
        for chunk in reader:
            stream.push(chunk)
    for watch, second in zip(watches, asked.values(), strict=True):
        assert [math.floor(event.begin) for event in watch.poll()] == ([] if second is None else [second])


def test_a_fork_has_no_watches(finding: Any) -> None:
    looks = finding(lambda question, seconds: 0.9)
    stream = build("llava_onevision").stream()
    watch = stream.watch_for(QUESTION, 1.0)
    push(stream, 0)
    fork = stream.fork()
    assert fork.watches == () and stream.watches == (watch,)
    push(fork, 1)
    assert looks == [(QUESTION, 0)]
    fork.watch_for(OTHER, 1.0)
    fork.close()
    push(stream, 2)
    assert looks == [(QUESTION, 0), (QUESTION, 2)] and not watch.over


def test_what_can_not_be_meant_is_refused_at_the_door() -> None:
    stream = build("llava_onevision").stream()
    for wrong, said in (
        (dict(question=" "), "question"),
        (dict(every=0), "every"),
        (dict(every=math.nan), "every"),
        (dict(sure=0.4), "clear below sure"),
        (dict(sure=1.1), "sure"),
        (dict(clear=-0.1), "clear"),
        (dict(cooldown=-1), "cooldown"),
        (dict(options=()), "options"),
        (dict(options=("red", "red")), "each of them once"),
        (dict(options="yes"), "options"),
        (dict(call=3), "call"),
    ):
        with pytest.raises(pv.ConfigError, match=said):
            stream.watch_for(**{"question": QUESTION, **wrong})  # type: ignore[arg-type]
    assert stream.watches == ()
    watch = stream.watch_for(QUESTION)
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(pv.StreamError, match="watch_for"):
            way(watch)
    stream.close()
    with pytest.raises(pv.StreamError, match="closed"):
        stream.watch_for(QUESTION)


@pytest.mark.parametrize("change", [{"mark": -2}, {"event": 3}, {"looks": "x"}, {"ended": "nan"}, {"likelihood": []}])
def test_a_file_with_a_phase_that_none_can_be_in_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    lm = build("llava_onevision")
    stream = lm.stream()
    stream.watch_for(QUESTION)
    stream.save(tmp_path / "a.pdrop")
    header, tensors = saved.read(tmp_path / "a.pdrop")
    header["lookout"]["watches"][0]["phase"] |= change
    saved.write(tmp_path / "a.pdrop", tensors, header)
    with pytest.raises(pv.StreamError):
        lm.resume(tmp_path / "a.pdrop")
    del header["lookout"]  # of a version that looked out for nothing
    saved.write(tmp_path / "a.pdrop", tensors, header)
    assert lm.resume(tmp_path / "a.pdrop").watches == ()
