"""Molmo 2: every frame by itself, squared, its patches pooled by attention, with its time in words before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..errors import ModelError
from .base import Adapter
from .pixels import normalise
from .positions import LinearPositions, Positions
from .prompt import Prompt
from .tower import Tower, picture_tower


class Molmo2(Adapter):
    """Adapter of ``Molmo2ForConditionalGeneration`` (Molmo 2, Ai2 2026).

    Frames are ``1.5 <frame_start>...<frame_end>``, with a space between two. Features are added to the embedding of the
    token that stands for them.

    The model lets all visual tokens of a prompt see each other, and the marks around frames with them, where its
    processor's `mm_token_type_ids` come along. A stream has not seen later frames: there the tokens of one frame see
    each other and all that came before, as in the model itself for a prompt of one frame. In `pyramid_drop` it is as in
    the model: all of a prompt's where there are `mm_token_type_ids`, none that come later where there are not.
    """

    model_types: ClassVar[tuple[str, ...]] = ("molmo2",)
    video_token: ClassVar[str] = "<im_patch>"
    placeholder: ClassVar[str] = "<|video|>"

    def __init__(self, model: Any, pixels: Any, tokenizer: Any = None) -> None:
        super().__init__(model, pixels, tokenizer)
        if pixels.said.get("video_use_col_tokens"):
            raise ModelError(
                "the checkpoint's processor writes a token behind every row of a frame (video_use_col_tokens), which "
                "is not supported; expected frames without, as the released Molmo 2 have them."
            )

    @classmethod
    def prompt(cls, tokenizer: Any, template: str | None = None, *, split_special_tokens: bool = True) -> Prompt:
        """The processor writes a first token in front of whatever the template writes."""
        template = template or tokenizer.chat_template
        first = tokenizer.bos_token or tokenizer.eos_token
        said = tokenizer.apply_chat_template([{"role": "user", "content": ""}], chat_template=template, tokenize=False)
        if first and not said.startswith(first):
            template = f"{{{{ {first!r} }}}}{template}"
        return super().prompt(tokenizer, template, split_special_tokens=split_special_tokens)

    @property
    def positions(self) -> Positions:
        """One number a token."""
        return LinearPositions()

    @property
    def stands_for(self) -> int:
        """A visual token's placeholder."""
        return int(self.model.config.image_patch_id)

    def bound(self, ids: Tensor) -> Tensor:
        """Visual tokens, and the marks around a frame."""
        names = (f"{kind}_{edge}_token_id" for kind in ("frame", "image") for edge in ("start", "end"))
        marks = [getattr(self.model.config, name) for name in names]
        return torch.isin(ids, torch.tensor([self.stands_for, *marks], device=ids.device))

    @property
    def pool(self) -> tuple[int, int]:
        """Patches of a token, down and across."""
        down, across = self.pixels.said.get("pooling_size") or (3, 3)
        return down, across

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Patches [frames, patches, patch * patch * 3], colours innermost, and the grid after pooling.

        Resized without antialiasing, as the processor does it.
        """
        vision, size = self.model.config.vision_config, self.pixels.size or {}
        height, width = size.get("height", vision.image_size[0]), size.get("width", vision.image_size[1])
        pictures = rearrange(frames, "frames h w c -> frames c h w").float()
        shaped = F.interpolate(pictures, (height, width), mode=self.pixels.mode, align_corners=False)
        shaped = normalise(shaped.round_().clamp_(0, 255), self.pixels)
        patch = vision.patch_size
        values = rearrange(shaped, "f c (h ph) (w pw) -> f (h w) (ph pw c)", ph=patch, pw=patch)
        down, across = self.pool
        return values, (len(frames), -(-height // patch // down), -(-width // patch // across))

    def pooling(self, grid: tuple[int, int, int], patches: int) -> Tensor:
        """Which patches become each token [t * h * w, down * across]; -1 beyond the border.

        Of `patches` in every frame, which are a square; what is missing to whole tokens is missing on both sides.
        """
        (t, h, w), (down, across), side = grid, self.pool, round(patches**0.5)
        above, left = (h * down - side) // 2, (w * across - side) // 2
        frame = torch.arange(patches).view(side, side)
        frame = F.pad(frame, (left, w * across - side - left, above, h * down - side - above), value=-1)
        frame = rearrange(frame, "(h down) (w across) -> (h w) (down across)", down=down, across=across)
        all_frames = frame + torch.arange(t)[:, None, None] * patches
        return rearrange(torch.where(frame < 0, -1, all_frames), "t tokens patches -> (t tokens) patches")

    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Pooled visual tokens, added to the embedding of their placeholder."""
        pooling = self.pooling(grid, values.shape[1]).to(values.device)
        grids = torch.tensor([grid], device=values.device)
        features = self.flat(self.model.get_video_features(values, pooling, grids, return_dict=True).pooler_output)
        return (features + self.embed([self.model.config.image_patch_id]).to(features),)

    def tower(self, height: int, width: int) -> Tower | None:
        """SigLIP's blocks; then a row for each token that attends to its patches, and a gated MLP."""
        vision, pooler = self.model.config.vision_config, self.model.config.adapter_config
        tokens, area = height * width, self.pool[0] * self.pool[1]
        wide, narrow = (n * pooler.head_dim for n in (pooler.num_attention_heads, pooler.num_key_value_heads))
        features = pooler.hidden_size * len(pooler.vision_feature_layer)
        side = vision.image_size[0] // vision.patch_size
        after = (
            (tokens * area, (features, 2 * narrow)),
            (tokens, (features, wide, area, wide, pooler.hidden_size, 2 * pooler.intermediate_size)),
            (tokens, (pooler.intermediate_size, pooler.text_hidden_size)),
        )
        return replace(picture_tower(vision, side**2), after=after)

    def glue(self, number: int, seconds: float) -> tuple[str, str]:
        """The time in tenths of a second, and tokens around every frame."""
        kind = "frame" if self.pixels.said.get("use_frame_special_tokens", True) else "im"
        return f"{' ' if number else ''}{seconds:.1f} <{kind}_start>", f"<{kind}_end>"
