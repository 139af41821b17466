"""Columns hidden from a question, and shown again between its tokens, against unmodified models under masks."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, budget, build, cases, video
from reference import full_prompt, masked_forward, recorded, stream_masks
from test_modes import remembered
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import STORAGES, KeyValueLayer
from pdrop_video.memory.columns import Columns
from pdrop_video.memory.storages import recent_in
from pdrop_video.stream.turns import question_ids, question_rows

QUESTION = "what is shown first , and what comes after it ?"


def pushed(lm: pv.VideoLM, tokens: int | None) -> tuple[pv.VideoStream, Tensor, list[float]]:
    """A stream that has watched three chunks, with their frames and times."""
    step = lm.adapter.frames_per_step
    frames, seconds = video(6 * step), [0.5 * i for i in range(6 * step)]
    stream = lm.stream(pv.Pyramid(layers=(2, 4), ratios=(0.6, 0.3)), pv.Memory(tokens=tokens))
    for i in range(0, 6 * step, 2 * step):
        stream.push(frames[i : i + 2 * step], seconds[i : i + 2 * step])
    return stream, frames, seconds


@pytest.mark.parametrize(
    ("family", "room"), cases(FAMILIES, (None, 3), fast=lambda f, r: r == f % 2 and f in (1, 2, 3, 5))
)
@torch.no_grad()
def test_what_is_shown_to_each_token_is_what_a_mask_lets_it_see(
    family: str, room: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other columns in every layer for every token, all, some and none; the stream is bit for bit as it was."""
    lm = build(family)
    tokens = budget(lm, room)
    snapshots = recorded(monkeypatch, tokens)
    stream, frames, seconds = pushed(lm, tokens)
    inputs, prefix, _ = full_prompt(lm, frames, seconds, QUESTION)
    state, ingest, total = stream._state, stream._ingest, inputs["input_ids"].shape[1]
    tables, before = state.cache.tables, remembered(stream)
    rows = question_rows(lm, ingest, state, question_ids(lm, state, QUESTION))
    asked = len(rows)
    allowed = stream_masks(snapshots, prefix, total, [table.index for table in tables])
    fork, hidden, generator = state.fork(), [], torch.Generator().manual_seed(3)
    for first, end in ((0, asked - 5), *((asked - n, asked - n + 1) for n in range(5, 0, -1))):
        for i, (layer, table) in enumerate(zip(fork.cache.layers, tables, strict=True)):
            share = (0.0, 0.3, 0.6, 1.0)[int(torch.randint(4, (), generator=generator))]
            columns = (torch.rand(len(table), generator=generator) < share).nonzero()[:, 0]
            layer.show(columns, since=len(table))
            now = range(total - asked + first, total - asked + end)
            allowed[i, now, : total - asked] = False
            allowed[i, now, table.index[columns][:, None]] = True
        hidden.append(ingest.text(fork, rows[first:end]))
    got = ingest.logits(torch.cat(hidden))
    torch.testing.assert_close(got, masked_forward(lm, inputs, allowed)[-asked:], atol=1e-9, rtol=0)
    pairs = zip(fork.cache.layers, state.cache.layers, strict=True)
    left = [layer.columns.room is not origin.columns.room for layer, origin in pairs]  # it outgrew the storage
    fork.cache.release(state.cache)
    numbers, (lengths, used), *others = remembered(stream)
    assert (numbers, lengths, *others) == (before[0], before[1][0], *before[2:])
    # the room behind the memory is free again; where the fork left it, whoever appends copies once
    assert not all(left)
    assert all(gone or now == then for gone, now, then in zip(left, used, before[1][1], strict=True))


@torch.no_grad()
def test_everything_shown_is_nothing_hidden_bit_for_bit() -> None:
    lm = build("qwen2_5_vl")
    stream, _, _ = pushed(lm, None)
    state, ingest = stream._state, stream._ingest
    rows = question_rows(lm, ingest, state, question_ids(lm, state, QUESTION))
    found = []
    for how in ("never", "all", "back"):
        fork, hidden = state.fork(), []
        for first in range(len(rows)):
            for layer, table in zip(fork.cache.layers, state.cache.tables, strict=True):
                if how == "all":
                    layer.show(torch.arange(len(table)), since=len(table))
                if how == "back":
                    layer.show(torch.arange(5))
                    layer.show(None)
            hidden.append(ingest.text(fork, rows[first : first + 1]))
        found.append(torch.cat(hidden))
        fork.cache.release(state.cache)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_what_is_seen_is_gathered_once_and_then_appended_to(monkeypatch: pytest.MonkeyPatch) -> None:
    gathered = 0
    select = Columns.select

    def counted(columns: Columns, chosen: Tensor) -> Columns:
        nonlocal gathered
        gathered += 1
        return select(columns, chosen)

    monkeypatch.setattr(Columns, "select", counted)
    lm = build("qwen2_5_vl")
    stream, _, _ = pushed(lm, None)
    answer = stream.ask(QUESTION, 8, pyramid=pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25)))
    assert len(answer.token_ids) == 8
    assert 0 < gathered <= 4  # the layers of the deeper stages, whatever the length of the answer


class Plain:
    """A layer as plain tensors [batch, kv_heads, held, head_dim]: what is held, and which of it is seen."""

    def __init__(self, storage: str) -> None:
        codec = STORAGES[storage]("keys")
        self.as_stored = lambda states: codec.decode(codec.encode(states, ()), (), states.dtype)
        self.held = [torch.zeros(1, 2, 0, 4)] * 3
        self.shown: Tensor | None = None
        self.since = 0

    def append(self, keys: Tensor, values: Tensor) -> None:
        new = [self.as_stored(states) for states in (keys, values, keys)]
        self.held = [torch.cat(each, 2) for each in zip(self.held, new, strict=True)]

    def seen(self) -> tuple[Tensor, Tensor]:
        later = torch.arange(self.since, self.held[0].shape[2])
        columns = slice(None) if self.shown is None else torch.cat([self.shown, later])
        return self.held[0][:, :, columns], self.held[1][:, :, columns]


@pytest.mark.parametrize("storage", [name for name, each in STORAGES.items() if recent_in(each) is None])
@pytest.mark.parametrize("seed", range(6))
def test_a_layer_that_hides_against_plain_tensors(seed: int, storage: str) -> None:
    """Random appends, moves, merges, cuts and forks of a fork, while what is shown changes."""
    generator = torch.Generator().manual_seed(seed)

    def some(count: int) -> Tensor:
        return torch.randn(1, 2, count, 4, generator=generator)

    origin, want = KeyValueLayer(storage=STORAGES[storage]), Plain(storage)
    first = some(20), some(20)
    origin.update(*first)
    want.append(*first)
    before = [part.clone() for part in origin.columns.held(origin.columns.room.parts)]
    layer = origin.fork()
    for step in range(30):
        do, length = int(torch.randint(0, 6, (), generator=generator)), want.held[0].shape[2]
        if do == 0:
            want.shown, want.since = torch.randperm(20, generator=generator)[:step].sort().values, length
            layer.show(want.shown)
        elif do == 1:
            want.shown = None
            layer.show(None)
        elif do == 2:
            by = some(length)[0, 0]
            layer.rotate(lambda keys, by: keys + by, by)
            want.held[0] = want.as_stored(want.held[2] + by)
        elif do == 3:
            slots, new = torch.randperm(length, generator=generator)[:2], some(2)[0]
            layer.overwrite(slots, new, -new)
            stored = want.as_stored(new[None])
            for part, states in zip(want.held, (stored, -stored, stored), strict=True):
                part[:, :, slots] = states
        elif do == 4:
            end = max(want.since, 20, length - 1)
            layer.truncate(end)
            want.held = [part[:, :, :end] for part in want.held]
        else:  # somebody else goes on from here, beside this one
            twin = layer.fork()
            seen = twin.update(*[some(3)] * 2)[0].clone()
            assert torch.equal(seen[:, :, :-3], want.seen()[0])
            if seed % 2:
                twin.release(layer)
        new = some(2), some(2)
        got = layer.update(*new)
        want.append(*new)
        assert layer.get_seq_length() == got[0].shape[2] and layer.get_mask_sizes(3) == (got[0].shape[2] + 3, 0)
        assert all(map(torch.equal, got, want.seen()))
        if layer.entered is not None:
            assert torch.equal(layer.entered, want.held[2])
    layer.release(origin)
    assert all(map(torch.equal, origin.columns.held(origin.columns.room.parts), before))
