"""FLOPs: the published figures, and the exact count against what PyTorch counts while a model runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from pdrop_video import Pyramid, pyramid_drop
from pdrop_video.costs.decoder import DecoderShape, decode_flops, paper_flops, prefill_flops
from pdrop_video.pyramid.scorers.relevance import Relevance

LLAVA_7B = dict(hidden=4096, mlp=11008)


@pytest.mark.parametrize(
    ("pyramid", "tokens", "tera"),
    [
        (Pyramid(stages=1), 576, 3.82),
        (Pyramid(), 576, 1.78),
        (Pyramid(layers=(10, 20), ratios=(0.5, 0.25)), 576, 2.13),
        (Pyramid(layers=(6, 12, 18, 24), ratios=(0.5, 0.25, 0.125, 0.0625)), 576, 1.39),
        (Pyramid(stages=1), 2880, 20.83),
        (Pyramid(), 2880, 9.46),
    ],
)
def test_published_figures(pyramid: Pyramid, tokens: int, tera: float) -> None:
    assert round(paper_flops(pyramid.resolve(32).per_layer(tokens), **LLAVA_7B) / 1e12, 2) == tera


def test_average_tokens() -> None:
    assert Pyramid().resolve(32).average(576) == 270


class Once(Relevance):
    """Ranks at the first boundary alone."""

    once = True


@pytest.mark.parametrize("scorer", ["relevance", "key_norm", "even", Once()], ids=str)
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_exact_count_equals_pytorch(kv_heads: int, scorer: Any) -> None:
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
    )
    model = LlamaForCausalLM(config).eval()
    model.set_attn_implementation("eager")
    shape, pyramid = DecoderShape.of(config), Pyramid(stages=3, scorer=scorer)
    visual = torch.zeros(1, 40, dtype=torch.bool)
    visual[:, 5:33] = True
    with torch.no_grad(), pyramid_drop(model, pyramid, visual=visual):
        with FlopCounterMode(display=False) as counter:
            out = model(inputs_embeds=torch.randn(1, 40, 64), use_cache=True, logits_to_keep=1)
        want = prefill_flops(shape, pyramid.resolve(6), visual=28, text=12, causal=False, scorer=scorer)
        assert counter.get_total_flops() - rotary_flops(counter) == want
        cached = tuple(out.past_key_values.get_seq_length(i) for i in range(6))
        assert cached == (40, 40, 26, 26, 19, 19)
        with FlopCounterMode(display=False) as counter:
            model(input_ids=torch.tensor([[7]]), past_key_values=out.past_key_values, use_cache=True)
        assert counter.get_total_flops() - rotary_flops(counter) == decode_flops(shape, cached)


def rotary_flops(counter: FlopCounterMode) -> int:
    """RoPE makes its angles by a small product, which is no layer's work; a module called alone goes by its class."""
    counts = counter.get_flop_counts()
    return sum(sum(ops.values()) for name, ops in counts.items() if name.endswith(("rotary_emb", "RotaryEmbedding")))
