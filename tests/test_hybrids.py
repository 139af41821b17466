"""Families whose decoders are not full attention alone: what their adapters say is what the models themselves do."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as tf
from families import tokenizer, video
from hybrids import HYBRIDS, build, inputs_of, plain_rule
from test_flops_tower import SIZES, counted
from torch import Tensor
from true_hybrids import TRUE_HYBRIDS

import pdrop_video as pv
from pdrop_video import Pyramid, VideoLM
from pdrop_video.models import ADAPTERS, Pixels, Place, adapter_for, describe
from pdrop_video.pyramid import LayerLoop
from pdrop_video.pyramid.decoder import Decoder

QUESTION = "what is first ?"
ONE = Pyramid(stages=1)


@torch.no_grad()
def entering(lm: VideoLM, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the unmodified model hands to its decoder stack, and to its layer 5, for a whole prompt."""
    seen: dict[str, Any] = {}
    text = lm.model.get_decoder()
    hooks = [
        text.register_forward_pre_hook(lambda _, __, given: seen.update(given), with_kwargs=True),
        text.layers[5].register_forward_pre_hook(lambda _, given, __: seen.update(layer=given), with_kwargs=True),
    ]
    lm.model(**inputs, use_cache=False)
    for hook in hooks:
        hook.remove()
    return seen


@torch.no_grad()
def rows(lm: VideoLM, frames: Tensor, seconds: list[float], steps: int) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Embeddings [tokens, hidden], positions [3 or 1, tokens], ids and ends of a stream of chunks of so many steps."""
    adapter, before, after = lm.adapter, lm.prompt.before(), lm.prompt.after(QUESTION)
    embeds, ids = [adapter.embed(before)], [torch.tensor(before)]
    placed, place = adapter.positions.text(len(before), Place())
    positions, size = [placed], steps * adapter.frames_per_step
    for first in range(0, len(frames), size):
        some = slice(first, first + size)
        chunk = adapter.look(frames[some], tuple(seconds[some]), first // adapter.frames_per_step)
        placed, place = adapter.place(chunk, place)
        embeds.append(chunk.embeds)
        positions.append(placed)
        ids.append(torch.zeros(len(chunk), dtype=torch.long) if chunk.ids is None else chunk.ids)
    positions.append(adapter.positions.text(len(after), place)[0])
    whole = torch.cat(positions, -1)
    embeds.append(adapter.embed(after))
    ends = list(itertools.accumulate(map(len, embeds)))
    return torch.cat(embeds), whole.view(-1, whole.shape[-1]), torch.cat([*ids, torch.tensor(after)]), ends


@pytest.mark.parametrize("family", HYBRIDS)
def test_tokens_and_positions_are_the_models_own(family: str) -> None:
    """Nine frames, the last of them alone, in chunks of any size: what enters the layers of the unmodified model."""
    lm, frames, seconds = build(family), video(9, width=120), [0.5 * i for i in range(9)]
    own = entering(lm, inputs_of(lm, frames, seconds, QUESTION))
    exact = dict(atol=1e-5 if family.startswith("gemma4") else 1e-12, rtol=0)  # Gemma pools in float32
    for steps in (1, 2, 5, 9):
        embeds, positions, ids, _ = rows(lm, frames, seconds, steps)
        torch.testing.assert_close(embeds, own["inputs_embeds"][0], **exact)
        want = own["position_ids"]  # none where the decoder itself counts
        count = torch.arange(len(embeds))
        assert torch.equal(positions, (count if want is None else want.flatten(0, -2)[-3:]).expand_as(positions))
        wide = lm.adapter.beside(embeds, ids)
        assert (wide.shape == embeds.shape) == (family != "gemma4")
        _, added = Decoder(lm.model.get_decoder()).parted(wide[None])
        if added is not None:
            torch.testing.assert_close(added[:, :, 5], own["layer"][1], **exact)


@torch.no_grad()
def masks(lm: VideoLM, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """What eager attention is given in each kind of layer, as booleans [tokens, tokens]."""
    text, made = lm.model.get_decoder(), {}
    if lm.name == "gemma4_unified":  # by its rule for static caches, see `Gemma4.mutual`
        given = dict(inputs_embeds=torch.zeros(1, inputs["input_ids"].shape[1], 1), attention_mask=None)
        given |= dict(past_key_values=None, position_ids=None, mm_token_type_ids=inputs["mm_token_type_ids"])
        made = lm.model.create_masks_for_generate(lm.model.config, **given)
    else:
        for kind, layer in zip(text.config.layer_types, text.layers, strict=True):
            layer.register_forward_pre_hook(
                lambda _, __, given, kind=kind: made.update({kind: given["attention_mask"]}), with_kwargs=True
            )
        lm.model(**inputs, use_cache=False)
    return {kind: mask[0, 0] == 0 for kind, mask in made.items()}


SLIDING = ("gemma4", "gemma4_moe", "gemma4_unified", "exaone4_5", "muse_glimmer")


@pytest.mark.parametrize("family", [family for family in SLIDING if family in HYBRIDS])
def test_whose_tokens_see_each_other(family: str) -> None:
    """With frames that are longer than the window."""
    lm, window = build(family, attn="eager"), 4
    inputs = inputs_of(lm, video(4), [0.0, 1.0, 2.0, 3.0], QUESTION)
    lm.model.get_decoder().config.sliding_window = window
    ids = inputs["input_ids"][0]
    visual, at = ids == lm.model.config.video_token_id, torch.arange(len(ids))
    frame = (visual & ~visual.roll(1)).cumsum(0)
    same = (frame[:, None] == frame) & visual[:, None] & visual
    causal = at <= at[:, None]
    near = dict(sliding_attention=at > at[:, None] - window, full_attention=torch.ones_like(causal))
    kinds = dict(
        zip(lm.model.get_decoder().config.layer_types, LayerLoop(lm.model.get_decoder(), ONE).kinds, strict=True)
    )
    want = {kind: seen & (causal | same if kinds[kind].mutual else causal) for kind, seen in near.items()}
    got = masks(lm, inputs)
    assert got.keys() == want.keys()
    assert all(torch.equal(got[kind], want[kind]) for kind in want)
    assert kinds["sliding_attention"].mutual == (family in ("gemma4_moe", "gemma4_unified"))
    assert not kinds["full_attention"].mutual


def test_the_plain_rule_is_transformers() -> None:
    from transformers.models.qwen3_5.modeling_qwen3_5 import torch_chunk_gated_delta_rule

    torch.manual_seed(0)
    q, k, v = torch.randn(2, 70, 2, 8), torch.randn(2, 70, 2, 8), torch.randn(2, 70, 4, 6)
    more = dict(g=-torch.rand(2, 70, 4), beta=torch.rand(2, 70, 4), output_final_state=True)
    first = torch.randn(2, 4, 8, 6)
    each = (x.repeat_interleave(2, 2) for x in (q, k))  # as many as values, which older ones want
    want = torch_chunk_gated_delta_rule(*each, v, **more, initial_state=first, use_qk_l2norm_in_kernel=True)
    torch.testing.assert_close(plain_rule(q, k, v, **more, initial_state=first), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", HYBRIDS)
def test_towers_cost_what_pytorch_counts(family: str) -> None:
    lm = build(family, attn="eager", dtype=torch.float32)
    for frames, height, width in SIZES[:2]:
        want, got = counted(lm, frames, height, width)
        assert got == want, (frames, height, width)


@pytest.mark.parametrize("family", [family for family in ("minicpmv4_6", "exaone4_5") if family in HYBRIDS])
def test_a_tokenizer_may_name_the_token_of_a_video(family: str) -> None:
    _, words, _ = HYBRIDS[family]()
    other = tokenizer(["<other>", "<begin>", "<end>"], words.chat_template.replace("<|video_pad|>", "<other>"))
    with pytest.raises(pv.ModelError, match="does not know"):
        adapter_for(family).prompt(other)
    other.video_token, other.image_start_token, other.image_end_token = "<other>", "<begin>", "<end>"
    kind = adapter_for(family)
    assert len(kind.prompt(other).before()) == len(kind.prompt(words).before())
    if family == "minicpmv4_6":
        assert kind(SimpleNamespace(config=None), Pixels(), other).glue(3, 1.0) == ("<begin>", "<end>")


@pytest.mark.parametrize("name", TRUE_HYBRIDS)
def test_true_sizes(name: str, tmp_path: Path) -> None:
    size = TRUE_HYBRIDS[name]
    with torch.device("meta"):
        model = tf.AutoModelForImageTextToText.from_config(size.config)
    config, adapter = describe(size.write(tmp_path))
    assert config.to_dict() == tf.AutoConfig.from_pretrained(tmp_path).to_dict()
    frames = torch.zeros(adapter.frames_per_step, 720, 1280, 3, dtype=torch.uint8)
    assert adapter.preprocess(frames)[1] == (1, *size.tokens)
    assert int(60 * adapter.fps / adapter.frames_per_step) * size.tokens[0] * size.tokens[1] == size.minute
    keys = [module.k_proj.out_features for module in model.get_decoder().modules() if hasattr(module, "k_proj")]
    assert 4 * sum(keys) == size.kv_bytes
    assert all(model.get_decoder().config.layer_types[i] == "full_attention" for i in size.boundaries)
    assert round(sum(p.numel() for p in model.parameters()) / 1e9, 2) == size.billions


def test_every_family_is_tested() -> None:
    types = {built()[0].config.model_type for built in HYBRIDS.values()}
    assert types == {size.config.model_type for size in TRUE_HYBRIDS.values()}
    assert types <= ADAPTERS.keys()
