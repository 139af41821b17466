"""AdaSpark with everything that a stream does: families, files, failures, doors, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, budget, build, video
from hybrids import HYBRIDS, exact_linear_attention
from hybrids import build as build_hybrid
from more_families import MORE, OTHERS
from test_exact import chunks, next_logits
from test_flops_stream import Watch, counting
from test_session import same
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

import pdrop_video as pv
from eval.runner.clock import Clock
from eval.runner.metered import Metered
from pdrop_video.cli.options import recipe_of
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.costs.inside import inside_flops
from pdrop_video.pyramid.inside import AdaSpark
from pdrop_video.stream import Recipe

QUESTION = "what is shown first ?"
LINE = "adaspark:p=0.6,height=2,width=2"


def pushed(lm: pv.VideoLM, inside: Any, sizes: list[int], tokens: int | None = None, **more: Any) -> pv.VideoStream:
    frames = sum(sizes)
    stream = lm.stream(pv.Pyramid(stages=3, inside=inside, **more), pv.Memory(tokens=tokens))
    for part, times in chunks(video(frames), [0.5 * i for i in range(frames)], sizes):
        stream.push(part, times)
    return stream


# -- families ---------------------------------------------------------------------------------------------------------


NOT_PLAIN = ("gemma4", "muse_spark_moe")
"""Families whose layers add something else behind the FFN, or scale what it adds."""
FAST = ("qwen3_vl", "llava_next_video", "molmo2", "glm4v", "qwen3_5", "gemma4", "gemma4_moe", "exaone4_5")


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, marks=[] if family in FAST else pytest.mark.slow)
        for family in (*FAMILIES, *MORE, *OTHERS, *HYBRIDS)
    ],
)
def test_every_family_is_run_or_refused(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No border of a chunk matters where nothing is dropped, and the model's own layers are left as they were."""
    hybrid, line = family in HYBRIDS, LINE
    if hybrid:
        exact_linear_attention(monkeypatch)
    lm = build_hybrid(family) if hybrid else build(family)
    if family in NOT_PLAIN:
        with pytest.raises(pv.ConfigError, match=r"no plain FFN.*half=attention"):
            lm.stream(pv.Pyramid(inside=LINE))
        line = f"{LINE},half=attention"
    step, made = lm.adapter.frames_per_step, []
    for sizes in ([3 * step], [step, 2 * step], None):
        stream = lm.stream(pv.Pyramid(stages=1, inside=line if sizes else None), pv.Memory(tokens=None))
        for part, times in chunks(video(3 * step), [0.5 * i for i in range(3 * step)], sizes or [3 * step]):
            stream.push(part, times)
        made.append(next_logits(stream))
    layers = lm.model.get_decoder().layers
    assert not any(module._forward_pre_hooks for layer in layers for module in layer.modules())
    assert not any(child._forward_hooks for layer in layers for child in layer.children())
    torch.testing.assert_close(made[0], made[1], atol=2e-5 if hybrid else 1e-9, rtol=0)
    assert (made[0] - made[2]).abs().max() > 1e-3


class Doubled(nn.Module):
    """An FFN that looks at its neighbours."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, hidden: Tensor) -> Tensor:
        return self.mlp(hidden) + hidden.mean(1, keepdim=True)


def test_an_ffn_that_mixes_rows_is_refused() -> None:
    lm = build("qwen2_5_vl")
    lm.model.get_decoder().layers[3].mlp = Doubled(lm.model.get_decoder().layers[3].mlp)
    with pytest.raises(pv.ConfigError, match=r"layer 3 get another one where some rows alone do.*half=attention"):
        lm.stream(pv.Pyramid(inside="adaspark"))
    lm.stream(pv.Pyramid(inside="adaspark:half=attention"))


def test_what_is_scaled_behind_an_ffn_is_refused() -> None:
    lm = build("qwen2_5_vl")
    layer = lm.model.get_decoder().layers[1]

    class Scaled(type(layer)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return 2 * super().forward(*args, **kwargs)

    layer.__class__ = Scaled
    lm.stream()
    with pytest.raises(pv.ConfigError, match=r"what layer 1 .* is no plain FFN"):
        lm.stream(pv.Pyramid(inside="adaspark"))


# -- what a stream does -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [None, 4])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_saved_forked_asked_and_failed(
    family: str, room: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = build(family)
    stream = pushed(lm, LINE, [2, 2, 4], budget(lm, room))
    stream.save(tmp_path / "a.pdrop")
    resumed, fork = lm.resume(tmp_path / "a.pdrop"), stream.fork()
    assert resumed.loop.inner is not None and resumed.loop.inner.inside == AdaSpark(p=0.6, height=2, width=2)
    with monkeypatch.context() as broken:
        broken.setattr(type(lm.model.get_decoder().layers[2].mlp), "forward", failing)
        with pytest.raises(ZeroDivisionError):
            stream.push(video(2, seed=3), [10, 11])
    stream.ask(QUESTION, max_new_tokens=2)
    for each in (stream, resumed, fork):
        each.push(video(4, seed=1), [10, 11, 12, 13])
    same(stream, resumed)
    same(stream, fork)
    assert torch.equal(next_logits(stream), next_logits(resumed))
    plain = pushed(lm, None, [2, 2, 4], budget(lm, room))
    plain.push(video(4, seed=1), [10, 11, 12, 13])
    assert (next_logits(plain) - next_logits(stream)).abs().max() > 1e-3


def failing(*args: object, **kwargs: object) -> None:
    raise ZeroDivisionError


def test_a_question_that_hides_and_brings_back() -> None:
    """Columns that are hidden from a question are no part of any cube; those that come back are."""
    lm = build("qwen2_5_vl")
    stream = lm.stream(pv.Pyramid(stages=1, inside=LINE), pv.Memory(tokens=budget(lm, 4), archive=10**7))
    for part, times in chunks(video(16), [0.5 * i for i in range(16)], [4] * 4):
        stream.push(part, times)
    plain = stream.next_logits(QUESTION)
    hiding = stream.next_logits(QUESTION, pyramid=pv.Pyramid(layers=(2,), ratios=(0.5,)))
    back = stream.next_logits(QUESTION, retrieve=2)
    assert (plain - hiding).abs().max() > 1e-6 and (plain - back).abs().max() > 1e-6
    assert torch.equal(plain, stream.next_logits(QUESTION))


def test_in_smaller_types() -> None:
    """What is kept is of the model's type, and float32 chooses as float64 does."""
    lm = build("qwen2_5_vl", dtype=torch.bfloat16)
    made = []
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        lm.model.to(dtype)
        stream = pushed(lm, LINE, [4])
        assert all(layer.keys.dtype == dtype for layer in stream._state.cache.layers)
        made.append(next_logits(stream).double())
    assert (made[1] - made[2]).abs().max() < 1e-3
    assert made[0].isfinite().all()


# -- doors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("spark", "there is no method inside layers 'spark'; choose one of adaspark"),
        ("adaspark:p=0", r"p is 0.*share in \(0, 1\]"),
        ("adaspark:p=1.5", "p is 1.5"),
        ("adaspark:height=0", "height is 0"),
        ("adaspark:half=none", "half is 'none'"),
        ("adaspark:depth=2", "has 'depth=2'; expected p, height, width, steps, half"),
    ],
)
def test_other_values_are_refused(line: str, match: str) -> None:
    with pytest.raises(pv.ConfigError, match=match):
        pv.Pyramid(inside=line)


def test_where_no_frames_are_told_apart_it_is_refused() -> None:
    lm = build("qwen2_5_vl")
    with (
        pytest.raises(pv.ConfigError, match="cubes of frames"),
        pv.pyramid_drop(lm.model, pv.Pyramid(inside="adaspark")),
    ):
        pass
    stream = pushed(lm, None, [2])
    with pytest.raises(pv.ConfigError, match="inside='adaspark', which asking does not use"):
        stream.ask(QUESTION, pyramid=pv.Pyramid(inside="adaspark"))


def test_attention_without_masks_is_refused() -> None:
    lm = build("qwen2_5_vl")
    lm.model.get_decoder().config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(pv.ConfigError, match="'flash_attention_2' does not take; load the model with attn=\"sdpa\""):
        pv.pyramid.LayerLoop(lm.model.get_decoder(), pv.Pyramid(inside="adaspark"))
    pv.pyramid.LayerLoop(lm.model.get_decoder(), pv.Pyramid(inside="adaspark:half=ffn"))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava_onevision", "internvl"])
def test_by_flex_attention_it_is_as_by_a_mask(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention by its own plain code: its compiler fails at such masks on CPUs, so there it is refused."""
    logits = {}
    for attn in ("sdpa", "flex_attention"):
        lm = build(family, dtype=torch.float32)
        lm.model.get_decoder().set_attn_implementation(attn)
        if attn == "flex_attention":
            with pytest.raises(pv.ConfigError, match="'flex_attention' does not take"):
                lm.stream(pv.Pyramid(stages=1, inside="adaspark:half=attention"))
            monkeypatch.setattr("pdrop_video.pyramid.inside.inner.takes_blocks", lambda decoder: True)
            monkeypatch.setattr("transformers.integrations.flex_attention.compile_friendly_flex_attention", plain)
        stream = lm.stream(pv.Pyramid(stages=1, inside="adaspark:half=attention"))
        for at in (0, 3):
            stream.push(video(6, seed=at), [at + 0.5 * i for i in range(6)])
        logits[attn] = stream.next_logits("what is shown first ?")
    torch.testing.assert_close(logits["flex_attention"], logits["sdpa"], atol=2e-5, rtol=0)
    whole = build(family, dtype=torch.float32).stream(pv.Pyramid(stages=1))
    for at in (0, 3):
        whole.push(video(6, seed=at), [at + 0.5 * i for i in range(6)])
    assert (whole.next_logits("what is shown first ?") - logits["sdpa"]).abs().max() > 1e-3  # something was left out


def plain(query: Tensor, key: Tensor, value: Tensor, training: bool = False, **how: Any) -> Any:
    """FlexAttention without its compiler."""
    return flex_attention(query, key, value, **how)


def test_it_is_part_of_recipes_files_and_options(tmp_path: Path) -> None:
    recipe = Recipe(pyramid=pv.Pyramid(ratios=(0.5,), inside=AdaSpark(p=0.5, half="ffn")))
    assert recipe.as_dict()["pyramid"]["inside"] == 'adaspark:p=0.5,half="ffn"'
    recipe.save(tmp_path / "a.yaml")
    assert Recipe.load(tmp_path / "a.yaml") == Recipe.from_dict(recipe.as_dict())
    pv.Pyramid(inside="adaspark:p=0.5").save(tmp_path / "b.json")
    assert pv.Pyramid.load(tmp_path / "b.json").inside == "adaspark:p=0.5"
    with pytest.raises(pv.ConfigError, match="inside is"):
        pv.Pyramid(inside=AdaSpark()).save(tmp_path / "c.json")
    assert recipe_of(None, inside="adaspark:p=0.7", ratios="0.5").pyramid.inside == "adaspark:p=0.7"
    altered = recipe.altered(pyramid={"inside": "adaspark"})
    assert altered.pyramid == pv.Pyramid(ratios=(0.5,), inside="adaspark")


# -- cost -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", ["ffn", "attention", "both"])
def test_what_is_left_out_is_what_pytorch_does_not_count(half: str) -> None:
    lm, line = build("qwen2_5_vl", "eager", dtype=torch.float32), f"{LINE},half={half}"
    lm.stream(pv.Pyramid(inside=line)).close()  # the trial
    watch = Watch(lm, pv.Pyramid(stages=3, scorer="contrast", inside=line))
    inner = watch.stream.loop.inner
    assert inner is not None
    with inner.counting() as spent:
        for frames in (4, 2, 4):
            watch.push(frames)
    made = inside_flops(DecoderShape.of(lm.model.config), spent)
    assert watch.watched().flops + watch.tower - made.ffn + made.choosing == watch.counted
    assert (made.ffn > 0) == (half != "attention") and (made.attention > 0) == (half != "ffn")
    if half != "ffn":
        every = [of for of in spent.layers.values() if of.chose]
        assert all(0 < float(of.attended) < float(of.seen) for of in every)
    assert inner.spent is None


def test_a_run_records_what_was_left() -> None:
    """Of pushes what PyTorch counts; and of a question as much as without, since text gets FFNs of its own."""
    lm, line = build("qwen2_5_vl", "eager", dtype=torch.float32), f"{LINE},half=ffn"
    lm.stream(pv.Pyramid(inside=line)).close()  # the trial
    stream = lm.stream(pv.Pyramid(stages=3, scorer="contrast", inside=line))
    metered = Metered(stream, DecoderShape.of(lm.model.config), Clock(), causal=False)
    with counting() as watched:
        for first in (0, 4):
            metered.push(pv.FrameChunk(video(4, seed=first), (first, first + 1, first + 2, first + 3)))
    assert watched.total == metered.flops + metered.tower
    with metered.thinned() as saved, counting() as asked:
        stream.next_logits(QUESTION)
    assert saved() == 0 and asked.total == metered.asking_flops(metered.rows(QUESTION), 1)


def test_nothing_is_counted_of_text() -> None:
    lm = build("qwen2_5_vl", "eager", dtype=torch.float32)
    stream = pushed(lm, f"{LINE},half=ffn", [4])
    plain = pushed(lm, None, [4])
    with counting() as asked:
        stream.next_logits(QUESTION)
    with counting() as same_asked:
        plain.next_logits(QUESTION)
    assert asked.total == same_asked.total
