"""LLaVA-NeXT-Video: the middle of every frame by itself, pooled two by two, nothing between frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import get_ident
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..errors import ModelError
from .base import Adapter
from .chunk import VisualChunk
from .pixels import centre, normalise, resize
from .positions import LinearPositions, Positions
from .received import BOTH, attending
from .tower import Tower, llava_tower

_APART = ("attended", "class_attention")
"""What CLIP's tower alone is asked for: see `LlavaNextVideo.look`."""


class LlavaNextVideo(Adapter):
    """Adapter of ``LlavaNextVideoForConditionalGeneration`` (LLaVA-NeXT, Zhang et al. 2024)."""

    model_types: ClassVar[tuple[str, ...]] = ("llava_next_video",)
    video_token: ClassVar[str] = "<video>"
    fps: ClassVar[float] = 1.0
    knows: ClassVar[tuple[str, ...]] = (*BOTH, *_APART)
    late: ClassVar[int] = -2

    @property
    def positions(self) -> Positions:
        """One number a token."""
        return LinearPositions()

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Pictures [1, frames, 3, size, size], cut from the middle, and the grid after pooling."""
        pictures, config = self.pictures(frames), self.model.config
        h, w = (edge // config.vision_config.patch_size // config.spatial_pool_stride for edge in pictures.shape[-2:])
        return pictures[None], (len(frames), h, w)

    def pictures(self, frames: Tensor) -> Tensor:
        """The middle of every frame [frames, 3, size, size]."""
        side = self.model.config.vision_config.image_size
        short = (self.pixels.size or {}).get("shortest_edge", side)
        height, width = frames.shape[1:3]
        if height <= width:  # the shorter side to `short`, the longer one in proportion, rounded down
            height, width = short, short * width // height
        else:
            height, width = short * height // width, short
        crop = self.pixels.crop or (side, side)
        return normalise(centre(resize(frames, height, width, self.pixels.mode), *crop), self.pixels)

    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Pooled visual tokens."""
        return (self.flat(self.model.get_video_features(values, return_dict=True).pooler_output),)

    def tower(self, height: int, width: int) -> Tower | None:
        """Pooled in front of the projector, by a convolution in some checkpoints."""
        config, tokens = self.model.config, height * width
        if config.spatial_pool_mode != "conv":
            return llava_tower(config, rows=tokens)
        hidden = config.vision_config.hidden_size
        out = getattr(config, "spatial_pool_out_channels", hidden)
        return llava_tower(config, (tokens, (hidden * config.spatial_pool_stride**2, out)), rows=tokens)

    def patches(self, rows: int, size: tuple[int, int]) -> tuple[int, int]:
        """Those of a square."""
        vision = self.model.config.vision_config
        return (vision.image_size // vision.patch_size,) * 2

    def pooled(self, patches: Tensor, size: tuple[int, int]) -> Tensor:
        """Means of what lies under a token, whichever way features are pooled; what is left at a border counts not."""
        return F.avg_pool2d(patches, self.model.config.spatial_pool_stride)

    # -- for DeSAP -----------------------------------------------------------------------------------------------------

    def told(self, knowing: Iterable[str], layers: int) -> dict[str, int]:
        """Which layer of so many tells what, of what every family may know."""
        return super().told([name for name in knowing if name not in _APART], layers)

    def look(
        self,
        frames: Tensor,
        seconds: tuple[float, ...],
        first: int = 0,
        worth: Tensor | None = None,
        knowing: tuple[str, ...] = (),
    ) -> VisualChunk:
        """As every family; and from the last layer whose output is used, what `knowing` names of these.

        "attended" [tokens, numbers of the tower]: the attention's output, before it is added to what came in;
        "class_attention" [tokens]: what [CLS] gives, a mean over heads. Both are means over a token's patches.

        Raises
        ------
        ModelError
            If the tower is not CLIP's, and has no [CLS].
        """
        asked = [name for name in _APART if name in knowing]
        if not asked:
            return super().look(frames, seconds, first, worth, knowing)
        with self._apart() as notes:
            chunk = super().look(frames, seconds, first, worth, knowing)
        at = chunk.step() * chunk.places + chunk.place()
        known = {name: self._tokens_of(notes[name])[at].squeeze(-1) for name in asked}
        return replace(chunk, tower={**chunk.tower, **known})

    @contextmanager
    def _apart(self) -> Iterator[dict[str, Tensor]]:
        """While the tower runs in this thread: what its last used attention gives [frames, 1 + patches, numbers]."""
        if (kind := self.model.config.vision_config.model_type) != "clip_vision_model":
            raise ModelError(f"the vision tower is a {kind!r}, which has no [CLS]; choose a reducer that needs none.")
        layers, me = attending(self.vision), get_ident()
        attention: Any = layers[self.looking(len(layers))[-1]]
        made: dict[str, Tensor] = {}

        def note(name: str) -> Any:
            def noted(module: Any, given: Any, out: Any) -> None:
                if get_ident() == me:
                    made[name] = out[0] if isinstance(out, tuple) else out

            return noted

        named = (("attended", attention), ("query", attention.q_proj), ("key", attention.k_proj))
        hooks = [module.register_forward_hook(note(name)) for name, module in named]
        try:
            yield made
        finally:
            for hook in hooks:
                hook.remove()
        heads = (attention.num_heads, -1)
        query, key = (made.pop(name).float().unflatten(-1, heads).transpose(1, 2) for name in ("query", "key"))
        weights = (query[:, :, :1] @ key.mT * attention.scale).softmax(-1)  # [frames, heads, 1, rows]
        made["class_attention"] = weights.mean(1).mT

    def _tokens_of(self, made: Tensor) -> Tensor:
        """Means [frames * tokens, numbers] over each token's patches, float32; [CLS] stands in front of them."""
        side = self.patches(0, (0, 0))
        return self.pooled(made[:, 1:].float().mT.unflatten(-1, side), (0, 0)).flatten(2).mT.flatten(0, 1)
