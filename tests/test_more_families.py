"""The proofs of every family for those of `more_families.py`: once each, the rest of each proof's cases as slow ones.

They are the very tests that the first families run, called by name.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import test_asking as asking
import test_exact as exact
import test_families as first
import test_flops_tower as flops_tower
import test_generate as generate
import test_loading as loading
import test_one_shot as one_shot
import test_positions as positions
import test_session as session
import test_training as training
import test_turns as turns
import torch
from families import build, cases
from more_families import MORE, OTHERS
from torch.utils.flop_counter import FlopCounterMode
from true_sizes import BOTH, ONE, TWO

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape, layer_flops
from pdrop_video.memory.evictors import EVICTORS
from pdrop_video.models import Pixels, describe
from pdrop_video.pyramid import LayerLoop

ALL = MORE | OTHERS
ROUGH = ("glm4v_moe",)
"""Families that compute in float32 whatever the model's type: their routers."""


def attn(family: str, wanted: str = "sdpa") -> str:
    """Eager attention, whose softmax is in float32, is compared by as much as such a router needs."""
    return "eager" if family in ROUGH else wanted


@pytest.mark.parametrize(
    ("family", "sizes", "kind"),
    cases(ALL, exact.SIZES, exact.ATTENTIONS, fast=lambda f, s, a: (s - f) % 5 == 0 and a == 0),
)
def test_nothing_dropped(family: str, sizes: list[int], kind: str) -> None:
    exact.test_nothing_dropped_equals_one_forward(family, sizes, attn(family, kind))


@pytest.mark.parametrize(
    ("family", "pyramid", "room", "steps"),
    cases(
        ALL,
        exact.PYRAMIDS,
        (None, 4, 2.6),  # steps that fit into the budget
        exact.STEPS,
        fast=lambda f, p, r, s: p == f % 4 and r == 1 + f % 2 and s == f % 5,
    ),
)
def test_drops_and_evictions(
    family: str, pyramid: pv.Pyramid, room: float | None, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact.test_drops_and_evictions_equal_masks(family, pyramid, room, attn(family), steps, monkeypatch)


@pytest.mark.parametrize(("family", "room"), cases(ALL, (4, None), fast=lambda f, r: r == 0 and f % 2))
def test_ask_leaves_no_trace(family: str, room: float | None) -> None:
    exact.test_ask_leaves_no_trace(family, room)


@pytest.mark.parametrize(
    ("family", "evictor", "dtype"),
    cases(ALL, EVICTORS, (torch.float32, torch.float64), fast=lambda f, e, d: e == f % 5 and d == 0 and not f % 2),
)
def test_saved_and_resumed(family: str, evictor: str, dtype: torch.dtype, tmp_path: Path) -> None:
    session.test_every_evictor_goes_on_bit_for_bit(evictor, family, dtype, tmp_path)


@pytest.mark.parametrize("family", ALL)
def test_one_shot(family: str) -> None:
    if family != "molmo2":  # see `test_molmo2`
        one_shot.test_prefill_equals_masks(family, attn(family))
        one_shot.test_generate_equals_step_by_step(family)


@pytest.mark.parametrize("family", MORE)
def test_text_is_the_processors(family: str) -> None:
    for frames, fps in ((6, 2.0), (5, 0.1)):
        first.test_text_is_the_processors(family, frames, fps)


@pytest.mark.parametrize("family", MORE)
def test_positions_are_the_models_own(family: str) -> None:
    """Of a video of many steps, its times uneven, by its own `get_rope_index`; or one number a token."""
    lm, seconds = build(family), [0.5 * i + (7 if i > 9 else 0) for i in range(18)]
    if lm.stream().loop.axes == 1:
        return first.test_linear_positions_count_every_token(family)
    want = first.of_transformers(lm, 18, seconds)
    for chunks in ([18], [4, 6, 8]):
        assert torch.equal(first.placed(lm, seconds, chunks), want)
    return None


@pytest.mark.parametrize("family", [name for name in MORE if name != "perception_lm"])  # a tower of timm's
def test_the_tower_costs_what_pytorch_counts(family: str) -> None:
    flops_tower.test_every_family_costs_what_pytorch_counts(family)


@pytest.mark.parametrize("family", ALL)
@torch.no_grad()
def test_the_decoder_costs_what_pytorch_counts(family: str) -> None:
    """By active experts where there are some."""
    lm, rows = build(family, "eager", dtype=torch.float32), 11
    text, shape = lm.model.get_decoder(), DecoderShape.of(lm.model.config)
    hidden, positions = torch.randn(1, rows, 64), torch.arange(rows)[None]
    if lm.stream().loop.axes == 3:
        positions = positions.expand(3, 1, -1)
    with FlopCounterMode(display=False) as angles:  # until some version RoPE's angles are a matrix product
        text.rotary_emb(hidden, positions)
    with FlopCounterMode(display=False) as counter:
        text(inputs_embeds=hidden, use_cache=False)
    layers = counter.get_total_flops() - angles.get_total_flops()
    assert layers == sum(layer_flops(shape, i, rows, causal=False) for i in range(shape.layers))


def test_molmo2_pools_what_is_there() -> None:
    """Two frames of 7 x 7 patches in threes: one row is missing above and one below, by hand."""
    if "molmo2" not in MORE:
        pytest.skip("not in this transformers")
    want = []
    for frame in range(2):
        for top, left in itertools.product((-1, 2, 5), (-1, 2, 5)):
            cells = itertools.product(range(top, top + 3), range(left, left + 3))
            want.append([49 * frame + 7 * r + c if 0 <= r < 7 and 0 <= c < 7 else -1 for r, c in cells])
    assert build("molmo2").adapter.pooling((2, 3, 3), 49).tolist() == want


def test_layers_that_are_told_more_of_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which a try with text alone would not show."""
    text: Any = build("qwen3_vl_moe").model.get_decoder()
    kind = type(text.layers[0])

    def forward(self: Any, hidden_states: Any, token_type_ids: Any = None, **kwargs: Any) -> None: ...

    monkeypatch.setattr(kind, "forward", forward)
    with pytest.raises(pv.ModelError, match="told by token_type_ids"):
        LayerLoop(text, pv.Pyramid(stages=1))


# -- loading ----------------------------------------------------------------------------------------------------------

NAMED = {"processor_class": "SomeProcessor"}
FILES = {
    "two files": lambda video: {ONE: video | NAMED | {"size": {}}, TWO: video | {"fps": 2}},
    "saved by 5": lambda video: {BOTH: NAMED | {"image_processor": video | {"size": {}}, "video_processor": video}},
}


@pytest.mark.parametrize(("family", "layout"), cases(MORE, FILES, fast=lambda f, n: f % 2 == n))
def test_a_loaded_folder_is_the_model_that_was_saved(family: str, layout: str, tmp_path: Path) -> None:
    original, numbers = build(family), MORE[family]()[2]
    original.model.save_pretrained(tmp_path, max_shard_size="300KB")
    original.tokenizer.save_pretrained(tmp_path)
    for file, content in FILES[layout](numbers).items():
        (tmp_path / file).write_text(json.dumps(content))
    more = {"experts_implementation": "eager"} if "moe" in family else {}
    loaded = pv.load(tmp_path, device="cpu", **more)
    weights = loaded.model.state_dict()
    assert weights.keys() == original.model.state_dict().keys()
    saved = original.model.state_dict().items()  # some transformers load routers in float32, whatever type is wanted
    assert all(torch.equal(weights[name], tensor.to(weights[name].dtype)) for name, tensor in saved)
    original.adapter.pixels = type(original.adapter).per_frame(Pixels.of(numbers))
    assert loaded.adapter.pixels == original.adapter.pixels and loaded.adapter.pixels.said["processor_class"]
    assert loading.answer(loaded) == loading.answer(original)


@pytest.mark.parametrize("family", [name for name in MORE if name.startswith("glm")])
@pytest.mark.parametrize(("writer", "text"), [("Glm4vProcessor", "61"), ("Glm46VProcessor", "61.5 seconds")])
def test_what_writes_a_glms_times_is_in_its_files(family: str, writer: str, text: str, tmp_path: Path) -> None:
    """GLM-4.6V's checkpoints have the architectures of 4.1V and 4.5V, and a processor of their own."""
    build(family).model.config.save_pretrained(tmp_path)
    for file, content in (
        (BOTH, {"processor_class": writer}),
        (ONE, {"processor_class": writer}),
        ("tokenizer_config.json", {"processor_class": writer}),
    ):
        (tmp_path / ONE).write_text(json.dumps(MORE[family]()[2]))
        (tmp_path / file).write_text(json.dumps(MORE[family]()[2] | content))
        assert describe(tmp_path)[1].glue(3, 61.5) == ("<|begin_of_image|>", f"<|end_of_image|>{text}")
        (tmp_path / file).unlink()


# -- slow: what else the first families prove -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("room", [None, 6, 4.5])
@pytest.mark.parametrize("family", [name for name in ALL if name not in ROUGH])
def test_turns(family: str, room: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    turns.test_turns_under_drops_and_evictions_equal_masks(family, "oldest", room, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("pyramid", asking.ASKING)
@pytest.mark.parametrize("family", ALL)
def test_a_question_drops(family: str, pyramid: pv.Pyramid, monkeypatch: pytest.MonkeyPatch) -> None:
    asking.test_a_question_drops_as_pyramid_drop_does(family, pyramid, asking.WATCHING[1], 3, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["window", "compact", "original"])
@pytest.mark.parametrize("family", ALL)
def test_keys_past_the_trained_range(family: str, mode: str) -> None:
    positions.test_keys_stand_where_the_table_says(family, mode)
    if mode == "window" and family not in ROUGH:
        positions.test_a_question_over_moved_keys_equals_transformers(family)


@pytest.mark.slow
@pytest.mark.parametrize("mode", generate.MODES)
@pytest.mark.parametrize("family", ALL)
def test_generate(family: str, mode: str) -> None:
    if family == "molmo2":
        pytest.skip("it makes masks of its own around the decoder")
    if family.startswith("glm") and "beams" in mode:
        pytest.skip("transformers itself counts no video tokens there, and beams of videos fail")
    generate.test_ratios_of_one_change_nothing(family, mode)


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in ALL if name != "molmo2"])  # it trains with masks of its own
def test_training(family: str) -> None:
    training.test_loss_and_gradients_equal_masks(family)
