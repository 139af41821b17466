"""Notes that a stream takes: what is asked and told, how long it is remembered, within every bound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, budget, build, cases, video
from test_session import same
from test_turns import EVERYTHING, Plain, next_logits

import pdrop_video as pv
from pdrop_video.memory import EVICTORS, StreamCache

QUESTION, OTHER = "what is shown first ?", "how many ?"


def said(stream: pv.VideoStream, monkeypatch: pytest.MonkeyPatch, *texts: str) -> list[str]:
    """Let the model's answers be these; gives the questions that were asked."""
    asked, answers, ask = [], iter(texts), pv.VideoStream.ask

    def answering(self: pv.VideoStream, question: str, *args: Any, **more: Any) -> Any:
        asked.append(question)
        return replace(ask(self, QUESTION, 1), text=next(answers))

    monkeypatch.setattr(stream, "ask", answering.__get__(stream))
    return asked


@pytest.mark.parametrize("family", cases(FAMILIES, fast=lambda f: f % 3 == 0))
def test_a_note_stands_between_the_frames_as_a_step_of_its_own(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to one plain forward in which it is told; frames behind it are counted as if it was not there."""
    lm = build(family)
    step = lm.adapter.frames_per_step
    stream, plain = lm.stream(*EVERYTHING), Plain(lm)
    asked = said(stream, monkeypatch, "red\n blue ", "seven")
    stream.summarise(4.0, question="from {begin} to {end} ?", max_new_tokens=4)
    parts = [(video(step, seed=n), [70.0 * n + i / step for i in range(step)]) for n in range(3)]
    stream.push(*parts[0])
    assert stream.notes == () and asked == []
    stream.push(*parts[1])
    last = parts[1][1][-1]
    note = pv.Note(0.0, last, "red blue")
    assert stream.notes == (note,) and str(note) == "[0:00-1:10] red blue" and asked == ["from 0:00 to 1:10 ?"]
    plain.watch(torch.cat([parts[0][0], parts[1][0]]), [*parts[0][1], *parts[1][1]], 0)
    before = len(plain)
    both = [len(plain.rows), plain.place]
    plain.text(lm.prompt.after(f"{note}\n{OTHER}"), closing=True)  # no frame behind it yet
    torch.testing.assert_close(next_logits(stream), plain.logits(), atol=1e-9, rtol=0)
    for rows in (plain.rows, plain.ids, plain.features, plain.tokens):
        del rows[both[0] :]
    plain.place = both[1]
    stream.add_text("seven")
    stream.push(*parts[2])
    for told in (str(note), "seven"):
        plain.text(lm.prompt.between(told), closing=True)
    plain.watch(*parts[2], 2)
    second = pv.Note(last, parts[2][1][-1], "seven")
    assert stream.notes == (note, second)
    plain.text(lm.prompt.after(f"{second}\n{OTHER}"), closing=True)
    torch.testing.assert_close(next_logits(stream), plain.logits(), atol=1e-9, rtol=0)
    table = stream.held()
    of_note = table.step == 2
    assert not table.visual[of_note].any()
    assert len(plain.rows) and int(of_note.sum()) == len(lm.prompt.between(str(note))) + len(lm.adapter.closing())
    assert table.index[of_note].min() == before


@pytest.mark.parametrize(
    ("evictor", "family"),
    [
        ("oldest", "qwen2_5_vl"),
        *(pytest.param(evictor, "qwen2_5_vl", marks=pytest.mark.slow) for evictor in EVICTORS if evictor != "oldest"),
        pytest.param("pyramid", "internvl", marks=pytest.mark.slow),
        pytest.param("infinipot_v", "llava_onevision", marks=pytest.mark.slow),
    ],
)
def test_notes_outlive_their_frames_within_every_bound(
    evictor: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every layer: the newest whole, in a quarter of the room; older ones gone; budget and positions hold."""
    lm = build(family)
    room, step = budget(lm, 24), lm.adapter.frames_per_step
    assert room is not None
    stream = lm.stream(pv.Pyramid(layers=(2, 4), ratios=(0.7, 0.5)), pv.Memory(tokens=room, evictor=evictor))
    limits, over, record = stream._ingest.limits.tokens, [0], StreamCache.record
    assert limits is not None

    def measured(cache: StreamCache, new: Any) -> None:
        record(cache, new)
        over.append(max(held - limit for held, limit in zip(cache.lengths(), limits, strict=True)))

    monkeypatch.setattr(StreamCache, "record", measured)
    said(stream, monkeypatch, *["red"] * 60)
    stream.summarise(10.0, max_new_tokens=1, lines=3)
    times = [f"[0:{n:02}-0:{n + 10:02}] red" for n in (10, 50)]
    size = len(lm.adapter.closing()) + len(lm.prompt.between(times[0]))
    assert size == len(lm.adapter.closing()) + len(lm.prompt.between(times[1]))
    outlived = forgotten = 0
    for n in range(60):
        stream.push(video(step, seed=n), [float(n) + i / (2 * step) for i in range(step)])
        if n < 50:
            continue
        for stage, layer in enumerate((0, 2, 4)):
            table = stream.held(stage)
            shown = set(table.step[table.visual].tolist())
            text = table.step[(table.chunk >= 0) & ~table.visual].tolist()
            notes = sorted({s for s in text if s not in shown})
            whole = [s for s in notes if text.count(s) >= size - 2]  # the first is of fewer digits
            assert len(notes) - len(whole) <= 1 and notes[len(notes) - len(whole) :] == whole
            told, least = (n - 1) // 10, limits[layer] // 2 // 4 // size
            assert max(min(told, least), 1) <= len(whole) <= min(told, max(limits[layer] // 4 // size, 1) + 1)
            outlived, forgotten = outlived + sum(s < min(shown) for s in whole), forgotten + (len(whole) < told)
    assert max(over) == 0
    assert (outlived and forgotten) or evictor not in ("oldest", "window")  # others may keep a token of every frame
    assert [note.end // 1 for note in stream.notes] == [30, 40, 50]
    shift = min(shift.text for shift in stream._state.cache.stood)
    assert stream._state.place.next - shift <= stream._ingest.trained


def test_what_is_only_in_a_note_is_still_attended_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two streams whose forgotten frames were told differently answer differently; told as a subtitle, the same."""
    lm = build("qwen2_5_vl")
    logits = {}
    for how in ("note", "tell"):
        for text in ("red", "blue"):
            stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=200, evictor="oldest"))
            if how == "note":
                said(stream, monkeypatch, text)
                summary = stream.summarise(2.0, max_new_tokens=1)
            for n in range(28):
                stream.push(video(2, seed=n), [2.0 * n, 2.0 * n + 1])
                if n == 1:
                    assert how == "tell" or len(stream.notes) == 1
                    if how == "note":
                        summary.cancel()
                    else:
                        stream.add_text(text)
            assert stream.held().seconds[stream.held().visual].min() > 4
            logits[how, text] = next_logits(stream)
    assert (logits["note", "red"] - logits["note", "blue"]).abs().max() > 1e-6
    # what is left of the subtitle is what later frames took from it while it was there
    table = stream.held()
    assert not ((table.chunk >= 0) & ~table.visual & (table.step < table.step[table.visual].min())).any()


@pytest.mark.parametrize("family", cases(FAMILIES, fast=lambda f: f == 1))
def test_notes_are_saved_and_go_on(family: str, tmp_path: Path) -> None:
    """At every moment, also between a note and the frame that it goes in front of, and before it is taken."""
    lm = build(family)
    step = lm.adapter.frames_per_step

    def watched() -> pv.VideoStream:
        stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=(budget(lm, 30) or 0) * 2))
        stream.summarise(3.0, question="what ?", max_new_tokens=2, lines=3)
        return stream

    def push(stream: pv.VideoStream, n: int) -> None:
        stream.push(video(step, seed=n), [2.0 * n + i / step for i in range(step)])

    alone = watched()
    for n in range(8):
        push(alone, n)
    assert len(alone.notes) == 3
    for stop in range(1, 8):
        stream = watched()
        for n in range(stop):
            push(stream, n)
        if stop == 2:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(pv.VideoStream, "_look", lambda stream: None)
                push(stream, stop)
            stop += 1
        stream.save(tmp_path / "a.pdrop")
        resumed = lm.resume(tmp_path / "a.pdrop")
        assert resumed.notes == stream.notes and resumed._state.noted == stream._state.noted
        for n in range(stop, 8):
            push(resumed, n)
        same(resumed, alone)
        assert resumed.notes == alone.notes
        assert torch.equal(next_logits(resumed), next_logits(alone))


def test_a_note_that_fails_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = build("llava_onevision").stream()
    summary = stream.summarise(2.0, max_new_tokens=2)
    ask = pv.VideoStream.ask
    monkeypatch.setattr(pv.VideoStream, "ask", lambda *_, **__: (_ for _ in ()).throw(pv.ConfigError("no room")))
    stream.push(video(1), [0.0])
    with pytest.warns(UserWarning, match="no note could be taken: no room"):
        stream.push(video(1), [2.0])
    stream.push(video(1), [4.0])
    assert (summary.failed, str(summary.error), stream.notes) == (2, "no room", ())
    monkeypatch.setattr(pv.VideoStream, "ask", ask)
    stream.push(video(1), [5.0])
    assert stream.notes == ()
    stream.push(video(1), [6.0])
    (note,) = stream.notes
    assert (note.begin, note.end) == (0.0, 6.0) and summary.error is None


def test_a_fork_has_the_notes_and_takes_no_more() -> None:
    stream = build("llava_onevision").stream()
    stream.summarise(1.0, max_new_tokens=2)
    for n in range(3):
        stream.push(video(1, seed=n), [n])
    fork = stream.fork()
    fork.push(video(1), [9.0])
    assert fork.notes == stream.notes and len(fork.notes) == 2
    stream.push(video(1), [9.0])
    assert len(stream.notes) == 3 and len(fork.notes) == 2
    fork.summarise(1.0, max_new_tokens=2)  # its own


def test_what_can_not_be_is_refused_at_the_door() -> None:
    lm = build("qwen2_5_vl")
    stream = lm.stream()
    for wrong, match in (
        (dict(every=0), "every"),
        (dict(question=""), "question"),
        (dict(lines=0), "lines"),
        (dict(max_new_tokens=0), "max_new_tokens"),
        (dict(max_new_tokens=5000), "an eighth"),
    ):
        with pytest.raises(pv.ConfigError, match=match):
            stream.summarise(**wrong)  # type: ignore[arg-type]
    summary = stream.summarise(max_new_tokens=2)
    with pytest.raises(pv.ConfigError, match="cancel that first"):
        stream.summarise(max_new_tokens=2)
    summary.cancel()
    stream.summarise(max_new_tokens=2)
