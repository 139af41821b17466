"""VideoRouter's two routers: which policy a question calls for, and which frames it is about."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..common.shadow import shadow
from ..errors import ModelError
from .base import Part
from .files import exact

GLOBAL, FRAGMENT = 0, 1
_MOST = 16384
"""Rows that run through the shadow at once."""


class VideoRouterPart(Part):
    """Two heads on the first layers of the language model, VideoRouter, arXiv 2605.05848.

    The semantic router sees the question alone: p_s = MLP(mean of E(question)), 0 for Global and 1 for Fragment. The
    image router sees each frame's tokens with the question behind them: p_t = head(the last row of E([Z_t; question])).

    Ours: E are the model's own first layers as they are, frozen, where the paper trains a copy, so that a file holds
    two heads alone; heads of one layer between; the row that a frame is read from; and a norm without weights in front.

    Parameters
    ----------
    hidden : int
    layers : int
        Of E, the paper's 4 or half of a smaller model's.
    width : int
        Of the heads.
    """

    name: ClassVar[str] = "videorouter"
    says: ClassVar[str] = "whether a question is about the whole or about some frames, and which frames those are"
    paper: ClassVar[str] = "VideoRouter, arXiv 2605.05848"

    def __init__(self, hidden: int, layers: int, width: int = 64) -> None:
        super().__init__(hidden=hidden, layers=layers, width=width)
        self.semantic, self.image = (_head(hidden, width, out) for out in (2, 1))
        self._stack: list[Any] = []  # in a list, so that the model's weights are none of the part's

    @classmethod
    def of(cls, model: Any, **shape: Any) -> VideoRouterPart:
        """With the paper's 4 layers, or half of a smaller model's."""
        text = model.config.get_text_config()
        return cls(**{"hidden": text.hidden_size, "layers": min(4, max(text.num_hidden_layers // 2, 1)), **shape})

    def attach(self, model: Any) -> None:
        """Let E be the first layers of this model.

        Raises
        ------
        ModelError
            If layers get more of a token than its embedding (Gemma's per-layer embeddings), which are not at hand here.
        """
        text = model.get_decoder()
        text = text if hasattr(text, "layers") else getattr(text, "model", text)
        if getattr(text.config, "hidden_size_per_layer_input", None):
            raise ModelError(
                f"the layers of {model.config.model_type!r} get more of a token than its embedding, so that the part "
                "videorouter can't run them by themselves; use relevance_pooling without it."
            )
        stack: Any = shadow(text)
        stack._modules["layers"] = nn.ModuleList(list(stack.layers)[: self.shape["layers"]])
        name = next(name for name in ("norm", "embedding_norm", "norm_f") if name in stack._modules)
        stack._modules[name] = nn.Identity()
        self._stack = [stack]

    @torch.no_grad()
    def entered(self, frames: Tensor, words: Tensor) -> Tensor:
        """What E makes of the last row of each frame with the question behind it [frames, hidden].

        Parameters
        ----------
        frames : Tensor [frames, tokens, hidden]
            No tokens for the question alone, of which it is the mean over all rows.
        words : Tensor [words, hidden]
        """
        rows = torch.cat([frames, words.to(frames).expand(len(frames), -1, -1)], dim=1)
        at_once = max(_MOST // rows.shape[1], 1)
        found = []
        for some in rows.split(at_once):
            left = self._stack[0](inputs_embeds=some, use_cache=False).last_hidden_state
            found.append(left[:, -1] if frames.shape[1] else left.mean(1))
        return torch.cat(found)

    def frame_logits(self, entered: Tensor) -> Tensor:
        """Of relevance [frames], from what `entered` gives."""
        logits: Tensor = self.image(entered.float())[:, 0]
        return logits

    def policy_logits(self, entered: Tensor) -> Tensor:
        """Of Global and Fragment [2], from what `entered` gives of the question alone."""
        logits: Tensor = self.semantic(entered.float())[0]
        return logits

    @torch.no_grad()
    def relevance(self, features: Tensor, step: Tensor, steps: int, words: Tensor) -> Tensor:
        """p_t of each step [steps]; 0 of one without tokens. Steps of as many tokens run together.

        Parameters
        ----------
        features : Tensor [tokens, hidden]
        step : Tensor [tokens], int64
            Ascending.
        steps : int
        words : Tensor [words, hidden]
        """
        part = self.beside(features)
        counts = torch.bincount(step, minlength=steps).tolist()  # on the host: sizes
        pieces = features.split(counts)
        found = features.new_zeros(steps, dtype=torch.float32)
        for size in sorted({count for count in counts if count}):
            which = [number for number, count in enumerate(counts) if count == size]
            logits = part.frame_logits(part.entered(torch.stack([pieces[number] for number in which]), words))
            found[which] = logits.sigmoid()
        return exact(found)

    @torch.no_grad()
    def fragment(self, words: Tensor) -> bool:
        """Whether the semantic router says Fragment."""
        part = self.beside(words)
        logits = part.policy_logits(part.entered(words.new_zeros(1, 0, words.shape[1]), words))
        return bool(logits[FRAGMENT] > logits[GLOBAL])


def _head(hidden: int, width: int, out: int) -> nn.Sequential:
    norm = nn.LayerNorm(hidden, elementwise_affine=False)
    return nn.Sequential(norm, nn.Linear(hidden, width), nn.GELU(), nn.Linear(width, out))
