"""Gemma 4: every frame by itself behind its time in words, as large as seventy tokens allow."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from einops import rearrange
from tokenizers import AddedToken
from torch import Tensor

from .base import Adapter
from .pixels import normalise, resize
from .positions import LinearPositions, Positions
from .prompt import Prompt
from .tower import Tower


class Gemma4(Adapter):
    """Adapter of ``Gemma4ForConditionalGeneration``.

    Each frame is ``00:05 <|image>...<image|>``, a space behind the one before. Frames are resized to a whole number of
    tokens, as many as `Pixels.tokens` allow, in the frame's shape; transformers fills them up to that number with empty
    patches, which attend to nothing and are left out here.

    Layers of smaller checkpoints read something from a token's id, too: `beside`. Larger ones let the tokens of one
    frame see each other, those behind them as well, in the layers with a window: `LayerKind.mutual`.
    """

    model_types: ClassVar[tuple[str, ...]] = ("gemma4",)
    video_token: ClassVar[str] = "<|video|>"
    fps: ClassVar[float] = 1.0

    @property
    def positions(self) -> Positions:
        """One number a token."""
        return LinearPositions()

    @property
    def side(self) -> int:
        """Pixels along each side of a visual token."""
        vision = self.model.config.vision_config
        return int(vision.patch_size * vision.pooling_kernel_size)

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Patches [t, 3h * 3w, patch * patch * 3] at levels 0 to 1, row by row, and the grid of pooled tokens."""
        patch = self.model.config.vision_config.patch_size
        pictures, grid = self.shaped(frames)
        return rearrange(pictures, "t c (h down) (w across) -> t (h w) (down across c)", down=patch, across=patch), grid

    def shaped(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Pictures [t, 3, height, width] of whole tokens, and their grid."""
        h, w = self.fit(frames.shape[1], frames.shape[2])
        pictures = resize(frames, h * self.side, w * self.side, self.pixels.mode)
        return normalise(pictures, self.pixels), (len(frames), h, w)

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of visual tokens: at most `Pixels.tokens` of them, in the shape of the frame."""
        most = self.pixels.tokens or 70
        scale = math.sqrt(most * self.side**2 / (height * width))
        h, w = math.floor(scale * height / self.side), math.floor(scale * width / self.side)
        if h == 0:  # a ribbon, or a pole
            return 1, min(width // height, most)
        return (h, w) if w else (min(height // width, most), 1)

    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Visual tokens after pooling. Frames are pictures to the tower, and so they go in."""
        _, h, w = grid
        pool = math.isqrt(values.shape[1] // (h * w))  # of patches along the side of a token; 1 where they came merged
        down, across = (torch.arange(side * pool, device=values.device) for side in (h, w))
        places = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1).view(1, -1, 2)
        seen = self.model.get_image_features(values, places.expand(len(values), -1, -1), return_dict=True)
        return (self.flat(seen.pooler_output),)

    def tower(self, height: int, width: int) -> Tower | None:
        """Patches that attend to their whole frame, are pooled by a product with means, and projected."""
        config = self.model.config
        vision, text = config.vision_config, config.get_text_config().hidden_size
        tokens, patches = height * width, height * width * vision.pooling_kernel_size**2
        return Tower(
            patches,
            3 * vision.patch_size**2,
            vision.hidden_size,
            vision.intermediate_size,
            ((patches,),) * vision.num_hidden_layers,
            ((tokens, (patches, vision.hidden_size)), (tokens, (vision.hidden_size, text))),
            gated=True,
            queries=vision.num_attention_heads * vision.head_dim,
            keys=vision.num_key_value_heads * vision.head_dim,
        )

    def glue(self, number: int, seconds: float) -> tuple[str, str]:
        """Minutes and seconds, rounded down, and a picture's two marks."""
        stamp = f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"
        begins = self.named(self.tokenizer, "boi_token", "<|image>")
        return f"{' ' if number else ''}{stamp} {begins}", self.named(self.tokenizer, "eoi_token", "<image|>")

    @classmethod
    def prompt(cls, tokenizer: Any, template: str | None = None, *, split_special_tokens: bool = True) -> Prompt:
        """As everywhere; but the token that stands for a visual one is special only once a processor has said so."""
        known = tokenizer.get_vocab().get(cls.video_token)
        if known is None or tokenizer(cls.video_token, add_special_tokens=False)["input_ids"] != [known]:
            tokenizer.add_tokens([AddedToken(cls.video_token, normalized=False, special=True)], special_tokens=True)
        return super().prompt(tokenizer, template, split_special_tokens=split_special_tokens)

    @property
    def stands_for(self) -> int | None:
        """Padding, where layers read ids."""
        text = self.model.config.get_text_config()
        return int(text.pad_token_id) if getattr(text, "hidden_size_per_layer_input", 0) else None

    def beside(self, embeds: Tensor, ids: Tensor) -> Tensor:
        """Embeddings, and for each layer what it reads of the id."""
        if self.stands_for is None:
            return embeds
        read: Tensor = self.model.get_decoder().get_per_layer_inputs(ids[None], None)[0]
        return torch.cat([embeds, read.flatten(1).to(embeds)], dim=1)


class Gemma4Unified(Gemma4):
    """Adapter of ``Gemma4UnifiedForConditionalGeneration``, which has no vision tower: pixels are projected.

    The tokens of a frame see each other as in Gemma 4. So the checkpoints were trained, and so transformers 5.23 has it
    with a static cache; without one its `forward` lets them do so in all layers, past the window.
    """

    model_types: ClassVar[tuple[str, ...]] = ("gemma4_unified",)

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """The pixels of each token [t, h * w, side * side * 3] at levels 0 to 1, and the grid."""
        pictures, grid = self.shaped(frames)
        side = self.side
        return rearrange(pictures, "t c (h down) (w across) -> t (h w) (down across c)", down=side, across=side), grid

    def tower(self, height: int, width: int) -> Tower | None:
        """Two matrices a token."""
        config = self.model.config
        vision, text = config.vision_config, config.get_text_config().hidden_size
        projection = (height * width, (vision.output_proj_dims, text))
        return Tower(height * width, 3 * self.side**2, vision.mm_embed_dim, 0, (), (projection,))
