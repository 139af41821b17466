"""`VideoStream`: what it accepts and refuses, what an answer says of itself, what the budget forgets."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from families import build, video
from reference import full_prompt, masked_forward
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import Ahead, KeyValueLayer, StreamCache
from pdrop_video.memory.columns import roomy
from pdrop_video.models import Pixels
from pdrop_video.pyramid import LayerLoop, Schedule
from pdrop_video.stream.asking import Question

QUESTION = "what is shown first ?"
PYRAMID = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25), scorer="relevance", allocator="global")
# One family that takes frames in pairs and has M-RoPE, one that takes them singly and counts; visual tokens of a step:
FAMILIES = {"qwen2_5_vl": 9, "llava_onevision": 16}  # 48 x 48 pixels in cells of 16; 7 x 7 patches pooled by two
BYTES_PER_TOKEN = 2 * 2 * 16 * 8  # of one layer: keys and values, two heads of 16 numbers in float64

build_once = functools.cache(build)


@pytest.fixture(params=FAMILIES)
def lm(request: pytest.FixtureRequest) -> pv.VideoLM:
    """A model of each kind; never changed."""
    return build_once(request.param)


@pytest.fixture
def qwen() -> pv.VideoLM:
    """The family that merges frames in pairs and puts times into positions; never changed."""
    return build_once("qwen2_5_vl")


def per_step(lm: pv.VideoLM) -> int:
    return FAMILIES[lm.model.config.model_type]


def next_logits(stream: pv.VideoStream, question: str = QUESTION) -> Tensor:
    """Logits of the first token of an answer, as `ask` computes them."""
    everything = Schedule(stream.lm.num_layers, (), ())  # `ask` refuses before the first frame, this does not
    asked = Question(stream.lm, stream._ingest, stream._state, question, "", everything)
    logits = asked.prefill()
    asked.close()
    return logits


def assert_same(a: pv.VideoStream, b: pv.VideoStream) -> None:
    """Bit for bit: caches, tables, what waits, positions, and what would be answered."""
    left, right = a._state, b._state
    assert (left.place, left.rows, left.frames, left.visual_tokens, left.span) == (
        (right.place, right.rows, right.frames, right.visual_tokens, right.span)
    )
    assert (left.waiting is None) == (right.waiting is None)
    if left.waiting is not None and right.waiting is not None:
        assert torch.equal(left.waiting.frames, right.waiting.frames) and left.waiting.seconds == right.waiting.seconds
    for one, other in zip(left.cache.layers, right.cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)
    for one, other in zip(left.cache.tables, right.cache.tables, strict=True):
        assert torch.equal(one.index, other.index) and torch.equal(one.score, other.score)
    assert torch.equal(next_logits(a), next_logits(b))


def pair(lm: pv.VideoLM, budget: int | None = 60) -> tuple[pv.VideoStream, pv.VideoStream]:
    """Two streams that saw the same five frames (an odd one waits where the family takes pairs)."""
    streams = tuple(lm.stream(PYRAMID, pv.Memory(tokens=budget)) for _ in range(2))
    for stream in streams:
        stream.push(video(5), [0.0, 0.5, 1.0, 1.5, 2.0])
    return streams  # type: ignore[return-value]


# -- bad input --------------------------------------------------------------------------------------------------------

FRAMES = video(2)
BAD_FRAMES: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "float tensor": (lambda: FRAMES.float(), [3, 4], "dtype torch.float32; expected uint8"),
    "float array": (lambda: FRAMES.numpy() / 255, [3, 4], "dtype float64; expected uint8"),
    "signed": (lambda: FRAMES.to(torch.int16), [3, 4], "dtype torch.int16; expected uint8"),
    "a list": (lambda: FRAMES.tolist(), [3, 4], "frames are a list"),
    "nothing": (lambda: None, [3, 4], "frames are a NoneType"),
    "one picture": (lambda: FRAMES[0], [3], r"shape \(60, 72, 3\).*This looks like one frame"),
    "colours second": (
        lambda: FRAMES.permute(0, 3, 1, 2),
        [3, 4],
        r"shape \(2, 3, 60, 72\).*colours seem to come second",
    ),
    "alpha": (lambda: torch.cat([FRAMES, FRAMES[..., :1]], -1), [3, 4], r"shape \(2, 60, 72, 4\).*alpha"),
    "grey": (lambda: FRAMES[..., :1], [3, 4], r"shape \(2, 60, 72, 1\).*grey"),
    "zero frames": (lambda: FRAMES[:0], [], r"shape \(0, 60, 72, 3\); expected at least one frame"),
    "zero height": (lambda: FRAMES[:, :0], [3, 4], r"shape \(2, 0, 72, 3\); expected at least one frame"),
    "no seconds": (lambda: FRAMES, None, "frames came without seconds"),
    "too few seconds": (lambda: FRAMES, [3], "2 frames came with 1 times"),
    "too many seconds": (lambda: FRAMES, [3, 4, 5], "2 frames came with 3 times"),
    "one number": (lambda: FRAMES, 3.0, "seconds are 3.0"),
    "words": (lambda: FRAMES, ["now", "then"], "not a number.*'now'"),
    "NaN time": (lambda: FRAMES, [3, math.nan], "time of frame 1 is nan"),
    "infinite time": (lambda: FRAMES, [3, math.inf], "time of frame 1 is inf"),
    "back within": (lambda: FRAMES, [4, 3.5], "times go back: frame 1 is at 3.5 s after frame 0 at 4.0 s"),
    "still within": (lambda: FRAMES, [4, 4], "times go back: frame 1 is at 4.0 s after frame 0 at 4.0 s"),
    "back across": (lambda: FRAMES, [1.75, 3], "times go back: the chunk starts at 1.75 s, but frames up to 2 s"),
    "still across": (lambda: FRAMES, [2.0, 3], "times go back: the chunk starts at 2 s, but frames up to 2 s"),
    "seconds twice": (lambda: pv.FrameChunk.of(FRAMES, [3, 4]), [3, 4], "seconds were given beside a FrameChunk"),
}


@pytest.mark.parametrize("bad", BAD_FRAMES)
def test_bad_frames_are_refused_and_leave_no_trace(lm: pv.VideoLM, bad: str) -> None:
    frames, seconds, said = BAD_FRAMES[bad]
    stream, twin = pair(lm)
    with pytest.raises(pv.FrameError, match=said) as raised:
        stream.push(frames(), seconds)
    assert isinstance(raised.value, pv.PDropError) and isinstance(raised.value, ValueError)
    assert_same(stream, twin)
    for each in (stream, twin):
        each.push(video(4, seed=1), [3.0, 4.0, 5.0, 6.0])
    assert_same(stream, twin)


def test_too_long_a_picture_is_refused_in_the_middle_of_a_push(qwen: pv.VideoLM) -> None:
    """By then the odd frame that waited, whose size differs, went through the model already."""
    stream, twin = pair(qwen)
    with pytest.raises(pv.FrameError, match="frames of 2 x 500 pixels can't be resized"):
        stream.push(video(4, height=2, width=500), [3, 4, 5, 6])
    assert_same(stream, twin)


def test_a_failure_in_the_middle_of_a_push_leaves_no_trace(lm: pv.VideoLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails, wherever: here the last layer, after evictions and appends in the others."""
    stream, twin = pair(lm)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lm.model.get_decoder().layers[5].mlp, "forward", fail)
        with pytest.raises(KeyboardInterrupt):
            stream.push(video(6, seed=1), range(3, 9))
    assert_same(stream, twin)
    for each in (stream, twin):
        each.push(video(4, seed=2), [3.0, 4.0, 5.0, 6.0])
    assert_same(stream, twin)


BAD_QUESTIONS: dict[str, tuple[tuple[Any, ...], str]] = {
    "empty": (("",), "the question is ''"),
    "blank": ((" \n",), r"the question is ' \\n'"),
    "none": ((None,), "the question is None"),
    "bytes": ((b"what",), "the question is b'what'"),
    "no tokens": ((QUESTION, 0), "max_new_tokens is 0"),
    "negative": ((QUESTION, -3), "max_new_tokens is -3"),
    "a fraction": ((QUESTION, 2.5), "max_new_tokens is 2.5"),
    "a flag": ((QUESTION, True), "max_new_tokens is True"),
}


@pytest.mark.parametrize("bad", BAD_QUESTIONS)
@pytest.mark.parametrize("live", [False, True])
def test_bad_questions_are_refused_and_leave_no_trace(qwen: pv.VideoLM, bad: str, live: bool) -> None:
    arguments, said = BAD_QUESTIONS[bad]
    stream, twin = pair(qwen)
    with pytest.raises(pv.ConfigError, match=said):
        stream.ask(*arguments, stream=live)  # at once, not when the answer is read
    assert_same(stream, twin)


@pytest.mark.parametrize("live", [False, True])
def test_asking_before_any_frame(lm: pv.VideoLM, live: bool) -> None:
    stream, twin = lm.stream(PYRAMID), lm.stream(PYRAMID)
    with pytest.raises(pv.StreamError, match="nothing was watched yet; push at least one frame"):
        stream.ask(QUESTION, stream=live)
    assert_same(stream, twin)
    stream.push(FRAMES, [0, 1])
    assert stream.ask(QUESTION, 2).frames == 2


BAD_SETTINGS: dict[str, tuple[Callable[[pv.VideoLM], Any], str]] = {
    "compact": (lambda lm: lm.stream(pv.Pyramid(positions="compact")), '"compact"'),
    "layer past the model": (
        lambda lm: lm.stream(pv.Pyramid(layers=(2, 6), ratios=(0.5, 0.2))),
        r"layers=\(2, 6\) reach past the model, whose decoder layers are 0 to 5",
    ),
    "more stages than layers": (lambda lm: lm.stream(pv.Pyramid(stages=7)), "7 stages.*a model with 6 layers"),
    "average out of reach": (
        lambda lm: lm.stream(pv.Pyramid(stages=1, average=0.5)),
        "average of 0.500 can't be reached",
    ),
    "rising ratios": (lambda lm: pv.Pyramid(ratios=(0.25, 0.5)), r"ratios=\(0.25, 0.5\) rise"),
    "ratio of zero": (lambda lm: pv.Pyramid(ratios=(0.5, 0)), "each of ratios is 0; expected a share"),
    "ratio above one": (lambda lm: pv.Pyramid(ratios=(1.5,)), "each of ratios is 1.5; expected a share"),
    "unsorted layers": (lambda lm: pv.Pyramid(layers=(4, 2), ratios=(0.5, 0.2)), r"layers=\(4, 2\) are not strictly"),
    "layer below zero": (
        lambda lm: pv.Pyramid(layers=(-1,), ratios=(0.5,)),
        "each of layers is -1; expected a whole number from 0",
    ),
    "counts that differ": (lambda lm: pv.Pyramid(layers=(2, 4), ratios=(0.5,)), "layers make 3, ratios make 2"),
    "no memory": (lambda lm: pv.Memory(tokens=0), r"Memory\(tokens=0\): expected a whole number from 1"),
    "memory in words": (lambda lm: pv.Memory(tokens="much"), r"Memory\(tokens='much'\)"),  # type: ignore[arg-type]
    "no room for the prompt": (
        lambda lm: lm.stream(PYRAMID, pv.Memory(tokens=4)),
        r"^a memory of 4 tokens a layer leaves no room beside \d+ tokens of prompt and probe",
    ),
}


@pytest.mark.parametrize("bad", BAD_SETTINGS)
def test_bad_settings(lm: pv.VideoLM, bad: str) -> None:
    make, said = BAD_SETTINGS[bad]
    stream, twin = pair(lm)
    with pytest.raises(pv.ConfigError, match=said):
        make(lm)
    assert_same(stream, twin)  # a stream that is open on the same model does not mind


def test_compact_positions_on_a_family_without_mrope() -> None:
    """M-RoPE refuses them by itself; here the stream must."""
    with pytest.raises(pv.ConfigError, match="can't go on from chunk to chunk"):
        build_once("llava_onevision").stream(pv.Pyramid(positions="compact"))


def test_no_room_for_one_step() -> None:
    """Pictures that fit are still welcome, and one token more would have been enough."""
    lm = build("qwen2_5_vl")
    lm.adapter.pixels = Pixels(size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64})
    text = len(lm.prompt.before()) + len(lm.prompt.after(""))
    stream, twin = (lm.stream(PYRAMID, pv.Memory(tokens=text + 15)) for _ in range(2))
    said = rf"^a memory of {text + 15} tokens a layer can't hold one step of 16 .*beside {text} "
    with pytest.raises(pv.ConfigError, match=said):
        stream.push(video(2, height=64, width=64), [0, 1])
    with pytest.raises(pv.StreamError, match="nothing was watched yet"):
        stream.ask(QUESTION)
    for each in (stream, twin):
        each.push(video(2, height=32, width=48), [0, 1])
    assert_same(stream, twin)
    with pytest.raises(pv.ConfigError, match="can't hold one step of 16"):
        stream.push(video(2, height=64, width=64), [2, 3])
    assert_same(stream, twin)
    enough = lm.stream(PYRAMID, pv.Memory(tokens=text + 16))
    assert enough.push(video(2, height=64, width=64), [0, 1]).kept == (16, 8, 4)


# -- what may be pushed -----------------------------------------------------------------------------------------------


def read_only(frames: Tensor) -> np.ndarray:
    array = frames.numpy().copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "form",
    [
        lambda f, s: (f.numpy(), s),
        lambda f, s: (read_only(f), s),
        lambda f, s: (f.numpy()[:, ::-1].copy()[:, ::-1], s),  # negative strides
        lambda f, s: (f, np.array(s)),
        lambda f, s: (f, torch.tensor(s, dtype=torch.float64)),
        lambda f, s: (f, (x for x in s)),
        lambda f, s: (pv.FrameChunk.of(f, s),),
        lambda f, s: (pv.FrameChunk.of(f.numpy(), np.array(s), source="camera"),),
    ],
    ids=[
        "array",
        "read-only",
        "negative strides",
        "array of times",
        "tensor of times",
        "generator",
        "chunk",
        "chunk of array",
    ],
)
def test_arrays_tensors_and_chunks_are_the_same(lm: pv.VideoLM, form: Callable[..., tuple[Any, ...]]) -> None:
    one, other = lm.stream(PYRAMID), lm.stream(PYRAMID)
    for start in (0, 3):
        frames, seconds = video(3, seed=start), [start + 0.25, start + 1.0, start + 2.5]
        first, second = one.push(frames, seconds), other.push(*form(frames, seconds))
        assert (first.frames, first.waiting, first.visual_tokens, first.kept) == (
            (second.frames, second.waiting, second.visual_tokens, second.kept)
        )
    assert_same(one, other)


def test_the_callers_frames_are_neither_changed_nor_kept(qwen: pv.VideoLM) -> None:
    """A camera may use its buffer again, although the last of its frames waits for a partner."""
    stream, twin = qwen.stream(PYRAMID), qwen.stream(PYRAMID)
    buffer, frames = video(3), video(3)
    stream.push(buffer, [0, 1, 2])
    assert torch.equal(buffer, frames)
    buffer.zero_()
    twin.push(frames, [0, 1, 2])
    assert_same(stream, twin)
    for each in (stream, twin):
        each.push(video(3, seed=2), [7, 8, 9])
    assert_same(stream, twin)


def test_pushed_counts(lm: pv.VideoLM) -> None:
    stream, step, n = lm.stream(PYRAMID), lm.adapter.frames_per_step, per_step(lm)
    seen = []
    for start, frames in ((0, 5), (5, 1), (6, 1), (7, 2)):
        pushed = stream.push(video(frames), range(start, start + frames))
        assert pushed.frames == frames
        seen.append((pushed.waiting, pushed.visual_tokens // n, pushed.kept))
    if step == 2:
        half, quarter = int(n * 0.5), int(n * 0.25)  # of one step; 18 tokens of two leave 9 and 4
        assert (n, half, quarter) == (9, 4, 2)
        assert seen == [(1, 2, (18, 9, 4)), (0, 1, (9, 4, 2)), (1, 0, (0, 0, 0)), (1, 1, (9, 4, 2))]
    else:
        assert seen == [(0, 5, (80, 40, 20)), (0, 1, (16, 8, 4)), (0, 1, (16, 8, 4)), (0, 2, (32, 16, 8))]


# -- odd frames and other sizes ---------------------------------------------------------------------------------------


def test_an_odd_frame_waits_and_is_seen_by_ask_alone(qwen: pv.VideoLM) -> None:
    frames, seconds = video(7), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    odd, padded, even = (qwen.stream(PYRAMID, pv.Memory(tokens=60)) for _ in range(3))
    for each in (odd, padded, even):
        each.push(frames[:2], seconds[:2])
    assert odd.push(frames[2:3], seconds[2:3]).waiting == 1
    padded.push(frames[[2, 2]], [1.0, 1.1])
    assert torch.equal(next_logits(odd), next_logits(padded))
    first, second = odd.ask(QUESTION, 6), padded.ask(QUESTION, 6)
    assert first.token_ids == second.token_ids and (first.frames, second.frames) == (3, 4)
    # what an answer says of itself counts the frame that it saw
    assert (first.visual_tokens, first.kept, first.cache_tokens) == (18, second.kept, second.cache_tokens)
    assert not torch.equal(next_logits(even), next_logits(odd))
    odd.push(frames[3:5], seconds[3:5])  # its partner came: nothing of the padding remains
    even.push(frames[2:4], seconds[2:4])
    even.push(frames[4:5], seconds[4:5])
    assert_same(odd, even)


def test_a_single_frame_can_be_asked_about(lm: pv.VideoLM) -> None:
    stream, step = lm.stream(PYRAMID), lm.adapter.frames_per_step
    stream.push(FRAMES[:1], [5.0])
    answer = stream.ask(QUESTION, 2)
    n = per_step(lm)
    assert (answer.frames, answer.seconds, answer.visual_tokens) == (1, (5.0, 5.0), n)
    assert answer.kept == (n, n // 2, n // 4)
    assert stream.held().visual.sum() == (n if step == 1 else 0)


def test_another_size_of_picture_in_mid_stream(qwen: pv.VideoLM) -> None:
    """The odd frame before it finds no partner and is filled up with itself; the grid changes, time goes on."""
    wide, times = video(4, seed=1, height=40, width=120), [3.0, 3.5, 4.0, 6.0]
    stream, by_hand = qwen.stream(PYRAMID), qwen.stream(PYRAMID)
    frames = video(5)
    stream.push(frames, [0.0, 0.5, 1.0, 1.5, 2.0])
    pushed = stream.push(wide, times)
    by_hand.push(frames[:4], [0.0, 0.5, 1.0, 1.5])
    by_hand.push(frames[[4, 4]], [2.0, 2.1])
    by_hand.push(wide, times)
    assert torch.equal(next_logits(stream), next_logits(by_hand))
    for one, other in zip(stream._state.cache.layers, by_hand._state.cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys)
    assert pushed.visual_tokens == 9 + 2 * 12 and pushed.waiting == 0  # 32 x 96 pixels: 2 x 6 cells of 16
    table = stream.held()
    assert table.row[table.visual].max() == 2 and table.column[table.visual].max() == 5


def test_sizes_do_not_matter_to_a_family_of_one_size() -> None:
    lm = build_once("llava_onevision")
    stream = lm.stream(PYRAMID)
    for start, size in enumerate(((60, 72), (40, 120), (56, 56), (1, 300))):
        assert stream.push(video(1, height=size[0], width=size[1]), [start]).visual_tokens == 16


# -- positions --------------------------------------------------------------------------------------------------------


def recorded(lm: pv.VideoLM, monkeypatch: pytest.MonkeyPatch, system: str | None = None) -> tuple[int, list[Tensor]]:
    """Positions of every run of the layers while two chunks with irregular times are pushed and a question comes."""
    lm.stream(system=system)  # the first stream of a model runs its layers once, to see what they compute
    runs: list[Tensor] = []
    run = LayerLoop.run

    def recording(loop: LayerLoop, hidden: Tensor, positions: Tensor, *args: Any, **kwargs: Any) -> Any:
        runs.append(positions.clone())
        return run(loop, hidden, positions, *args, **kwargs)

    monkeypatch.setattr(LayerLoop, "run", recording)
    stream = lm.stream(pv.Pyramid(stages=1), system=system)
    stream.push(video(4), [100.0, 100.4, 101.3, 101.5])
    stream.push(video(2), [107.25, 107.5])
    next_logits(stream)
    return len(lm.prompt.before(system)), runs


@pytest.mark.parametrize("system", [None, "seven red"])
def test_irregular_times_enter_mrope(qwen: pv.VideoLM, monkeypatch: pytest.MonkeyPatch, system: str | None) -> None:
    """t = start + floor(2 x seconds since the video began); rows and columns from its start; text after the largest."""
    prefix, (before, first, second, question) = recorded(qwen, monkeypatch, system)
    assert before.tolist() == [[list(range(prefix))]] * 3
    grid = [(row, column) for row in range(3) for column in range(3)]
    for got, times in ((first, [0, 2]), (second, [14])):  # 100.0, 101.3 -> 2.6; 107.25 -> 14.5
        want = [[prefix + t, prefix + row, prefix + column] for t in times for row, column in grid]
        assert got[:, 0].T.tolist() == want
    asked = len(qwen.prompt.after(QUESTION))
    assert question.tolist() == [[list(range(prefix + 15, prefix + 15 + asked))]] * 3


def test_times_play_no_part_in_one_dimensional_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = build_once("llava_onevision")
    _, runs = recorded(lm, monkeypatch)
    positions = torch.cat(runs, -1)
    assert positions.tolist() == [list(range(positions.shape[-1]))]


# -- prompts ----------------------------------------------------------------------------------------------------------


def test_system_prompt(lm: pv.VideoLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """It enters the prefix: counted there, and equal to the unmodified model over the whole prompt."""
    frames, seconds = video(4), [0.0, 0.5, 1.0, 1.5]
    plain, told = lm.stream(pv.Pyramid(stages=1)), lm.stream(pv.Pyramid(stages=1), system="how many red")
    for stream in (plain, told):
        stream.push(frames, seconds)
    before = lm.prompt.before("how many red")
    assert len(before) > len(lm.prompt.before())
    assert told.ask(QUESTION, 1).cache_tokens[0] - plain.ask(QUESTION, 1).cache_tokens[0] == (
        len(before) - len(lm.prompt.before())
    )
    monkeypatch.setattr(lm.prompt, "before", lambda: before)
    inputs, _, _ = full_prompt(lm, frames, seconds, QUESTION)
    want = masked_forward(lm, inputs, None)[-1]
    torch.testing.assert_close(next_logits(told), want, atol=1e-9, rtol=0)
    assert (next_logits(plain) - want).abs().max() > 1e-3


def test_standing_question_decides_what_is_kept(lm: pv.VideoLM) -> None:
    frames, seconds = video(12), [0.5 * i for i in range(12)]
    kept = []
    for standing in (None, "how many red ?", "what is last ?", "what is last ?"):
        stream = lm.stream(PYRAMID, standing_question=standing)
        stream.push(frames, seconds)
        kept.append([stream.held(stage).index.tolist() for stage in range(3)])
    none, red, last, again = kept
    assert none[0] == red[0] == last[0]  # the first stage keeps everything
    assert none != red and red != last and last != none and last == again
    # without a drop it decides nothing, and its own keys are gone
    free = [lm.stream(pv.Pyramid(stages=1), standing_question=standing) for standing in (None, "what is last ?")]
    ratio_one = lm.stream(pv.Pyramid(ratios=(1.0, 1.0)), standing_question="what is last ?")
    for stream in (*free, ratio_one):
        stream.push(frames, seconds)
    assert torch.equal(next_logits(free[0]), next_logits(free[1]))
    torch.testing.assert_close(next_logits(ratio_one), next_logits(free[0]), atol=1e-9, rtol=0)


def test_a_stage_keeps_its_best_scored(lm: pv.VideoLM) -> None:
    """The scores in the tables are those that ranked: the next stage holds the best of them, ties to the earlier."""
    stream = lm.stream(PYRAMID)
    stream.push(video(4), [0.0, 0.5, 1.0, 1.5])
    for stage, ratio in ((0, 0.5), (1, 0.25)):
        table = stream.held(stage)
        rows = [
            (-s, i)
            for s, i, v in zip(*(x.tolist() for x in (table.score, table.index, table.visual)), strict=True)
            if v
        ]
        entered = int(stream.held(0).visual.sum())
        best = sorted(index for _, index in sorted(rows)[: int(entered * ratio)])
        after = stream.held(stage + 1)
        assert after.index[after.visual].tolist() == best
        assert len({score for score, _ in rows}) > len(rows) // 2  # scores differ, so the order means something


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [None, 60])
def test_answer_fields(lm: pv.VideoLM, budget: int | None) -> None:
    stream, n, step = lm.stream(PYRAMID, pv.Memory(tokens=budget)), per_step(lm), lm.adapter.frames_per_step
    sizes = [2 * step, step, 3 * step]
    start = 0
    for frames in sizes:
        stream.push(video(frames, seed=start), [10 + 0.5 * i for i in range(start, start + frames)])
        start += frames
    answer = stream.ask(QUESTION, max_new_tokens=7)
    prefix, probe = len(lm.prompt.before()), len(lm.prompt.after("")) + len(lm.adapter.closing())
    assert (answer.question, answer.frames, answer.seconds) == (QUESTION, 6 * step, (10.0, 10 + 0.5 * (6 * step - 1)))
    assert answer.visual_tokens == 6 * n
    if budget is None:
        assert answer.kept == tuple(sum(int(f // step * n * r) for f in sizes) for r in (1, 0.5, 0.25))
    else:  # the shallow layers are full but for the room of the probe
        assert answer.kept[0] == 60 - prefix - probe
    assert answer.cache_tokens == tuple(prefix + answer.kept[stage] for stage in (0, 0, 1, 1, 2, 2))
    assert answer.cache_tokens == tuple(len(stream._state.cache.layers[i].keys[0, 0]) for i in range(6))
    assert answer.cache_bytes == sum(answer.cache_tokens) * BYTES_PER_TOKEN
    assert len(answer.token_ids) == 7 and not answer.finished
    assert answer.text == str(answer) == lm.tokenizer.decode(answer.token_ids, skip_special_tokens=True).strip()
    assert min(answer.timings.push, answer.timings.first_token, answer.timings.decode) > 0


@pytest.mark.parametrize("where", ["generation config", "list in generation config", "tokenizer"])
def test_an_answer_ends_with_its_turn(where: str) -> None:
    lm = build("qwen2_5_vl")
    stream, _ = pair(lm)
    cut = stream.ask(QUESTION, max_new_tokens=20)
    assert not cut.finished and len(cut.token_ids) == 20
    end = next(token for token in cut.token_ids if token != cut.token_ids[0])
    first = cut.token_ids.index(end)
    if where == "tokenizer":
        lm.tokenizer.eos_token = lm.tokenizer.convert_ids_to_tokens(end)
    else:
        lm.model.generation_config.eos_token_id = end if where == "generation config" else [199, end]
    whole = stream.ask(QUESTION, max_new_tokens=20)
    assert whole.finished and whole.token_ids == cut.token_ids[:first]
    assert not stream.ask(QUESTION, max_new_tokens=first).finished  # cut one before its end
    assert stream.ask(QUESTION, max_new_tokens=first + 1).finished


def test_an_empty_answer(qwen: pv.VideoLM, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, _ = pair(qwen)
    monkeypatch.setattr(qwen.model.generation_config, "eos_token_id", stream.ask(QUESTION, 1).token_ids[0])
    answer = stream.ask(QUESTION)
    assert (answer.text, answer.token_ids, answer.finished) == ("", (), True)
    assert list(stream.ask(QUESTION, stream=True)) == []


def test_pieces_joined_are_the_text(lm: pv.VideoLM) -> None:
    stream, twin = pair(lm)
    whole = stream.ask(QUESTION, max_new_tokens=15)
    live = stream.ask(QUESTION, max_new_tokens=15, stream=True)
    pieces = []
    for piece in live:
        assert live.answer is None and piece
        pieces.append(piece)
    assert len(pieces) > 3 and "".join(pieces).strip() == whole.text
    answer = live.finish()
    assert live.answer is answer and answer.token_ids == whole.token_ids and answer.text == whole.text
    halfway = stream.ask(QUESTION, max_new_tokens=15, stream=True)
    next(halfway)
    assert halfway.finish().token_ids == whole.token_ids
    assert_same(stream, twin)


def test_an_answer_is_about_what_was_watched_when_it_was_asked(lm: pv.VideoLM) -> None:
    stream, twin = pair(lm)
    want = twin.ask(QUESTION, max_new_tokens=10)
    live = stream.ask(QUESTION, max_new_tokens=10, stream=True)
    stream.push(video(6, seed=1), range(3, 9))  # before the first piece is read
    got = live.finish()
    assert got.token_ids == want.token_ids and got.frames == 5 and got.kept == want.kept
    twin.push(video(6, seed=1), range(3, 9))
    assert_same(stream, twin)


def test_several_questions_do_not_see_each_other(lm: pv.VideoLM) -> None:
    stream, twin = pair(lm)
    other = twin.ask("how many red ?", max_new_tokens=8).token_ids
    stream.ask(QUESTION, max_new_tokens=8)
    assert stream.ask("how many red ?", max_new_tokens=8).token_ids == other
    logits = next_logits(stream, "how many red ?")
    assert not torch.equal(logits, next_logits(stream))  # the question does matter


# -- the budget -------------------------------------------------------------------------------------------------------


def left_by_hand(rows: list[tuple[int, int, float, bool]], keep: int) -> list[int]:
    """Numbers that stay when the oldest chunk's lowest-scored visual tokens go one by one (of equals the later)."""
    rows = list(rows)
    while len(rows) > keep:
        visual = [row for row in rows if row[3]]
        oldest = min(chunk for _, chunk, _, _ in visual)
        lowest = min(score for _, chunk, score, _ in visual if chunk == oldest)
        rows.remove([row for row in visual if row[1:3] == (oldest, lowest)][-1])
    return [row[0] for row in rows]


@pytest.mark.parametrize("budget", [45, 60])
def test_the_budget_holds_and_forgets_as_told(lm: pv.VideoLM, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No layer is over it at any moment of a push; what goes is checked against the rule in plain Python."""
    longest, evictions = 0, 0
    update, make_room = KeyValueLayer.update, StreamCache.make_room

    def measured(layer: KeyValueLayer, *args: Any, **kwargs: Any) -> Any:
        nonlocal longest
        held = update(layer, *args, **kwargs)
        longest = max(longest, held[0].shape[-2])
        return held

    def checked(cache: StreamCache, incoming: list[int], ahead: Ahead) -> None:
        nonlocal evictions
        tables, keys = list(cache.tables), [layer.keys.clone() for layer in cache.layers]
        make_room(cache, incoming, ahead)
        for old, new, before, layer, more in zip(tables, cache.tables, keys, cache.layers, incoming, strict=True):
            rows = list(
                zip(*(getattr(old, name).tolist() for name in ("index", "chunk", "score", "visual")), strict=True)
            )
            want = left_by_hand(rows, budget - more)
            assert sorted(new.index.tolist()) == sorted(want)  # columns close ranks in no particular order
            columns = [row[0] for row in rows]
            assert torch.equal(layer.keys, before[:, :, [columns.index(number) for number in new.index.tolist()]])
            evictions += len(rows) - len(want)

    monkeypatch.setattr(KeyValueLayer, "update", measured)
    monkeypatch.setattr(StreamCache, "make_room", checked)
    stream, fresh = (lm.stream(PYRAMID, pv.Memory(tokens=budget, evictor="oldest")) for _ in range(2))
    prefix = len(lm.prompt.before())
    start = 0
    for frames in (3, 2, 1, 4, 2, 12, 1, 2):  # twelve make more tokens than the budget: they go in pieces
        stream.push(video(frames, seed=start), range(start, start + frames))
        start += frames
        assert longest <= budget
        for stage in range(3):
            assert stream.held(stage).index[:prefix].tolist() == list(range(prefix))
    assert longest == budget and evictions > 100
    for old, new in zip(fresh._state.cache.layers, stream._state.cache.layers, strict=True):
        assert torch.equal(old.keys, new.keys[:, :, :prefix]) and torch.equal(old.values, new.values[:, :, :prefix])
    newest = stream._state.chunks - 1
    assert all(bool((stream.held(stage).chunk == newest).any()) for stage in range(3))


def test_a_larger_budget_than_needed_changes_nothing(lm: pv.VideoLM) -> None:
    free, roomy = lm.stream(PYRAMID, pv.Memory(tokens=None)), lm.stream(PYRAMID, pv.Memory(tokens=5000))
    for each in (free, roomy):
        each.push(video(5), range(5))
        each.push(video(4, seed=1), range(5, 9))
    assert_same(free, roomy)
    tight = lm.stream(PYRAMID, pv.Memory(tokens=45))
    tight.push(video(5), range(5))
    tight.push(video(4, seed=1), range(5, 9))
    assert not torch.equal(next_logits(tight), next_logits(free))


def test_memory_does_not_grow(qwen: pv.VideoLM) -> None:
    """Not once all layers are full, of which the deepest gets a token a push or two."""
    stream = qwen.stream(PYRAMID, pv.Memory(tokens=60))
    frames, sizes = video(2), []
    for i in range(80):
        stream.push(frames, [2 * i, 2 * i + 1])
        rooms = [layer.columns.room for layer in stream._state.cache.layers]
        assert max(room.capacity for room in rooms) <= roomy(60)
        sizes.append(sum(part.numel() for room in rooms for part in room.parts))
    assert max(sizes[40:]) <= max(sizes[:40])
