"""AdaSpark inside the layers of a stream equals plain loops over one forward of an unmodified model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from families import FAMILIES, budget, build, cases, video
from hybrids import build as build_hybrid
from hybrids import exact_linear_attention, inputs_of
from plain_inside import ffn, sparked, top_p
from reference import full_prompt, masked_forward, recorded, stream_masks
from test_exact import chunks, next_logits
from test_layer_kinds import exact
from torch import Tensor

import pdrop_video as pv
from pdrop_video.pyramid.inside import AdaSpark
from pdrop_video.pyramid.inside.base import largest, largest_of_each
from pdrop_video.pyramid.inside.branch import spread_out
from pdrop_video.pyramid.inside.cubes import Cubes

QUESTION = "what is shown first ?"
HALVES = ("both", "ffn", "attention")


def cubes_of(lm: pv.VideoLM, inputs: dict[str, Any], size: tuple[int, int], cube: tuple[int, int, int]) -> list[Any]:
    """The cube (time, down, across) of each token of a prompt, None of text."""
    token, found, number = lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token), [], 0
    closing = len(lm.adapter.closing())
    video = (inputs["input_ids"][0] == token).tolist()
    last = max(i for i, each in enumerate(video) if each) - closing  # LLaVA's newline is a video token to transformers
    for i, visual in enumerate(video):
        if not visual or i > last:
            found.append(None)
            continue
        step, place = divmod(number, size[0] * size[1])
        row, column = divmod(place, size[1])
        found.append((step // cube[0], row // cube[1], column // cube[2]))
        number += 1
    return found


@pytest.mark.parametrize("p", [0.5, 0.8, 0.95])
def test_attention_chooses_as_written(p: float) -> None:
    """The specification's numbers."""
    query = torch.tensor([1.0, 2.0]).double()[None, None, None] / 2**0.5
    mean = torch.tensor([[1, 0], [0, 1], [1, 1], [-1, 0]]).double()[None]
    turn, competes = torch.arange(4), torch.ones(1, 4, dtype=torch.bool)
    chosen = AdaSpark(p=p).attends(query, mean, competes, turn, torch.float64)[0, 0]
    assert chosen.nonzero()[:, 0].tolist() == {0.5: [2], 0.8: [1, 2], 0.95: [0, 1, 2]}[p]
    shares = (query[0, 0] @ mean[0].T).softmax(-1)[0]
    torch.testing.assert_close(
        shares, torch.tensor([0.135419, 0.274646, 0.557013, 0.032923]).double(), atol=1e-6, rtol=0
    )


def test_ffn_of_the_strongest_as_written() -> None:
    """The specification's numbers."""
    x = torch.tensor([[3, 4], [0, 1], [1.5, 0], [0, 2]], dtype=torch.float64)
    cube = torch.zeros(4, dtype=torch.long)
    active = AdaSpark(p=0.7)(x, cube, torch.arange(4))
    assert active.tolist() == [True, False, False, True]
    index = active.nonzero()[:, 0]
    y = x + spread_out(0.1 * x[index].flip(-1)[None], index, cube)[0]
    want = torch.tensor([[3.4, 4.3], [0.3, 1.15], [1.8, 0.15], [0.2, 2]], dtype=torch.float64)
    torch.testing.assert_close(y, want, atol=1e-12, rtol=0)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.77, 0.99])
def test_sets_equal_plain_loops(p: float) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        hidden = torch.randn(23, 5, generator=generator).double()
        group = torch.randint(-1, 4, (23,), generator=generator)
        active = AdaSpark(p=p)(hidden, group, torch.arange(23)) | (group < 0)
        added = torch.randn(23, 5, generator=generator).double()
        index = active.nonzero()[:, 0]
        got = spread_out(added[None, index], index, group)[0]
        cubes = [None if each < 0 else int(each) for each in group]
        torch.testing.assert_close(got, ffn(hidden, added, cubes, p), atol=1e-12, rtol=0)
        share = torch.rand(3, 7, generator=generator).double()
        share = share / share.sum(-1, keepdim=True)
        for row, chosen in zip(
            share, largest(share, p, torch.randperm(7, generator=generator), torch.float64), strict=True
        ):
            assert set(chosen.nonzero()[:, 0].tolist()) == top_p(dict(enumerate(row.tolist())), p)


def test_ties_go_by_turn_and_noise_does_not_choose() -> None:
    share, turn = torch.full((6,), 1 / 6, dtype=torch.float64), torch.tensor([5, 3, 1, 0, 2, 4])
    noisy = share * (1 + 1e-12 * torch.randn(6, generator=torch.Generator().manual_seed(0)).double())
    for each in (share, noisy):
        assert largest(each, 0.5, turn, torch.float64).nonzero()[:, 0].tolist() == [2, 3, 4]
        group = torch.tensor([0, 0, 0, 1, 1, 1])
        found = largest_of_each(each * 2, group, 2 / 3, turn, torch.float64)
        assert found.nonzero()[:, 0].tolist() == [1, 2, 3, 4]


def test_cubes_are_numbered_in_time() -> None:
    step, row, column = torch.tensor([[0, 0, 1, 2, 3, 2], [0, 3, -1, 0, 4, 2], [0, 1, -1, 5, 0, 1]])
    cubes = Cubes.at(AdaSpark(height=2, width=2, steps=2), (step, row, column))
    assert cubes.numbered().tolist() == [0, 1, -1, 2, 4, 3]
    assert Cubes.at(AdaSpark(), (step[:2], row[:2], column[:2])).numbered().tolist() == [0, 0]


INSIDES = (AdaSpark(p=0.55, height=2, width=2), AdaSpark(p=0.6, height=3, width=3, steps=2))
PYRAMIDS = (pv.Pyramid(stages=1), pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.3)))


@pytest.mark.parametrize(
    ("family", "inside", "pyramid", "room", "half"),
    cases(
        FAMILIES,
        INSIDES,
        PYRAMIDS,
        (None, 4),
        HALVES,
        fast=lambda *places: places in ((1, 0, 1, 1, 0), (2, 1, 1, 0, 0), (0, 1, 0, 1, 1), (3, 0, 0, 0, 2)),
    ),
)
def test_a_stream_equals_plain_loops(
    family: str, inside: AdaSpark, pyramid: pv.Pyramid, room: int | None, half: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, inside = build(family), replace(inside, half=half)
    tokens, step = budget(lm, room), lm.adapter.frames_per_step
    frames, seconds = video(6 * step), [0.5 * i for i in range(6 * step)]
    inputs, prefix, _ = full_prompt(lm, frames, seconds, QUESTION)
    snapshots = recorded(monkeypatch, tokens)
    stream = lm.stream(replace(pyramid, inside=inside), pv.Memory(tokens=tokens))
    for part, times in chunks(frames, seconds, [2 * step] * 3):
        stream.push(part, times)
    size = stream.held()
    grid = int(size.row.max()) + 1, int(size.column.max()) + 1
    cubes = cubes_of(lm, inputs, grid, (inside.steps, inside.height, inside.width))
    sees = stream_masks(snapshots, prefix, len(cubes), snapshots[-1])
    pieces = [[list(range(prefix))] * lm.num_layers] + [[index.tolist() for index in held] for held in snapshots]
    got = next_logits(stream)
    with sparked(lm, inside.p, cubes, pieces, sees, half), torch.no_grad():
        want = lm.model(**inputs, use_cache=False).logits[0, -1]
    torch.testing.assert_close(got, want, atol=1e-9, rtol=0)
    whole = masked_forward(lm, inputs, sees)[-1]  # the control: had nothing been left out
    assert (got - whole).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["qwen3_5", "gemma4_moe", "exaone4_5"])
def test_ffns_behind_other_layers_equal_plain_loops(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind states and windows, with experts, and with norms behind the FFN."""
    exact_linear_attention(monkeypatch)
    lm = build_hybrid(family)
    step = lm.adapter.frames_per_step
    frames, seconds = video(4 * step), [0.5 * i for i in range(4 * step)]
    inputs = inputs_of(lm, frames, seconds, QUESTION)
    stream = lm.stream(
        pv.Pyramid(stages=1, inside=AdaSpark(p=0.6, height=2, width=3, half="ffn")), pv.Memory(tokens=None)
    )
    for part, times in chunks(frames, seconds, [step, 3 * step]):
        stream.push(part, times)
    held = stream.held()
    cubes = cubes_of(lm, inputs, (int(held.row.max()) + 1, int(held.column.max()) + 1), (1, 2, 3))
    tokens = [[list(range(len(cubes)))] * lm.num_layers]
    with sparked(lm, 0.6, cubes, tokens, None, "ffn"), torch.no_grad():
        want = lm.model(**inputs, use_cache=False).logits[0, -1]
    got = next_logits(stream)
    torch.testing.assert_close(got, want, atol=exact(family), rtol=0)
    with torch.no_grad():
        assert (got - lm.model(**inputs, use_cache=False).logits[0, -1]).abs().max() > 1e-3


@pytest.mark.parametrize("half", cases(HALVES, fast=lambda h: h == 0))
def test_no_border_of_a_chunk_matters(half: str) -> None:
    lm, frames, seconds = build("qwen2_5_vl"), video(12), [0.5 * i for i in range(12)]
    made = []
    for sizes in ([12], [2] * 6, [4, 2, 6]):
        stream = lm.stream(pv.Pyramid(stages=1, inside=f"adaspark:p=0.6,height=2,half={half}"), pv.Memory(tokens=None))
        for part, times in chunks(frames, seconds, sizes):
            stream.push(part, times)
        made.append(next_logits(stream))
    for other in made[1:]:
        torch.testing.assert_close(other, made[0], atol=1e-9, rtol=0)


class Everything(AdaSpark):
    """Leaves nothing out, the long way."""

    ffn = attention = True

    def __call__(self, hidden: Tensor, cube: Tensor, turn: Tensor) -> Tensor:
        return cube >= 0

    def attends(self, query: Tensor, mean: Tensor, competes: Tensor, turn: Tensor, dtype: torch.dtype) -> Tensor:
        return competes.expand(len(query), -1, -1)


@pytest.mark.parametrize(
    ("family", "inside"), cases(FAMILIES, ["adaspark:p=1", Everything()], fast=lambda f, i: f < 4 and (i or f == 1))
)
def test_all_of_it_is_the_model_itself(family: str, inside: Any) -> None:
    lm, frames, seconds = build(family), video(9), [0.5 * i for i in range(9)]
    inputs, _, _ = full_prompt(lm, frames, seconds, QUESTION)
    stream = lm.stream(pv.Pyramid(stages=1, inside=inside), pv.Memory(tokens=None))
    for part, times in chunks(frames, seconds, [5, 4]):
        stream.push(part, times)
    torch.testing.assert_close(next_logits(stream), masked_forward(lm, inputs, None)[-1], atol=1e-9, rtol=0)
