"""Compression inside the vision tower: a picture once more row by row, how it begins, streams, and what it saves."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from families import build, video
from parts import random_part, with_parts
from standing_by import FAMILIES, SHAPES, attended, copied, look, merged, mlp, patch_places, times
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

import pdrop_video as pv
from eval.runner.equal import STEPS, TEXT, WHOLE, Way
from pdrop_video.costs.decoder import prefill_flops
from pdrop_video.models import Place, Tower
from pdrop_video.parts.uhd import UHDPart, usual_depth
from pdrop_video.stream.cost import recipe_flops
from pdrop_video.stream.sight import look_flops

SIZE = dict(frames=4, height=32, width=96)


@cache
def made(family: str, dtype: torch.dtype = torch.float64) -> tuple[pv.VideoLM, Any]:
    """A model of two blocks with a random part between them."""
    lm = build(family, dtype=dtype)
    part = UHDPart.of(lm.model, after=1)
    torch.manual_seed(0)
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    part = part.to(torch.promote_types(dtype, torch.float32)).eval().requires_grad_(False)
    return with_parts(lm, part), part


class Copy:
    """A block that computes as a copy of it, for `attended`."""

    def __init__(self, block: Any, few: Any, prefix: str = "") -> None:
        self.num_heads, self.norm1, self.attn = block.attn.num_heads, block.norm1, self
        names = few.names
        self.qkv = lambda rows: copied(block.attn.qkv, rows, few, names.index(f"{prefix}qkv"))
        self.proj = lambda rows: copied(block.attn.proj, rows, few, names.index(f"{prefix}proj"))


class Only:
    """Of what is added to a block, that of its MLP."""

    def __init__(self, few: Any) -> None:
        own = [i for i, name in enumerate(few.names) if name.startswith("mlp.")]
        self.names = [few.names[i].removeprefix("mlp.") for i in own]
        self.into, self.out = [few.into[i] for i in own], [few.out[i] for i in own]


def compressed(block: Any, compressor: Any, rows: Tensor, places: list[Any]) -> Tensor:
    """A quarter of the rows, window by window, with whole matrices W1 [4 m, 4 d] and W2 [d, 4 m]."""
    window = torch.arange(len(rows)) // 4
    rows = rows + attended(Copy(block, compressor.attention), rows, places, window[:, None] == window)
    made = []
    names = ["gate_proj", "up_proj"] if hasattr(block.mlp, "gate_proj") else ["fc1"]
    last = getattr(block.mlp, "down_proj", None) or block.mlp.fc2
    act = getattr(block.mlp, "act_fn", None) or block.mlp.act
    norm = block.norm2
    for first in range(0, len(rows), 4):
        four = rows[first : first + 4].flatten()
        scale = torch.cat([norm.weight] * 4) + compressor.scale
        if isinstance(norm, torch.nn.LayerNorm):
            normed = (four - four.mean()) / (four.var(unbiased=False) + norm.eps).sqrt() * scale
            normed = normed + torch.cat([norm.bias] * 4)
        else:
            normed = four / (four.square().mean() + norm.variance_epsilon).sqrt() * scale
        wide = []
        for name in names:
            matrix, number = getattr(block.mlp, name), compressor.first.names.index(name)
            whole = torch.block_diag(*[matrix.weight] * 4)
            whole = whole + compressor.first.out[number] @ compressor.first.into[number]
            wide.append(whole @ normed + (0 if matrix.bias is None else torch.cat([matrix.bias] * 4)))
        inner = act(wide[0]) * wide[1] if len(wide) == 2 else act(wide[0])
        back = torch.cat([last.weight] * 4, dim=1) / 4 + compressor.last.out[0] @ compressor.last.into[0]
        made.append(rows[first : first + 4].mean(0) + back @ inner + (0 if last.bias is None else last.bias))
    return torch.stack(made)


def plainly(lm: pv.VideoLM, part: Any, shape: tuple[int, int, int]) -> Tensor:
    """Tokens [steps, quarter, hidden]."""
    frames = video(*shape[:1], height=shape[1], width=shape[2])
    values, (t, h, w) = lm.adapter.values_of(frames)
    tower = lm.model.model.visual
    side, tokens = getattr(lm.adapter, "window", None), []
    for step in tower.patch_embed(values).view(t, 4 * h * w, -1):
        rows, places = step, patch_places(h, w)
        for number, block in enumerate(tower.blocks):
            if number == part.after:
                rows = compressed(tower.blocks[number - 1], part.compressor, rows, places)
                places = [(2 * r + 0.5, 2 * c + 0.5) for r in range(h) for c in range(w)]
            sees = torch.ones(len(rows), len(rows), dtype=torch.bool)
            if side is not None and number not in tower.config.fullatt_block_indexes:
                of = torch.tensor([(int(r) // (2 * side), int(c) // (2 * side)) for r, c in places])
                sees = (of[:, None] == of[None]).all(-1)
            few = None if number < part.after else part.blocks[number - part.after]
            rows = rows + attended(block if few is None else Copy(block, few, "attn."), rows, places, sees)
            normed = block.norm2(rows)
            rows = rows + (block.mlp(normed) if few is None else mlp(block.mlp, normed, Only(few)))
        squares = [
            rows[min(r + i, h - 1) * w + min(c + j, w - 1)]
            for r in range(0, h, 2)
            for c in range(0, w, 2)
            for i in range(2)
            for j in range(2)
        ]
        tokens.append(merged(tower.merger, torch.stack(squares), part.merger))
    return torch.stack(tokens)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_whole_matrices_make(family: str, shape: tuple[int, int, int]) -> None:
    """On grids of 3 x 3, 4 x 2 and 1 x 7, of which the last row or column counts twice where they are odd."""
    lm, part = made(family)
    chunk, carried = look(lm, part, shape)
    with torch.no_grad():
        want = plainly(lm, part, shape)
        plain = lm.adapter.look(video(*shape[:1], height=shape[1], width=shape[2]), times(shape[0]))
    h, w = plain.size
    assert carried == {}
    assert chunk.size == (h, w)
    assert_close(chunk.embeds.view_as(want), want, atol=2e-5, rtol=1e-4)
    # a token stands at the place of the last of those that it is made of
    at = [(min(2 * r + 1, h - 1), min(2 * c + 1, w - 1)) for r in range(-(-h // 2)) for c in range(-(-w // 2))]
    assert chunk.place().view(len(chunk.steps), -1).tolist() == [[r * w + c for r, c in at]] * len(chunk.steps)
    positions, after = lm.adapter.place(chunk, Place(next=3))
    whole, afterwards = lm.adapter.place(plain, Place(next=3))
    assert torch.equal(positions, whole[..., part.kept((len(chunk.steps), h, w))])
    assert after == afterwards


@pytest.mark.parametrize("family", FAMILIES)
def test_its_mlp_begins_as_the_mean_of_four(family: str) -> None:
    """Exactly, in float64: W1 = blockdiag(F1 x 4), W2 = [F2 x 4] / 4; behind the common norm only nearly."""
    lm = build(family)
    part = UHDPart.of(lm.model, after=1).double()
    block = lm.model.model.visual.blocks[0]
    windows = torch.randn(7, 4, 32, dtype=torch.float64)
    with torch.no_grad():
        got = part.compressor.merged(block, windows)
        assert_close(got, block.mlp(windows).mean(dim=1), atol=1e-12, rtol=1e-12)
        rows = windows.flatten(0, 1)
        assert (part.compressor.normed(block.norm2, rows).flatten(0, 1) - block.norm2(rows)).abs().max() > 1e-3
        alike = windows[:, :1].expand(-1, 4, -1).flatten(0, 1)  # four that are the same are normalised as one
        assert_close(part.compressor.normed(block.norm2, alike).flatten(0, 1), block.norm2(alike))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_sees_through_it(family: str, tmp_path: Path) -> None:
    """A quarter enters; where chunks end changes nothing; saved and forked it goes on bit for bit."""
    lm, _ = made(family)
    frames, seconds = video(12, height=48, width=64), times(12)
    logits = []
    for cuts in ((0, 12), (0, 3, 4, 12)):
        stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), reducer="uhd")
        for begin, end in pairwise(cuts):
            stream.push(frames[begin:end], seconds[begin:end])
        logits.append(stream.next_logits("what is shown ?"))
        assert int(stream.held().visual.sum()) == 6 * 4
    assert_close(logits[0], logits[1], atol=1e-9, rtol=0)
    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), reducer="uhd")
    stream.push(frames[:6], seconds[:6])
    stream.save(tmp_path / "saved")
    three = (stream, lm.resume(tmp_path / "saved"), stream.fork())
    for each in three:
        each.push(frames[6:], seconds[6:])
    asked = [each.next_logits("what is shown ?") for each in three]
    assert torch.equal(asked[0], asked[1])
    assert torch.equal(asked[0], asked[2])
    plain = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
    plain.push(frames, seconds)
    assert int(plain.held().visual.sum()) == 6 * 12  # the same model without the part's reducer looks as ever


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tower_is_cheaper_by_what_is_counted(family: str) -> None:
    """Streams and recipes are told what torch counts: blocks in front whole, those behind on a quarter, and more."""
    lm, part = made(family, torch.float32)
    frames, size = video(4, height=32, width=96), (2, 6)
    assert lm.adapter.grid(32, 96) == size
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # whose products are counted
        with FlopCounterMode(display=False) as plain:
            lm.adapter.look(frames, times(4))
        with FlopCounterMode(display=False) as fewer:
            look(lm, part, (4, 32, 96))
    assert lm.stream(reducer="uhd")._ingest.front.sight is part
    assert lm.adapter.look_flops(size, 2) == plain.get_total_flops()
    assert look_flops(part, lm.adapter, size, 2) == fewer.get_total_flops()
    recipe = pv.Recipe(reducer="uhd", pyramid=pv.Pyramid(stages=1))
    way = recipe_flops(recipe, lm.model.config, lm.adapter, frames=4, height=32, width=96, parts=lm.parts)
    assert way.tower == fewer.get_total_flops()
    league = Way.of(lm, 96)
    through = league.through(lm, part, 96)  # of 3 x 3 tokens 2 x 2 leave
    assert (through.step, through.places) == (look_flops(part, lm.adapter, (3, 3), 1), 4)
    plain = WHOLE.resolve(league.decoder.layers, league.decoder.rank_at)
    fewer_too, all_of_it = (
        step * STEPS + prefill_flops(league.decoder, plain, tokens * STEPS, TEXT)
        for step, tokens in ((through.step, 4), (league.step, 9))
    )
    assert through.share() == fewer_too / all_of_it
    whole = recipe_flops(pv.Recipe(pyramid=pv.Pyramid(stages=1)), lm.model.config, lm.adapter, **SIZE)
    assert way.decoder is not None
    assert whole.decoder is not None
    assert way.decoder < whole.decoder / 3.5
    assert recipe_flops(recipe, lm.model.config, lm.adapter, **SIZE).tower is None  # nobody said through which part


def test_a_tower_that_halves() -> None:
    tower = Tower(64, 10, 8, 16, ((64,),) * 4, ((16, (32, 32, 8)),), gated=True)
    assert tower.halved(1).layers == ((64,), (16,), (16,), (16,))
    assert tower.halved(1).after == ((4, (32, 32, 8)),)
    assert tower.halved(4) == Tower(64, 10, 8, 16, ((64,),) * 4, ((4, (32, 32, 8)),), gated=True)


def test_what_is_refused() -> None:
    with pytest.raises(pv.ConfigError, match="knows those of qwen2_vl and qwen2_5_vl; models of type 'internvl'"):
        UHDPart.of(build("internvl").model)
    for after in (0, 2):
        with pytest.raises(pv.ConfigError, match="after"):
            UHDPart.of(build("qwen2_5_vl").model, after=after)
    with pytest.raises(pv.ConfigError, match="needs the trained part 'uhd'"):
        build("qwen2_5_vl").stream(reducer="uhd")


def test_a_part_is_made_for_a_model_by_default() -> None:
    part = random_part(build("qwen2_5_vl"), "uhd")
    assert part.shape["after"] == 1
    assert [usual_depth(blocks) for blocks in (2, 4, 12, 27, 32)] == [1, 3, 3, 6, 7]
