"""The models that are measured: Qwen2.5-VL-7B's shape with random weights, or a small one for a rehearsal.

Knows which shape a machine gets. Refuses to know what is measured.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

import pdrop_video as pv

from ..bench.randoms import SEVEN_B, SEVEN_B_TOWER, TINY, random_lm
from .machine import Machine

SMALL: dict[str, Any] = dict(
    vocab_size=2048,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=8,
    num_attention_heads=4,
    num_key_value_heads=2,
    rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    tie_word_embeddings=False,
)
PYRAMID = pv.Pyramid(ratios=(0.5, 0.25, 0.125))
WHOLE = pv.Pyramid(stages=1)
QUESTION = "what is shown first in the video?"


def large(machine: Machine) -> pv.VideoLM:
    """The model on the device, with its vision tower; made once, since parts that follow each other share a process."""
    return _made(str(machine.device), machine.dtype, machine.small)


@cache
def _made(device: str, dtype: torch.dtype, small: bool) -> pv.VideoLM:
    tower, text = (TINY, SMALL) if small else (SEVEN_B_TOWER, SEVEN_B)
    lm = random_lm(dtype, tower, text, device)
    lm.model.generation_config.eos_token_id = None  # an answer is as long as it may be
    return lm


def pictures(frames: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Random frames [frames, height, width, 3] on the host, as a decoder gives them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, height, width, 3), generator=generator, dtype=torch.uint8)
