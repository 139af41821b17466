"""Positions stay in the trained range: where gaps close, and that keys are rotated once, however often they move."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from families import FAMILIES, build, cases, video
from rawkeys import TRAINED, Raw, small
from torch import Tensor
from transformers import DynamicCache

import pdrop_video as pv
from pdrop_video.memory import Ahead, KeyValueLayer, Shift, TokenTable, Window

QUESTION = "what is shown first ?"
EVERYTHING = pv.Pyramid(stages=1)


def table_at(position: Tensor, rows: list[int], columns: list[int]) -> TokenTable:
    """Tokens at `position` [tokens, axes]; text where the row is -1."""
    count = len(rows)
    index = torch.arange(count)
    return TokenTable(
        index=index,
        seconds=index.float(),
        until=index.float(),
        chunk=index,
        step=index,
        row=torch.tensor(rows),
        column=torch.tensor(columns),
        score=torch.zeros(count),
        visual=torch.tensor(rows) >= 0,
        position=position,
        entered=position,
        now=position,
    )


def nowhere(layer: int, keys: Tensor, by: Tensor) -> Tensor:
    raise AssertionError("positions alone move no keys")


def test_gaps_close_as_in_the_worked_example() -> None:
    position = torch.tensor([0, 1, 2, 10, 11, 50, 51])[:, None]
    table = table_at(position, [-1] * 3 + [0] * 4, [-1] * 3 + [0] * 4)
    now, shift = Window(30, nowhere).squeeze(table, Ahead(first=52, end=53, next=52))
    assert now.flatten().tolist() == [0, 1, 2, 6, 7, 11, 12] and shift == Shift(39, 39)
    now, shift = Window(30, nowhere, always=True).squeeze(table, Ahead(first=52, end=53, next=52))
    assert now.flatten().tolist() == list(range(7)) and shift == Shift(45, 45)
    # columns stand in no particular order
    order = torch.tensor([0, 5, 2, 6, 1, 3, 4])
    now, _ = Window(30, nowhere).squeeze(table.take(order), Ahead(first=52, end=53, next=52))
    assert now.flatten().tolist() == [0, 11, 2, 12, 1, 6, 7]


def test_a_picture_keeps_its_shape_while_time_is_squeezed() -> None:
    """M-RoPE: text to 3, a video of 2 x 2 grids from 4 that has run for 500 s; height and width stay with its start."""
    rows, columns, position = [-1] * 4, [-1] * 4, [(i, i, i) for i in range(4)]
    for t in (4, 6, 500, 502):
        for row in range(2):
            for column in range(2):
                rows.append(row)
                columns.append(column)
                position.append((t, 4 + row, 4 + column))
    table = table_at(torch.tensor(position), rows, columns)
    ahead = Ahead(first=504, end=505, next=505, start=4, reach=6)
    now, shift = Window(100, nowhere).squeeze(table, ahead)
    times = now[4:, 0].view(4, 4)
    assert (times == times[:, :1]).all() and times[:, 0].tolist() == [4, 6, 45, 47]  # the gap of 494 became 39
    assert torch.equal(now[:, 1:], torch.tensor(position)[:, 1:])
    assert shift == Shift(text=455, video=0)
    tight, shift = Window(100, nowhere, always=True).squeeze(table, ahead)
    assert tight[4::4, 0].tolist() == [4, 5, 6, 7] and shift == Shift(496, 0)
    # a picture that is larger than all the time that is left: text still comes behind all of it
    _, shift = Window(100, nowhere, always=True).squeeze(table, Ahead(504, 505, 505, start=4, reach=40))
    assert 505 - shift.text == 40


def test_a_second_video_moves_as_a_whole() -> None:
    """A kept turn was forgotten between two videos: the second one's start, and all that it shows, comes near."""
    rows, columns = [-1, -1, 0, 0, 0, 0], [-1, -1, 0, 1, 0, 1]
    position = torch.tensor([(0, 0, 0), (1, 1, 1), (2, 2, 2), (2, 2, 3), (80, 80, 80), (80, 80, 81)])
    now, shift = Window(40, nowhere, always=True).squeeze(table_at(position, rows, columns), Ahead(81, 82, 82, 80, 82))
    assert now.tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2], [2, 2, 3], [3, 3, 3], [3, 3, 4]]
    assert shift == Shift(77, 77)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision", "qwen3_vl"])
def test_a_constant_shift_leaves_attention_unchanged(family: str) -> None:
    lm = build(family)
    loop, generator = lm.stream(EVERYTHING).loop, torch.Generator().manual_seed(0)
    query, keys = (torch.randn(2, n, 16, generator=generator, dtype=torch.float64) for n in (3, 20))
    before = query @ keys.mT
    for by in (1, -17, 100_000):
        shift = torch.full((1, loop.axes), by)
        moved = loop.turn(1, query, shift.expand(3, -1)) @ loop.turn(1, keys, shift.expand(20, -1)).mT
        assert (moved - before).abs().max() < 1e-10
        assert not torch.allclose(loop.turn(1, keys, shift.expand(20, -1)), keys)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_two_thousand_moves_in_bfloat16_are_one_rotation(family: str) -> None:
    lm = build(family, dtype=torch.bfloat16)
    loop, generator = lm.stream(EVERYTHING).loop, torch.Generator().manual_seed(0)
    keys, layer = torch.randn(1, 2, 30, 16, generator=generator).bfloat16(), KeyValueLayer()
    layer.update(keys, keys)
    chain, last = keys[0], torch.zeros(30, loop.axes, dtype=torch.long)
    for _ in range(2000):
        by = torch.randint(-50, 50, (30, loop.axes), generator=generator)
        layer.rotate(partial(loop.turn, 0), by)
        chain, last = loop.turn(0, chain, by - last), by
    assert torch.equal(layer.keys[0], loop.turn(0, keys[0], last))
    assert torch.equal(layer.entered, keys)
    assert (chain - layer.keys[0]).abs().max() > 0.1  # the control: a chain of rotations drifts
    layer.update(keys[:, :, :5], keys[:, :, :5])
    assert layer.nbytes == 3 * 35 * 2 * 16 * 2


@pytest.mark.parametrize(
    ("family", "positions"),
    cases(FAMILIES, ["window", "compact", "original"], fast=lambda f, p: f in (1, 2, 3) and (f + p) % 2 == 1),
)
def test_keys_stand_where_the_table_says(family: str, positions: str) -> None:
    """Every key equals one rotation, by the model, of its un-rotated self; and the range is never left."""
    lm = small(family)
    stream = lm.stream(EVERYTHING, pv.Memory(tokens=70, evictor="uniform", positions=positions))
    prefix = len(lm.prompt.before())
    raw, step = Raw(stream), lm.adapter.frames_per_step
    for keys, layer in zip(raw.keys, stream._state.cache.layers, strict=True):  # the prompt never moves
        keys |= {n: torch.zeros_like(layer.keys[0, :, n]) for n in range(prefix)}
    moved, most = 0, 0
    for i in range(40 if family == "qwen2_vl" else 24):
        # a pause of an hour in the middle
        seconds = [step * i + j + (3600 if i > 12 else 0) for j in range(step)]
        stream.push(video(step, seed=i), seconds)
        raw.note()
        for j, layer in enumerate(stream._state.cache.layers):
            table = stream._state.cache.tables[j]
            rows = table.index >= prefix
            assert torch.equal(table.now[~rows], table.position[~rows])
            want = raw.expected(j)[:, rows]
            torch.testing.assert_close(layer.keys[0][:, rows], want, atol=2e-5, rtol=0)
            moved += int((table.now != table.position).any())
            most = max(most, int(table.now.max()))
    if positions == "original":
        assert moved == 0 and most >= TRAINED[family]
    else:
        assert moved > 0 and most < TRAINED[family]
        seen: list[int] = []
        handle = stream.loop.text.rotary_emb.register_forward_pre_hook(lambda m, a: seen.append(int(a[1].max())))
        stream.ask(QUESTION, max_new_tokens=8)
        handle.remove()
        assert max(seen) < TRAINED[family]


@pytest.mark.parametrize("family", cases(FAMILIES, fast=lambda f: f in (1, 2, 3)))
def test_a_question_over_moved_keys_equals_transformers(family: str) -> None:
    """The unmodified decoder, given the keys that are held and the positions that the table says."""
    lm = small(family)
    stream, step = lm.stream(EVERYTHING, pv.Memory(tokens=70, evictor="uniform")), lm.adapter.frames_per_step
    for i in range(40 if family == "qwen2_vl" else 24):
        stream.push(video(step, seed=i), [step * i + j for j in range(step)])
    asked = stream._asked(QUESTION, "", None)
    got = asked.prefill()
    cache, place, adapter = asked.state.cache, stream._state.place, lm.adapter
    shift = cache.shifts[0].text
    assert shift and len(set(cache.shifts)) == 1
    rows = torch.cat([adapter.closing(), adapter.embed(lm.prompt.after(QUESTION))])[None]
    plain, held = DynamicCache(), len(cache.tables[0])
    for i, layer in enumerate(cache.layers):
        plain.update(layer.keys[:, :, :held].clone(), layer.values[:, :, :held].clone(), i)
    assert int(cache.tables[0].now.max()) < place.next - shift  # text stands behind all of it
    ids = torch.arange(len(rows[0]))[None] + place.next - shift
    ids = ids.expand(3, 1, -1) if stream.loop.axes == 3 else ids
    with torch.no_grad():
        hidden = stream.loop.text(inputs_embeds=rows, position_ids=ids, past_key_values=plain).last_hidden_state
        want = lm.model.get_output_embeddings()(hidden[0, -1])
    torch.testing.assert_close(got, want, atol=1e-9, rtol=0)


@pytest.mark.parametrize("family", cases(FAMILIES, fast=lambda f: f in (1, 3)))
def test_within_the_range_nothing_moves(family: str, tmp_path: Any) -> None:
    """Bit for bit the same as "original" until the range is full; and a moved stream is saved and resumed whole."""
    lm, step = build(family), lm_steps(family)
    streams = [lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=70, positions=p)) for p in ("window", "original")]
    for i in range(8):
        for stream in streams:
            stream.push(video(step, seed=i), [step * i + j for j in range(step)])
    for left, right in zip(*(stream._state.cache.layers for stream in streams), strict=True):
        assert torch.equal(left.keys, right.keys) and left.entered is None
    tight = small(family)
    stream = tight.stream(pv.Pyramid(stages=3), pv.Memory(tokens=70, evictor="uniform"))
    for i in range(40 if family == "qwen2_vl" else 24):
        stream.push(video(step, seed=i), [step * i + j for j in range(step)])
    assert any(layer.entered is not None for layer in stream._state.cache.layers)
    stream.save(tmp_path / "a.pdrop")
    resumed = tight.resume(tmp_path / "a.pdrop")
    for each in (stream, resumed):
        for i in range(40, 50):
            each.push(video(step, seed=i), [step * i + j for j in range(step)])
    for left, right in zip(*(s._state.cache.layers for s in (stream, resumed)), strict=True):
        assert torch.equal(left.keys, right.keys) and torch.equal(left.values, right.values)
    assert stream._state.cache.shifts == resumed._state.cache.shifts
    short = "what ?"  # a quarter of the range is eight positions
    assert stream.ask(short, 5).token_ids == resumed.ask(short, 5).token_ids


def lm_steps(family: str) -> int:
    return build(family).adapter.frames_per_step


def test_a_push_that_fails_after_positions_moved_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = small("qwen2_5_vl")
    calm, stream = (lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=70, evictor="uniform")) for _ in range(2))
    failures = 0
    for i in range(16):
        frames, seconds = video(4, seed=i), [4 * i + j for j in range(4)]
        calm.push(frames, seconds)
        layer = stream.loop.text.layers[i % 6]
        with monkeypatch.context() as patch:
            patch.setattr(layer, "forward", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("out of memory")))
            with pytest.raises(RuntimeError, match="out of memory"):
                stream.push(frames, seconds)
            failures += 1
        stream.push(frames, seconds)
        for left, right in zip(calm._state.cache.layers, stream._state.cache.layers, strict=True):
            assert torch.equal(left.keys, right.keys) and torch.equal(left.values, right.values)
        assert calm._state.cache.shifts == stream._state.cache.shifts
    assert failures == 16 and any(layer.entered is not None for layer in stream._state.cache.layers)


@pytest.mark.parametrize("positions", ["window", "compact"])
def test_bytes_hold_when_keys_are_held_twice(positions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that moved holds three tensors in place of two: fewer tokens, from the moment on in which it moves."""
    lm = small("qwen2_5_vl")
    most = 6 * 70 * 2 * 2 * 16 * 8
    stream = lm.stream(
        pv.Pyramid(stages=1), pv.Memory(bytes=most, evictor="uniform", positions=positions, storage="full")
    )
    sizes, moves, rotate = [], 0, KeyValueLayer.rotate

    def watched(layer: KeyValueLayer, *args: Any) -> None:
        nonlocal moves
        rotate(layer, *args)
        moves += 1
        assert stream._state.cache.nbytes <= most

    monkeypatch.setattr(KeyValueLayer, "rotate", watched)
    for i in range(40):
        stream.push(video(2, seed=i), [2 * i, 2 * i + 1])
        assert stream.cache_bytes <= most
        sizes.append(max(stream.cache_tokens))
    assert max(sizes) == {"window": 70, "compact": 66}[positions] and sizes[-1] == 46 and moves >= 6


def test_refused() -> None:
    with pytest.raises(pv.ConfigError, match="sideways"):
        pv.Memory(positions="sideways")  # type: ignore[arg-type]
    lm = build("llava_onevision")
    lm.model.config.get_text_config().rope_parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(pv.ConfigError, match="dynamic"):
        lm.stream(memory=pv.Memory(positions="compact"))
    assert lm.stream()._ingest.limits.window is None
