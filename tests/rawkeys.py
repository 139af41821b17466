"""Un-rotated keys noted from outside, and models whose trained range is soon full."""

from __future__ import annotations

from typing import Any

import torch
from families import FAMILIES, build
from more_families import MORE, OTHERS
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import TokenTable
from pdrop_video.pyramid.heads import per_head, rotate

TRAINED = dict.fromkeys(FAMILIES | MORE | OTHERS, 160) | dict(qwen2_vl=32, qwen2_5_vl=48)
"""Few positions, but enough for what these streams hold: Qwen2-VL counts one a step, Qwen2.5-VL two a second."""


def small(family: str) -> pv.VideoLM:
    """A model that says it was trained on few positions."""
    lm = build(family)
    lm.model.config.get_text_config().max_position_embeddings = TRAINED[family]
    return lm


class Raw:
    """The keys of every token in every layer before RoPE, by the token's number in the stream."""

    def __init__(self, stream: pv.VideoStream) -> None:
        self.stream = stream
        self.keys: list[dict[int, Tensor]] = [{} for _ in range(stream.lm.num_layers)]
        self._last: list[Tensor] = [torch.empty(0)] * stream.lm.num_layers
        for i, layer in enumerate(stream.loop.text.layers):
            layer.self_attn.register_forward_pre_hook(self._noted(i), with_kwargs=True)

    def _noted(self, i: int):
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            self._last[i] = per_head(module, kwargs["hidden_states"], "k")[0]

        return hook

    def note(self) -> None:
        """After one step was pushed, all of whose tokens were kept."""
        for i, keys in enumerate(self.keys):
            index = sorted(self.stream._state.cache.tables[i].index.tolist())
            new = [n for n in index if n not in keys]
            for place, number in enumerate(new):
                keys[number] = self._last[i][:, place]

    def expected(self, i: int, table: TokenTable | None = None) -> Tensor:
        """What layer `i` must hold: each key rotated by the model's own function to where it stands now."""
        table = table or self.stream._state.cache.tables[i]
        raw = torch.stack([self.keys[i][n] for n in table.index.tolist()], dim=1)[None]
        now = table.now.T[:, None] if self.stream.loop.axes == 3 else table.now.T
        text = self.stream.loop.text
        return rotate(text.layers[i].self_attn, raw, text.rotary_emb(raw, now))[0]
