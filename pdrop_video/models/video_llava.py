"""Video-LLaVA: the middle of every frame by itself, a token a patch and one for the whole frame in front of them."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from .llava_next_video import LlavaNextVideo
from .tower import Tower, picture_tower


class VideoLlava(LlavaNextVideo):
    """Adapter of ``VideoLlavaForConditionalGeneration`` (arXiv 2311.10122).

    With the token for the whole frame (CLIP's [CLS]) a step has one token more than a grid: it counts as one row of 257
    places. The family was trained on eight frames, spread over the video.
    """

    model_types: ClassVar[tuple[str, ...]] = ("video_llava",)

    @property
    def vision(self) -> Any:
        """The tower that sees videos; pictures have one of their own."""
        return self.model.model.video_tower

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Pictures [1, frames, 3, size, size], cut from the middle, and one row of tokens for each."""
        pictures, patch = self.pictures(frames), self.model.config.vision_config.patch_size
        height, width = pictures.shape[-2:]
        return pictures[None], (len(frames), 1, (height // patch) * (width // patch) + 1)

    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Visual tokens, [CLS] first in each frame."""
        layer = self.model.config.vision_feature_layer
        features = self.model.model.get_video_features(values, vision_feature_layer=layer, return_dict=True)
        return (self.flat(features.pooler_output),)

    def tower(self, height: int, width: int) -> Tower | None:
        """CLIP's blocks, and a projector of two matrices for every row."""
        config, rows = self.model.config, height * width
        vision, text, kinds = config.vision_config, config.get_text_config().hidden_size, config.vision_feature_layer
        features = vision.hidden_size * (1 if isinstance(kinds, int) else len(kinds))
        return picture_tower(vision, rows - 1, (rows, (features, text, text)), marks=1)

    def patches(self, rows: int, size: tuple[int, int]) -> tuple[int, int]:
        """Every row is a token."""
        return size

    def pooled(self, patches: Tensor, size: tuple[int, int]) -> Tensor:
        """As they are."""
        return patches
