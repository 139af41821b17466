"""Times of any size: pauses of days, Unix time at any frame rate, and steps whose number and time get long in words."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, build, cases, video
from rawkeys import TRAINED, Raw, small
from safetensors import safe_open
from safetensors.torch import save_file
from test_modes import remembered

import pdrop_video as pv
from pdrop_video.memory import Window, table
from pdrop_video.models.positions import MRopePositions, Place
from pdrop_video.stream import records, resumed, state

QUESTION = "what is shown first ?"
EVERYTHING, NOTHING_LOST = pv.Pyramid(stages=1), pv.Memory(tokens=None)
CLIP = Path(__file__).parents[1] / "demos" / "clips" / "clip.mp4"
DAY, NOW = 86_400.0, 1_790_000_000.0
ASKED = (
    "What colour is shown first in the video?",
    "Name the one of these that appears: 4, key, car or cross.",
    "Tell me which colour the circle has.",
    "How many things are shown in the clip?",
    "In which direction is the marker going?",
)

# -- pauses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [None, 256])
def test_a_pause_of_days_changes_no_answer_of_the_built_in_model(tokens: int | None) -> None:
    """It would swap three of these five, were positions left where the pause puts them (the control)."""
    lm, memory = pv.load(), pv.Memory(tokens=tokens)
    with pv.open_video(str(CLIP), fps=2) as reader:
        chunks = list(reader)

    def answers(memory: pv.Memory, *pauses: float) -> list[str]:
        stream = lm.stream(memory=memory)
        for number, chunk in enumerate(chunks):
            shift = sum(pauses[:number])
            stream.push(chunk.frames, [s + shift for s in chunk.seconds])
        return [stream.ask(question, 8).text for question in ASKED]

    want = answers(memory)
    for pauses in ((0, DAY), (5 * DAY, 0), (30 * DAY, 2 * DAY)):
        assert answers(memory, *pauses) == want
    with pytest.warns(UserWarning, match=r"beyond the 32,768 that the model was trained with: answers may be wrong"):
        assert answers(replace(memory, positions="original"), 0, DAY) != want


def test_without_a_limit_gaps_close_as_well() -> None:
    """Every key is one rotation, by the model, of its un-rotated self, and none is forgotten."""
    lm = small("qwen2_5_vl")
    stream, step = lm.stream(EVERYTHING, NOTHING_LOST), lm.adapter.frames_per_step
    raw, prefix = Raw(stream), len(lm.prompt.before())
    for keys, layer in zip(raw.keys, stream._state.cache.layers, strict=True):  # the prompt never moves
        keys |= {n: torch.zeros_like(layer.keys[0, :, n]) for n in range(prefix)}
    seconds = 0.0
    for i in range(6):
        seconds += 3 * DAY if i in (2, 4) else 2.0
        stream.push(video(step, seed=i), [seconds + j / 2 for j in range(step)])
        raw.note()
        for j, layer in enumerate(stream._state.cache.layers):
            held = stream._state.cache.tables[j]
            rows = held.index >= prefix
            torch.testing.assert_close(layer.keys[0][:, rows], raw.expected(j)[:, rows], atol=2e-5, rtol=0)
            assert int(held.now.max()) < TRAINED["qwen2_5_vl"] and len(held) == stream.cache_tokens[j]
            assert (held.in_time().now[:, 0].diff() >= 0).all()
    assert all(layer.entered is not None for layer in stream._state.cache.layers)
    seen: list[int] = []
    stream.loop.text.rotary_emb.register_forward_pre_hook(lambda m, a: seen.append(int(a[1].max())))
    stream.ask(QUESTION, max_new_tokens=4)
    assert max(seen) < TRAINED["qwen2_5_vl"]


def test_more_tokens_than_positions_are_said_once_and_cost_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no gap is left nothing moves, so that no key is held twice; and it is not tried again at every push."""
    lm, tried, squeeze = build("llava_onevision"), [], Window.squeeze
    lm.model.config.get_text_config().max_position_embeddings = 640
    monkeypatch.setattr(Window, "squeeze", lambda *a: tried.append(1) or squeeze(*a))
    free, original = (lm.stream(EVERYTHING, pv.Memory(tokens=None, positions=p)) for p in (None, "original"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for i in range(60):  # of 16 tokens each: half of them lie beyond the range
            for stream in (free, original):
                stream.push(video(1, seed=i), [float(i)])
    texts = [str(each.message) for each in said if "trained with" in str(each.message)]
    assert len(texts) == 2 and all("beyond the 640" in text for text in texts)
    for one, other in zip(free._state.cache.layers, original._state.cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys) and one.entered is None
    assert 1 < len(tried) <= 1 + (60 * 16 - 480) // (480 // 8)


@pytest.mark.parametrize("positions", [None, "original"])
def test_what_float32_can_not_count_is_refused(positions: Any) -> None:
    lm = build("qwen2_5_vl")
    stream, calm = (lm.stream(EVERYTHING, pv.Memory(tokens=None, positions=positions)) for _ in range(2))
    for each in (stream, calm):
        each.push(video(2), [0.0, 0.5])
    if positions == "original":
        with pytest.raises(pv.ConfigError, match=r"come to 17,280,0\d\d, and beyond 16,777,216 .* can't tell"):
            stream.push(video(2), [100 * DAY, 100 * DAY + 0.5])
        assert remembered(stream)[:-1] == remembered(calm)[:-1]
    for each in (stream, calm):
        each.push(video(2), [1.0, 1.5] if positions else [10_000 * DAY, 10_000 * DAY + 1])
    assert remembered(stream)[:-1] == remembered(calm)[:-1]


# -- Unix time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("evictor", ["pyramid", "hermes", "streaming_vlm", "uniform"])
def test_unix_time_is_time_like_any_other(evictor: str, tmp_path: Path) -> None:
    """Thirty frames a second, for three days with pauses: the same is kept as of the same times from 0 on.

    And every step has a time of its own: in what is held, in evidence, in the archive, in a saved file.
    """
    lm = build("qwen2_5_vl")
    memory = pv.Memory(tokens=120, evictor=evictor, archive=10**8)
    streams, told = [lm.stream(pv.Pyramid(stages=3), memory) for _ in range(2)], []
    for i in range(24):
        times = [DAY * (i // 8) + (4 * i + j) / 32 for j in range(4)]  # whole in either scale, so that both are exact
        told += [NOW + s for s in times[::2]]
        for stream, since in zip(streams, (0.0, NOW), strict=True):
            stream.push(video(4, seed=i), [since + s for s in times])
        if i == 12:
            for stream in streams:
                stream.ask(QUESTION, 2, keep=True)  # text without a time must not count as of 1970
    small, unix = streams
    for one, other in zip(small._state.cache.tables, unix._state.cache.tables, strict=True):
        assert torch.equal(one.index, other.index) and torch.equal(one.now, other.now)
        assert torch.equal(other.seconds[other.visual], one.seconds[one.visual] + NOW)
    for one, other in zip(small._state.cache.layers, unix._state.cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys)
    answer = unix.ask(QUESTION, 1, retrieve=100)
    for part in answer.evidence:
        assert set(part.seconds) <= set(told)
    assert answer.evidence[0].seconds == tuple(told)  # all of them, brought back
    unix.save(tmp_path / "a.pdrop")
    again = lm.resume(tmp_path / "a.pdrop")
    assert again.ask(QUESTION, 1, retrieve=100).evidence == answer.evidence
    assert remembered(again) == remembered(unix)


def test_thirty_frames_a_second_for_days_are_told_apart() -> None:
    lm = build("llava_onevision")
    stream, told = lm.stream(EVERYTHING, NOTHING_LOST), []
    for day in (0, 1, 30, 3000):
        told += [NOW + 0.123 + DAY * day + j / 30 for j in range(5)]
        stream.push(video(5), told[-5:])
    held = stream.held()
    assert held.seconds[held.visual].view(20, -1)[:, 0].tolist() == told
    assert stream.ask(QUESTION, 1).evidence[0].seconds == tuple(told)


@pytest.mark.parametrize("rate", [1.0, 2.0, 4.0, 25.0])
def test_positions_do_not_depend_on_where_times_begin(rate: float) -> None:
    """A whole position must not be missed by the last bit, which is worth 1 in 4 million in Unix time."""
    rule = MRopePositions(rate)
    for since in (0.1, 3600.7, NOW + 0.1, NOW + 0.123457, -NOW - 0.3):
        place, found = Place(next=7), []
        for i in range(200):
            ids, place = rule.video((1, 1, 1), (since + i / rate,), place)
            found.append(int(ids[0, 0, 0]))
        assert found == list(range(7, 207))


@pytest.mark.parametrize("seconds", [1e11, -1e12, 1_790_000_000_000.0, 1.79e18, 1e300])
def test_milliseconds_are_no_seconds(seconds: float) -> None:
    lm = build("internvl")
    stream = lm.stream(EVERYTHING, pv.Memory(tokens=100))
    with pytest.raises(pv.FrameError, match="expected times in seconds, below 1e\\+11, as Unix time is"):
        stream.push(video(1), [seconds])
    stream.push(video(1), [NOW])


def without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (table, records, state, resumed):
        monkeypatch.setattr(module, "time_dtype", lambda device: torch.float32)


def test_a_device_without_float64_counts_from_the_first_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a stream may be saved on one kind of device and go on on the other."""
    lm, memory = build("qwen2_5_vl"), pv.Memory(tokens=120, archive=10**8)
    told = [NOW + 0.1 + day * DAY + j / 2 for day in (0, 1, 2) for j in range(8)]

    def watch(stream: pv.VideoStream, first: int, last: int) -> None:
        for i in range(first, last, 4):
            stream.push(video(4, seed=i), told[i : i + 4])

    def check(stream: pv.VideoStream, width: float) -> None:
        held = stream.held()
        all_told = torch.tensor(told, dtype=torch.float64)
        for times in (held.seconds, held.until):
            found = times[held.visual].unique()
            assert found.dtype == torch.float64 and (found[:, None] - all_told).abs().amin(1).max() <= width
        evidence = stream.ask(QUESTION, 1, retrieve=100).evidence[0]
        assert len(evidence.seconds) == len(told) // 2
        for mine, theirs in zip(evidence.seconds, told[::2], strict=True):
            assert abs(mine - theirs) <= width

    plain = lm.stream(pv.Pyramid(stages=3), memory)
    watch(plain, 0, 12)
    plain.save(tmp_path / "plain")
    with monkeypatch.context() as patch:
        without_float64(patch)
        stream, other = lm.stream(pv.Pyramid(stages=3), memory), lm.resume(tmp_path / "plain")
        watch(stream, 0, 12)
        stream.save(tmp_path / "coarse")
        for each in (stream, other):
            watch(each, 12, 24)
            assert all(t.seconds.dtype == torch.float32 for t in each._state.cache.tables)
            check(each, 1 / 128)
    again = lm.resume(tmp_path / "coarse")
    for each in (again, plain):
        watch(each, 12, 24)
    check(again, 1 / 128)
    check(plain, 0)
    for one, two in zip(plain._state.cache.tables, stream._state.cache.tables, strict=True):
        assert torch.equal(one.index, two.index)


def test_a_stream_saved_with_float32_times_goes_on(tmp_path: Path) -> None:
    """As versions wrote them that had no other."""
    lm, memory = build("qwen2_5_vl"), pv.Memory(tokens=120, archive=10**8)
    stream = lm.stream(pv.Pyramid(stages=3), memory)
    for i in range(6):
        stream.push(video(4, seed=i), [4.0 * i + j for j in range(4)])
    stream.save(tmp_path / "new")
    with safe_open(str(tmp_path / "new"), framework="pt") as file:
        header = json.loads(file.metadata()["pdrop_video"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    del header["since"], header["checked"]
    header["shifts"] = [{key: shift[key] for key in ("text", "video")} for shift in header["shifts"]]
    for name, tensor in tensors.items():
        if name.endswith((".seconds", ".sums")):
            tensors[name] = tensor.float()
    save_file(tensors, tmp_path / "old", {"pdrop_video": json.dumps(header)})
    old = lm.resume(tmp_path / "old")
    assert remembered(old)[0] == remembered(stream)[0]
    for each in (stream, old):
        each.push(video(4, seed=6), [30.0 + j for j in range(4)])
    assert remembered(old)[0] == remembered(stream)[0]
    assert old.ask(QUESTION, 2, retrieve=3).evidence == stream.ask(QUESTION, 2, retrieve=3).evidence


# -- glue -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "evictor"),
    cases(FAMILIES, ["pyramid", "stream_mem"], fast=lambda f, e: e == 0 and f in (1, 2, 5, 6)),
)
def test_a_stream_that_takes_one_step_takes_every_later_one(family: str, evictor: str) -> None:
    """One token less is refused at the first push; that much is enough for the ten-millionth step, in Unix time."""
    lm = build(family)
    adapter, step = lm.adapter, lm.adapter.frames_per_step
    lm.model.config.get_text_config().max_position_embeddings = 10**6
    frames = video(step)
    shown = adapter.look(frames, tuple(map(float, range(step)))).visual_tokens
    texts = [adapter.glue(n, s) for n in (10**11, 999_999_999_999) for s in (NOW, -99_999_999_999.9)]
    words = max(len(adapter.ids(before)) + len(adapter.ids(after)) for before, after in texts)
    assert words == adapter.longest_glue() and (words > 12) == (family in ("internvl", "qwen3_vl", "smolvlm"))
    probe = lm.stream(EVERYTHING, pv.Memory(evictor=evictor))._ingest.probe
    exact = len(lm.prompt.before()) + len(probe) + shown + words
    tight = lm.stream(EVERYTHING, pv.Memory(tokens=exact - 1, evictor=evictor))
    with pytest.raises(pv.ConfigError, match=f"can't hold one step of {shown + words} tokens"):
        tight.push(frames, [float(j) for j in range(step)])
    assert tight.status.frames == 0 and tight.status.seconds is None
    stream = lm.stream(EVERYTHING, pv.Memory(tokens=exact, evictor=evictor))
    seconds = -30.0
    for number in (0, 1, 8, 9, 98, 99, 999, 9_998, 999_998, 9_999_998):
        stream._state.steps = max(stream._state.steps, number)
        seconds = max(seconds + 7, 1.5 * number) if number < 99 else max(seconds + 7, NOW + number)
        for _ in range(2):
            seconds += 2.0 * step
            stream.push(frames, [seconds + j for j in range(step)])
            assert max(stream.cache_tokens) <= exact
    said = stream.held()
    assert int(said.visual.sum()) >= shown and int(said.step.max()) == 9_999_999
