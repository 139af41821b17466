"""The archive: everything brought back is as if never evicted, frames are found by ReKV's rule, and nothing is lost."""

from __future__ import annotations

import errno
import gc
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, budget, build, cases, video
from rawkeys import Raw, small
from reference import full_prompt, masked_forward, recorded, stream_masks
from test_shelf import open_in
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import EVICTORS, StreamCache
from pdrop_video.pyramid.heads import per_head

QUESTION = "what is shown first ?"
EVERYTHING = pv.Pyramid(stages=1)
PYRAMIDS = (EVERYTHING, pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25)))
ALL = 10**6
ROOM = 2**30


@torch.no_grad()
def asked(stream: pv.VideoStream, retrieve: int | None, question: str = QUESTION) -> tuple[Tensor, StreamCache]:
    """The first token's logits, and the fork's cache as the question left it: open, since a closed one has no room."""
    question_asked = stream._asked(question, "", None, retrieve)
    return question_asked.prefill(), question_asked.state.cache


def tokens_for(lm: pv.VideoLM) -> int:
    """A budget of three steps, so that seven and more lose some."""
    return budget(lm, 3) or 0


def watched(lm: pv.VideoLM, pyramid: pv.Pyramid, memory: pv.Memory, chunks: int = 10) -> pv.VideoStream:
    stream = lm.stream(pyramid, memory)
    push(stream, 0, chunks)
    return stream


def push(stream: pv.VideoStream, first: int, last: int) -> None:
    step = stream.lm.adapter.frames_per_step
    for i in range(first, last):
        stream.push(video(step, seed=i), [step * i + j for j in range(step)])


def same(a: pv.VideoStream, b: pv.VideoStream) -> None:
    """Bit for bit, what is remembered and what is archived."""
    for left, right in zip(a._state.cache.layers, b._state.cache.layers, strict=True):
        assert torch.equal(left.keys, right.keys) and torch.equal(left.values, right.values)
    one, two = a._state.cache.archive, b._state.cache.archive
    assert one is not None and two is not None and one.nbytes == two.nbytes
    for x, y in zip(one.blocks, two.blocks, strict=True):
        assert x.pieces.keys() == y.pieces.keys() and x.nbytes == y.nbytes
        for i in x.pieces:
            pairs = [(x.pieces[i].keys, y.pieces[i].keys), (x.pieces[i].values, y.pieces[i].values)]
            pairs += [(x.steps[i], y.steps[i]), (x.sums[i], y.sums[i])]
            pairs += zip(x.pieces[i].table.columns(), y.pieces[i].table.columns(), strict=True)
            assert all(torch.equal(p.nan_to_num(), q.nan_to_num()) for p, q in pairs)


@pytest.mark.parametrize(
    ("family", "pyramid", "evictor"),
    cases(
        FAMILIES,
        PYRAMIDS,
        ("oldest", "pyramid", "uniform", "random"),
        fast=lambda f, p, e: p == f % 2 and e == f % 4,
    ),
)
def test_everything_brought_back_equals_a_mask(
    family: str, pyramid: pv.Pyramid, evictor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames see what was held when they came; the question sees all that a layer ever held. And is it needed?"""
    lm = build(family)
    tokens, step = budget(lm, 2.6), lm.adapter.frames_per_step
    frames, seconds = video(6 * step), [0.5 * i for i in range(6 * step)]
    inputs, prefix, _ = full_prompt(lm, frames, seconds, QUESTION)
    snapshots = recorded(monkeypatch, tokens)
    stream = lm.stream(pyramid, pv.Memory(tokens=tokens, evictor=evictor, archive=ROOM))
    for i in range(6):
        stream.push(frames[step * i : step * i + step], seconds[step * i : step * i + step])
    ever = [torch.cat([snapshot[i] for snapshot in snapshots]).unique() for i in range(lm.num_layers)]
    allowed = stream_masks(snapshots, prefix, inputs["input_ids"].shape[1], ever)
    got, cache = asked(stream, ALL)
    torch.testing.assert_close(got, masked_forward(lm, inputs, allowed)[-1], atol=1e-9, rtol=0)
    for table, index in zip(cache.tables, ever, strict=True):
        assert torch.equal(table.index.sort().values, index)
    assert (got - asked(stream, None)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("family", cases(FAMILIES, fast=lambda f: f in (1, 2, 3)))
def test_everything_brought_back_equals_never_having_evicted(family: str) -> None:
    """Evicted after the last frame, so that no frame came to see less."""
    lm = build(family)
    whole = watched(lm, EVERYTHING, pv.Memory(tokens=None))
    stream = watched(lm, EVERYTHING, pv.Memory(tokens=5000, evictor="random", archive=ROOM))
    cache = stream._state.cache
    prompt = len(lm.prompt.before())
    cache.limits = replace(cache.limits, tokens=(prompt + 20,) * 6, moved=(prompt + 20,) * 6)
    ahead = stream._ingest.room_for_text(stream._state, 10)
    cache.make_room([0] * 6, ahead)
    assert cache.lengths() == [prompt + 20] * 6
    want, _ = asked(whole, None)
    torch.testing.assert_close(asked(stream, ALL)[0], want, atol=1e-10, rtol=0)
    assert (asked(stream, None)[0] - want).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("family", "moved"), cases(FAMILIES, [False, True], fast=lambda f, m: f in (0, 2, 3) and (f == 3) != m)
)
def test_frames_are_found_by_mean_keys(family: str, moved: bool) -> None:
    """ReKV in plain loops: per layer, the cosine between the mean un-rotated key and the mean un-rotated query.

    And what comes back stands where the fork's table says, by one rotation of the model's own.
    """
    lm = small(family) if moved else build(family)
    stream = lm.stream(EVERYTHING, pv.Memory(tokens=budget(lm, 1.8), evictor="uniform", archive=ROOM))
    raw = Raw(stream)
    prefix = len(lm.prompt.before())
    for keys in raw.keys:
        keys |= {n: torch.zeros(2, 16, dtype=torch.float64) for n in range(prefix)}
    for i in range(24 if moved else 8):
        push(stream, i, i + 1)
        raw.note()
    held, archive = stream._state.cache.tables, stream._state.cache.archive
    assert archive is not None and stream._state.cache.shifts[0].text * moved == stream._state.cache.shifts[0].text
    queries: list[Tensor] = []
    hooks = [
        layer.self_attn.register_forward_pre_hook(
            lambda m, a, k: queries.append(per_head(m, k["hidden_states"], "q")[0].mean(1)), with_kwargs=True
        )
        for layer in stream.loop.text.layers
    ]
    count = 1 if moved else 2
    _, fork = asked(stream, count)
    for hook in hooks:
        hook.remove()
    for i, table in enumerate(fork.tables):
        step_of = {int(n): int(s) for b in archive.blocks for n, s in zip(*_numbers(b.pieces[i].table), strict=True)}
        query = [queries[i][2 * h : 2 * h + 2].mean(0) for h in range(2)]  # two heads ask one key
        likeness = {}
        for step in set(step_of.values()):
            tokens = [raw.keys[i][n] for n, s in step_of.items() if s == step]
            mean = [sum(t[h] for t in tokens) / len(tokens) for h in range(2)]
            dot = sum(float(m @ q) for m, q in zip(mean, query, strict=True))
            size = math.prod(math.sqrt(sum(float(v @ v) for v in part)) for part in (mean, query))
            likeness[step] = dot / size
        best = sorted(likeness, key=lambda s: -likeness[s])[:count]
        new = set(table.index.tolist()) - set(held[i].index.tolist())
        assert new == {n for n, s in step_of.items() if s in best}
        rows = table.index >= prefix
        want = raw.expected(i, table)[:, rows]
        got = fork.layers[i].keys[0][:, : len(table)][:, rows]
        torch.testing.assert_close(got, want, atol=2e-5 if moved else 1e-10, rtol=0)
        if moved:
            assert int(table.now.max()) < lm.model.config.get_text_config().max_position_embeddings


def _numbers(table: Any) -> tuple[list[int], list[int]]:
    return table.index.tolist(), table.step.tolist()


def test_what_comes_back_must_fit_into_the_range() -> None:
    lm = small("llava_onevision")
    stream = watched(lm, EVERYTHING, pv.Memory(tokens=70, archive=ROOM), chunks=24)
    before = asked(stream, 1)[0]
    with pytest.raises(pv.ConfigError, match=r"tokens brought back into layer 0 stretch .* retrieve less"):
        stream.ask(QUESTION, retrieve=24)
    assert torch.equal(asked(stream, 1)[0], before)
    push(stream, 24, 25)


@pytest.mark.parametrize("evictor", EVICTORS)
def test_asking_with_everything_leaves_the_stream_as_it_was(evictor: str) -> None:
    lm = build("qwen2_5_vl")
    memory = pv.Memory(tokens=tokens_for(lm), evictor=evictor, archive=ROOM)
    stream, calm = (watched(lm, PYRAMIDS[1], memory) for _ in range(2))
    answer = stream.ask(QUESTION, 4, retrieve=ALL, pyramid=pv.Pyramid(ratios=(0.5, 0.25)))
    likely = stream.likelihood(QUESTION, ["red", "blue"], retrieve=3)
    assert likely != stream.likelihood(QUESTION, ["red", "blue"])
    archive = stream._state.cache.archive
    assert archive is not None
    gone = {float(s) for block in archive.blocks for s in block.pieces[0].table.seconds if s == s}
    assert gone and gone <= set(answer.evidence[0].seconds) and answer.cache_tokens == stream.cache_tokens
    same(stream, calm)
    for each in (stream, calm):
        push(each, 10, 13)
    same(stream, calm)


def test_the_limit_holds_and_the_oldest_goes() -> None:
    lm = build("qwen2_5_vl")
    roomy = watched(lm, EVERYTHING, pv.Memory(tokens=tokens_for(lm), evictor="oldest", archive=ROOM), chunks=12)
    everything = roomy._state.cache.archive
    assert everything is not None and len(everything.blocks) > 6
    token = 2 * 2 * 16 * 8  # keys and values, two heads of 16 doubles
    row = 5 * 8 + 2 * 8 + 4 + 1 + 3 * 3 * 8  # whole numbers, two times, a score, a flag, three positions of three axes
    step = 8 + (2 * 16 + 1) * 8
    block = everything.blocks[-1]
    assert block.nbytes == sum(
        len(p.table) * (token + row) + len(block.steps[i]) * step for i, p in block.pieces.items()
    )
    assert roomy.status.archive_bytes == everything.nbytes == sum(b.nbytes for b in everything.blocks)
    assert "MiB archived" in repr(roomy)

    limit = 3 * block.nbytes + 10
    stream = lm.stream(EVERYTHING, pv.Memory(tokens=tokens_for(lm), evictor="oldest", archive=limit))
    for i in range(12):
        push(stream, i, i + 1)
        assert stream.status.archive_bytes <= limit
    left = stream._state.cache.archive
    assert left is not None and len(left.blocks) == 3
    for mine, other in zip(left.blocks, everything.blocks[-3:], strict=True):
        assert torch.equal(mine.pieces[5].keys, other.pieces[5].keys)
    nothing = watched(lm, EVERYTHING, pv.Memory(tokens=tokens_for(lm), archive=100))
    assert nothing.status.archive_bytes == 0 and asked(nothing, 3)[1].lengths() == asked(nothing, None)[1].lengths()


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_files_in_place_of_memory(family: str, tmp_path: Path) -> None:
    """Bit for bit the same; the files have no names, so that nothing is left behind however the process ends."""
    lm, folder = build(family), tmp_path / "deep" / "archive"
    plain = watched(lm, PYRAMIDS[1], pv.Memory(tokens=tokens_for(lm), archive=ROOM))
    mapped = watched(lm, PYRAMIDS[1], pv.Memory(tokens=tokens_for(lm), archive=ROOM, archive_folder=folder))
    same(plain, mapped)
    assert torch.equal(asked(plain, 2)[0], asked(mapped, 2)[0])
    assert folder.is_dir() and not list(folder.iterdir())
    assert len(open_in(folder)) == 1
    del mapped
    gc.collect()
    assert not open_in(folder)


def test_a_full_disk_refuses_the_push_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = build("qwen2_5_vl")
    memory = pv.Memory(tokens=tokens_for(lm), archive=ROOM, archive_folder=str(tmp_path))
    stream, calm = (watched(lm, EVERYTHING, memory) for _ in range(2))

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(pv.StreamError, match=r"can't be archived in .*No space left on device"):
            push(stream, 10, 11)
    same(stream, calm)
    for each in (stream, calm):
        push(each, 10, 12)
    same(stream, calm)


def test_a_push_that_fails_archives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = build("qwen2_5_vl")
    stream, calm = (watched(lm, PYRAMIDS[1], pv.Memory(tokens=tokens_for(lm), archive=ROOM)) for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(
            stream.loop.text.layers[4], "forward", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("no memory"))
        )
        with pytest.raises(RuntimeError, match="no memory"):
            push(stream, 10, 11)
    same(stream, calm)


@pytest.mark.parametrize("folder", [None, "archive"])
def test_saved_resumed_and_forked(folder: str | None, tmp_path: Path) -> None:
    """A resumed stream archives, drops and finds as if it had not been saved, bit for bit; a fork goes its own way."""
    lm = small("llava_onevision")
    where = None if folder is None else str(tmp_path / folder)
    memory = pv.Memory(tokens=tokens_for(lm), evictor="pyramid", archive=260_000, archive_folder=where)
    stream = watched(lm, PYRAMIDS[1], memory, chunks=14)
    archive = stream._state.cache.archive
    assert archive is not None and archive.nbytes > 200_000
    fork = stream.fork()
    stream.save(tmp_path / "a.pdrop")
    resumed = lm.resume(tmp_path / "a.pdrop")
    assert resumed.memory == memory
    push(fork, 100, 102)
    same(stream, resumed)
    for each in (stream, resumed):
        push(each, 14, 22)
    same(stream, resumed)
    assert archive.blocks[0] not in stream._state.cache.archive.blocks  # type: ignore[union-attr]
    assert torch.equal(asked(stream, 2)[0], asked(resumed, 2)[0])
    twin = lm.resume(tmp_path / "a.pdrop")
    push(twin, 100, 102)
    same(twin, fork)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(archive=0), "archive=0.: expected a whole number from 1"),
        (dict(archive=1.5), "archive=1.5"),
        (dict(archive_folder="x"), "say how many bytes"),
    ],
)
def test_bad_archives(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(pv.ConfigError, match=said):
        pv.Memory(**arguments)


def test_bad_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = build("qwen2_5_vl")
    (tmp_path / "file").write_text("")
    with pytest.raises(pv.ConfigError, match=r"file.* can't be made"):
        lm.stream(memory=pv.Memory(archive=ROOM, archive_folder=str(tmp_path / "file")))
    stream = watched(lm, EVERYTHING, pv.Memory(archive=ROOM))
    with pytest.raises(pv.ConfigError, match="retrieve is 0; expected a whole number from 1"):
        stream.ask(QUESTION, retrieve=0)
    with pytest.raises(pv.ConfigError, match="no archive; open it with"):
        watched(lm, EVERYTHING, pv.Memory()).ask(QUESTION, retrieve=3)
    monkeypatch.setitem(lm.model.config.get_text_config().rope_parameters, "rope_type", "dynamic")
    with pytest.raises(pv.ConfigError, match="un-rotated keys, which 'dynamic' RoPE does not have"):
        lm.stream(memory=pv.Memory(archive=ROOM, positions="original"))
