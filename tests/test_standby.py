"""Standby tokens: the tower under a written mask, what stays to the last bit, streams that go on, what is forgotten."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from families import build, video
from parts import random_part, with_parts
from standing_by import (
    FAMILIES,
    SHAPES,
    attended,
    in_time,
    look,
    merged,
    mlp,
    patch_places,
    standby_places,
    times,
)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

import pdrop_video as pv
from pdrop_video.memory.evictors import EVICTORS, Held, choose
from pdrop_video.memory.evictors.standby import Standby
from pdrop_video.memory.table import TokenTable
from pdrop_video.models import Place
from pdrop_video.parts.standby import StandbyPart
from pdrop_video.parts.towers import passing, rope, slots_of


@cache
def made(family: str, dtype: torch.dtype = torch.float64) -> tuple[pv.VideoLM, Any]:
    """A model with a random part beside it."""
    lm = build(family, dtype=dtype)
    part = random_part(lm, "standby").to(torch.promote_types(dtype, torch.float32))
    return with_parts(lm, part), part


def plainly(lm: pv.VideoLM, part: Any, shape: tuple[int, int, int]) -> Tensor:
    """Standby tokens [steps, n, hidden], by the tower's blocks over patches and standby rows under one mask."""
    frames = video(*shape[:1], height=shape[1], width=shape[2])
    values, (t, h, w) = lm.adapter.values_of(frames)
    tower = lm.model.model.visual
    places = [*patch_places(h, w), *standby_places(part.n, h, w)]
    area, rows = 4 * h * w, []
    side = getattr(lm.adapter, "window", None)
    for step in tower.patch_embed(values).view(t, area, -1):
        down, across = slots_of(part.n, h, w)
        picture = step.new_zeros(step.shape[1], 2 * h, 2 * w)
        for number, (r, c) in enumerate(patch_places(h, w)):
            picture[:, r, c] = step[number]
        cells = torch.nn.functional.adaptive_avg_pool2d(picture[None], (2 * down, 2 * across))[0]
        begun = [cells[:, r, c] for r, c in patch_places(down, across)]
        rows.append(torch.cat([step, torch.stack(begun) + part.learnt]))
    standby = torch.arange(len(places)) >= area
    late = len(tower.blocks) - len(part.temporal)
    for number, block in enumerate(tower.blocks):
        sees = standby[:, None] | ~standby[None]  # patches see patches, standby rows see everything
        if side is not None and number not in tower.config.fullatt_block_indexes:
            of = torch.tensor([(int(r) // (2 * side), int(c) // (2 * side)) for r, c in places])
            sees = sees & (standby[:, None] | (of[:, None] == of[None]).all(-1))
        before: list[Tensor] = []
        for i, step in enumerate(rows):
            step = step + attended(block, step, places, sees, part.attentions[number], standby)
            if number >= late:
                before.append(step[area:])
                step = torch.cat([step[:area], step[area:] + in_time(part.temporal[number - late], before)])
            normed = block.norm2(step)
            passed = torch.cat([block.mlp(normed[:area]), mlp(block.mlp, normed[area:], part.mlps[number])])
            rows[i] = step + passed
    return torch.stack([merged(tower.merger, step[area:], part.merger) for step in rows])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_tower_under_a_mask(family: str, shape: tuple[int, int, int]) -> None:
    lm, part = made(family)
    chunk, _ = look(lm, part, shape)
    with torch.no_grad():
        want = plainly(lm, part, shape)
    grid = chunk.size[0] * chunk.size[1]
    got = chunk.embeds.view(len(chunk.steps), grid + part.n, -1)[:, grid:]
    assert_close(got, want, atol=2e-5, rtol=1e-4)
    assert (got[1:] - got[:-1]).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_models_own_tokens_stay_to_the_last_bit(family: str, dtype: torch.dtype) -> None:
    """Beside the part and without it; and the model is as it was, hooks included."""
    lm, part = made(family, dtype)
    weights = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    for shape in SHAPES:
        frames = video(*shape[:1], height=shape[1], width=shape[2])
        with torch.no_grad():
            plain = lm.adapter.look(frames, times(len(frames)))
        chunk, _ = look(lm, part, shape)
        rows = chunk.embeds.view(len(chunk.steps), -1, chunk.embeds.shape[1])
        assert torch.equal(rows[:, : -part.n].flatten(0, 1), plain.embeds)
        positions, _ = lm.adapter.place(chunk, Place(next=3))
        plainly_placed, _ = lm.adapter.place(plain, Place(next=3))
        assert torch.equal(positions.unflatten(-1, rows.shape[:2])[..., : -part.n].flatten(-2), plainly_placed)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in lm.model.state_dict().items())
    hooks = [m for m in lm.model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not [m for m in hooks if m in list(lm.model.model.visual.modules())]


@pytest.mark.parametrize("family", FAMILIES)
def test_places_lie_evenly(family: str) -> None:
    """As many standby tokens as there are tokens stand where these do, by the tower's own angles."""
    lm = build(family)
    part = StandbyPart.of(lm.model, n=12)
    assert part.places((1, 3, 4)).tolist() == [[float(r), float(c)] for r, c in patch_places(3, 4)]
    assert part.stands((1, 3, 4)) == tuple((r, c) for r in range(3) for c in range(4))
    tower = lm.model.model.visual
    with torch.no_grad(), passing(tower) as passed:
        lm.adapter.look(video(2, height=48, width=64), (0.0, 0.5))
    head = tower.blocks[0].attn.qkv.in_features // part.heads
    assert passed.rope is not None
    order = lm.adapter.order((1, 3, 4), torch.arange(12))
    order = torch.arange(12) if order is None else order
    for got, want in zip(rope(part.places((1, 3, 4)), head, part.theta), passed.rope, strict=True):
        assert_close(got.unflatten(0, (-1, 4))[order].flatten(0, 1), want.to(got), atol=1e-6, rtol=0)
    assert StandbyPart.of(lm.model, n=4).stands((1, 4, 4)) == ((1, 1), (1, 3), (3, 1), (3, 3))
    assert StandbyPart.of(lm.model, n=4).stands((1, 1, 7)) == ((0, 1), (0, 5), (0, 1), (0, 5))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_begins_as_the_model_itself(family: str) -> None:
    """Untrained, nothing is added: neither to a matrix nor by the steps before."""
    lm = build(family)
    part = StandbyPart.of(lm.model).double()
    chunk, carried = look(lm, part, SHAPES[0])
    few = chunk.embeds.view(len(chunk.steps), -1, chunk.embeds.shape[1])[:, -part.n :]
    for parameter in part.parameters():  # A and queries are nothing by themselves
        if parameter.abs().sum() > 0:
            torch.nn.init.normal_(parameter)
    again, _ = look(lm, part, SHAPES[0])
    assert torch.equal(again.embeds.view(len(chunk.steps), -1, chunk.embeds.shape[1])[:, -part.n :], few)
    assert {each.shape[0] for each in carried.values()} == {len(chunk.steps)}


# -- streams -----------------------------------------------------------------------------------------------------------


def opened(lm: pv.VideoLM, tokens: int | None = None, full: bool = True, evictor: str = "standby") -> pv.VideoStream:
    memory = pv.Memory(tokens=tokens, evictor=evictor)
    return lm.stream(pv.Pyramid(stages=1), memory, reducer=f"standby:full={str(full).lower()}")


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_where_chunks_end_changes_nothing(family: str, full: bool, tmp_path: Path) -> None:
    """Not even where the stream is saved and goes on; and longer than what the temporal attention sees."""
    lm, part = made(family)
    frames, seconds = video(24, height=48, width=64), times(24)
    logits = []
    for cuts in ((0, 24), (0, 2, 3, 9, 10, 24), tuple(range(25))):
        stream = opened(lm, full=full)
        for begin, end in pairwise(cuts):
            stream.push(frames[begin:end], seconds[begin:end])
        logits.append(stream.next_logits("what is shown ?"))
    for other in logits[1:]:
        assert_close(other, logits[0], atol=1e-9, rtol=0)
    held = stream.held()
    assert int(held.standby.sum()) == 12 * part.n
    assert int(held.visual.sum()) == 12 * (part.n + 12 * full)
    stream = opened(lm, full=full)
    stream.push(frames[:9], seconds[:9])
    assert 0 < stream.status.carried_bytes["tower"] <= part.most_bytes
    stream.save(tmp_path / "saved")
    three = (stream, lm.resume(tmp_path / "saved"), stream.fork())
    for each in three:
        each.push(frames[9:], seconds[9:])
        assert each.status.carried_bytes["tower"] == part.most_bytes
    asked = [each.next_logits("what is shown ?") for each in three]
    assert torch.equal(asked[0], asked[1])
    assert torch.equal(asked[0], asked[2])
    forgetful = opened(lm, full=full)
    forgetful.push(frames[:9], seconds[:9])
    forgetful._state.carried = {}  # the control: what is carried matters
    forgetful.push(frames[9:], seconds[9:])
    assert (forgetful.next_logits("what is shown ?") - asked[0]).abs().max() > 1e-6


def test_recent_steps_whole_and_older_ones_as_what_stands_by() -> None:
    """Grids of 12 with 4 beside them in 80 columns: the newest steps whole, and standby columns as far back as fits."""
    lm, _ = made("qwen2_5_vl")
    prefix = len(lm.prompt.before())
    stream = opened(lm, tokens=80 + prefix, evictor="standby:window=0.5")
    frames = video(40, height=48, width=64)
    for first in range(0, 40, 2):
        stream.push(frames[first : first + 2], times(40)[first : first + 2])
    table = stream.held()
    counts = {
        step: (int((table.standby & (table.step == step)).sum()), int((table.visual & (table.step == step)).sum()))
        for step in range(20)
    }
    assert len(table) <= 80 + prefix
    assert all(counts[step] == (4, 16) for step in (18, 19))
    bank = [step for step in range(18) if counts[step][0] == 4]
    assert bank == list(range(bank[0], 18))  # the oldest go first, each as a whole but for the last that goes
    assert bank[0] > 4
    assert len(bank) >= 6
    assert all(counts[step][0] == 0 for step in range(bank[0] - 1))


def table_of(steps: list[int], own: int, standby: int) -> TokenTable:
    """Steps of so many own and standby columns."""
    count = len(steps) * (own + standby)
    index = torch.arange(count)
    text = TokenTable.text(index, index[:, None].expand(-1, 3), index[:, None].expand(-1, 3))
    place = index % (own + standby)
    step = torch.tensor(steps).repeat_interleave(own + standby)
    columns = dict(zip((f.name for f in fields(text)), text.columns(), strict=True))
    columns |= dict(
        step=step,
        chunk=step,
        seconds=step.double(),
        until=step.double(),
        row=torch.zeros_like(index),
        column=torch.where(place < own, place, own - 2 - place),
        visual=torch.ones(count, dtype=torch.bool),
    )
    return TokenTable(**columns)


@pytest.mark.parametrize(
    ("steps", "keep", "want"),
    [
        # the example of two tiers, with a standby column in place of the best one: the newest two whole, one of others
        (list(range(6)), 14, {0: 1, 1: 1, 2: 1, 3: 1, 4: 5, 5: 5}),
        (list(range(7)), 14, {2: 1, 3: 1, 4: 1, 5: 5, 6: 5, 1: 1}),
        # room that is left goes to the newest of what would go
        ([0, 1, 2, 3], 14, {0: 1, 1: 3, 2: 5, 3: 5}),
        # no room for all that stands by: the oldest goes
        (list(range(8)), 12, {5: 1, 4: 1, 6: 5, 7: 5}),
    ],
)
def test_the_rule_by_hand(steps: list[int], keep: int, want: dict[int, int]) -> None:
    table = table_of(steps, own=4, standby=1)
    nothing = torch.zeros(1, len(table), 2)
    method = Standby(window=10.5 / keep)
    stay = choose(method(Held(nothing, nothing, table, 0, 1), keep), table, keep, distinct=True)
    kept = table.take(stay)
    got = {step: int((kept.step == step).sum()) for step in steps if (kept.step == step).any()}
    assert got == want
    assert all(bool(kept.standby[kept.step == step].any()) for step in got)
    again = choose(method(Held(nothing[:, stay], nothing[:, stay], kept, 0, 1), keep), kept, keep, distinct=True)
    assert torch.equal(again, torch.arange(keep))  # what stayed stays


def test_standby_columns_are_known_by_the_table() -> None:
    table = table_of([0, 1], own=4, standby=2)
    assert table.standby.tolist() == [False] * 4 + [True] * 2 + [False] * 4 + [True] * 2
    assert bool(table.pictured.all())
    assert not bool(table.sound.any())
    assert isinstance(EVICTORS["standby"], Standby)


# -- what is refused, and what it costs --------------------------------------------------------------------------------


def test_what_is_refused() -> None:
    with pytest.raises(pv.ConfigError, match="knows those of qwen2_vl and qwen2_5_vl; models of type 'qwen3_vl'"):
        StandbyPart.of(build("qwen3_vl").model)
    lm, _ = made("qwen2_5_vl")
    with pytest.raises(pv.ConfigError, match="needs the trained part 'standby'"):
        build("qwen2_5_vl").stream(reducer="standby")
    stream = lm.stream(gate="static:parts=true", reducer="standby")
    still = video(1, height=48, width=64).expand(6, -1, -1, -1).clone()
    still[3:, :16, :16] = 255 - still[3:, :16, :16]
    with pytest.raises(pv.ConfigError, match="leaves out parts of pictures"):
        stream.push(still, times(6))
    with pytest.raises(pv.ConfigError, match="window"):
        Standby(window=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_its_cost_is_what_is_multiplied(family: str) -> None:
    """Besides the tower's; softmax, norms and means are not counted there either."""
    lm, part = made(family, torch.float32)
    frames = video(4, height=48, width=64)
    with torch.no_grad():
        lm.adapter.look(frames, times(4))
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as plain:  # whose products are counted
            lm.adapter.look(frames, times(4))
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as both:
            look(lm, part, (4, 48, 64))
    front = lm.stream(reducer="standby")._ingest.front
    assert front.sight is part
    counted = both.get_total_flops() - plain.get_total_flops()
    assert counted == 2 * part.flops(48)
