"""Random models of real shapes, for streams whose answers mean nothing.

Knows configurations. Refuses to know what is measured, and draws nothing, so that it needs no more than the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from pdrop_video import VideoLM, load
from pdrop_video.models import Pixels, adapter_for
from pdrop_video.models.number_type import chosen, default_device

TINY: dict[str, Any] = dict(depth=1, hidden_size=32, intermediate_size=32, num_heads=2)
"""A vision tower that is not meant to be used."""
HALF_B: dict[str, Any] = dict(
    vocab_size=151_936,
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
    tie_word_embeddings=True,
)
"""The language model of Qwen2.5-0.5B."""
SEVEN_B: dict[str, Any] = dict(
    vocab_size=152_064,
    hidden_size=3584,
    intermediate_size=18_944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    tie_word_embeddings=False,
)
"""That of Qwen2.5-VL-7B."""
SEVEN_B_TOWER: dict[str, Any] = dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16)
"""Its vision tower."""


_ASKED: list[torch.dtype] = []


def measure_in(dtype: str) -> None:
    """Measure in a number type from here on; "auto" is what `load` takes."""
    _ASKED[:] = [] if dtype == "auto" else [getattr(torch, dtype)]


def usual_type() -> torch.dtype:
    """What `load` takes on this machine for checkpoints in bfloat16, and with it what is measured; it is printed."""
    if _ASKED:
        return _ASKED[0]
    if default_device() == "cpu" and chosen(torch.bfloat16, lambda: 0).name == "float32":
        return torch.float32
    return torch.bfloat16


def random_model(
    dtype: torch.dtype | None = None,
    kv_heads: int | None = None,
    tower: Mapping[str, Any] = TINY,
    text: Mapping[str, Any] = HALF_B,
    device: str | torch.device = "cpu",
) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL with random weights, made on the device itself.

    Parameters
    ----------
    dtype : torch.dtype, optional
        By default `usual_type`.
    kv_heads : int, optional
        Heads of keys and values, in place of those of `text`: as many as there are of queries make a model without
        grouped ones.
    tower : mapping
        Sizes of its vision tower, by the config's names; a tiny one by default.
    text : mapping
        Sizes of its decoder, and whether its embeddings are tied; by default about 0.5 B weights.
    device : str or torch.device
    """
    sizes = {name: deepcopy(value) for name, value in text.items() if name != "tie_word_embeddings"}
    if kv_heads is not None:
        sizes["num_key_value_heads"] = kv_heads
    config = Qwen2_5_VLConfig(
        text_config={**sizes, "bos_token_id": None, "eos_token_id": None},
        vision_config={**tower, "out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=text["tie_word_embeddings"],
    )
    torch.manual_seed(0)
    with torch.device("meta"):
        empty: Any = Qwen2_5_VLForConditionalGeneration(config)
    dtype = dtype or usual_type()
    model = empty.to(dtype).to_empty(device=device)
    model.tie_weights()
    with torch.device(device):  # with its buffers
        model.model.visual = type(model.model.visual)._from_config(config.vision_config).to(device, dtype)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02) if parameter.ndim > 1 else torch.nn.init.ones_(parameter)
    decoder = model.get_decoder()
    decoder.rotary_emb = type(decoder.rotary_emb)(config=config.text_config).to(device)  # it was on the meta device
    return model.eval()


def random_lm(
    dtype: torch.dtype | None = None,
    tower: Mapping[str, Any] = TINY,
    text: Mapping[str, Any] = HALF_B,
    device: str | torch.device = "cpu",
    **kwargs: Any,
) -> VideoLM:
    """The random model with the built-in model's words; `kwargs` as `VideoLM` takes them."""
    words, family = load(device="cpu").tokenizer, adapter_for("qwen2_5_vl")
    model = random_model(dtype, tower=tower, text=text, device=device)
    pixels = Pixels(size={"shortest_edge": 1, "longest_edge": 1 << 40})  # frames are taken in the size they come in
    return VideoLM(model, family(model, pixels, words), family.prompt(words), "random", **kwargs)
