"""SmolVLM2: every frame by itself, squared, with its time in words."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from transformers.models.smolvlm.processing_smolvlm import (
    DEFAULT_CHAT_TEMPLATE,
    DEFAULT_MEDIA_OUTTRO,
    FRAME_TIMESTAMP_MESSAGE,
)

from .base import Adapter
from .pixels import normalise, resize
from .positions import LinearPositions, Positions
from .received import BOTH
from .tower import Tower, picture_tower


class SmolVLM(Adapter):
    """Adapter of ``SmolVLMForConditionalGeneration`` (arXiv 2504.05299).

    Each frame is ``Frame from 00:05:`` and its tokens. In front of the first one the processor writes how many frames
    and how long a video follow, which a stream can't know: there the library writes the same sentence without them.
    Everything else is the processor's own text; its chat template takes the place of the checkpoint's, as there.
    """

    model_types: ClassVar[tuple[str, ...]] = ("smolvlm",)
    video_token: ClassVar[str] = "<image>"
    placeholder: ClassVar[str] = "<video>"
    opening: ClassVar[str] = "You are provided the following series of frames from a video.\n"
    ending: ClassVar[str] = DEFAULT_MEDIA_OUTTRO
    template: ClassVar[str | None] = DEFAULT_CHAT_TEMPLATE
    fps: ClassVar[float] = 1.0
    knows: ClassVar[tuple[str, ...]] = BOTH

    @property
    def positions(self) -> Positions:
        """One number a token."""
        return LinearPositions()

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Pictures [1, frames, 3, side, side], never split, and the grid after the pixel shuffle.

        Resized twice, as the processor does it: in proportion, then to a square.
        """
        config = self.model.config
        side = self.pixels.square or config.vision_config.image_size
        longest = min((self.pixels.size or {}).get("longest_edge", side), 4096)
        height, width = frames.shape[1:3]
        if width >= height:  # the longer side to `longest`, the shorter one in proportion, made even
            height, width = int(longest / (width / height)), longest
            height = max(height + height % 2, 1)
        else:
            height, width = longest, int(longest * (width / height))
            width = max(width + width % 2, 1)
        shaped = resize(frames, height, width, self.pixels.mode)
        squared = resize(shaped.byte().movedim(1, -1), side, side, self.pixels.mode)
        tokens = side // config.vision_config.patch_size // config.scale_factor
        return normalise(squared, self.pixels)[None], (len(frames), tokens, tokens)

    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Visual tokens after the pixel shuffle."""
        return (self.flat(self.model.get_image_features(values, return_dict=True).pooler_output),)

    def tower(self, height: int, width: int) -> Tower | None:
        """Patches that the pixel shuffle lays together for a projector of one matrix."""
        config = self.model.config
        vision, area, tokens = config.vision_config, config.scale_factor**2, height * width
        projector = (tokens, (vision.hidden_size * area, config.get_text_config().hidden_size))
        return picture_tower(vision, tokens * area, projector)

    def glue(self, number: int, seconds: float) -> tuple[str, str]:
        """Minutes and seconds, rounded down, and the tokens that mark a whole picture."""
        stamp = FRAME_TIMESTAMP_MESSAGE.format(timestamp=f"{int(seconds // 60):02d}:{int(seconds % 60):02d}")
        return f"{stamp}<fake_token_around_image><global-img>", "<fake_token_around_image>"
