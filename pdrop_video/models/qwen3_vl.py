"""Qwen3-VL: a timestamp in words before every pair of frames, and features of deeper vision layers (deepstack)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from torch import Tensor
from transformers.vision_utils import get_vision_interpolation_indices_and_weights

from .pixels import Pixels
from .positions import MRopePositions, Positions
from .qwen2_vl import Qwen2VL
from .received import Grid
from .tower import Tower


class Qwen3VL(Qwen2VL):
    """Adapter of ``Qwen3VLForConditionalGeneration`` (arXiv 2511.21631), of its MoE, and of Cosmos 3's reasoner.

    ``Qwen3VLMoeForConditionalGeneration`` differs in the MLPs of its decoder alone. What transformers loads of a Cosmos
    3 checkpoint, ``Cosmos3OmniForConditionalGeneration``, neither draws nor hears, and differs in nothing but its name.

    Every step is written ``<1.5 seconds><|vision_start|>...<|vision_end|>``, which takes the place of all that the
    chat template writes for a video, vision tokens included: so did the processor with which the checkpoints were
    published, up to transformers 5.9. Since 5.10 it replaces the inner token only, and one more pair of vision tokens
    stands around the whole; the library writes what the checkpoints were trained on.

    A checkpoint's limits of pixels are for a whole video, whose length a stream does not know: a frame gets at most
    768 tokens' worth, as in Qwen's reference pipeline (``cap_pixels_per_frame=True`` in transformers), which is the
    same for up to 32 frames.
    """

    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl", "qwen3_vl_moe", "cosmos3_omni")
    placeholder: ClassVar[str] = "<|vision_start|><|video_pad|><|vision_end|>"

    @property
    def positions(self) -> Positions:
        """M-RoPE with every step a video of its own between text; here all versions of transformers agree."""
        return MRopePositions(1.0)

    def size(self, height: int, width: int, factor: int) -> tuple[int, int]:
        """As Qwen2-VL's, but a frame with a side below `factor` is enlarged first until that side is as long."""
        if min(height, width) < factor:
            scale = max(factor / height, factor / width)
            height, width = int(height * scale), int(width * scale)
        return super().size(height, width, factor)

    def placed(self, grid: Grid, groups: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Besides, of which of the tower's learned positions each patch has how much."""
        tower = self.vision
        learned, shares = get_vision_interpolation_indices_and_weights(
            self.thw(grid, rows.device),
            num_grid_per_side=tower.num_grid_per_side,
            mode=tower.interpolation_mode,
            align_corners=tower.interpolation_align_corners,
            spatial_merge_size=self.merge,
        )
        told = {"interp_indices": learned[rows], "interp_weights": shares[rows]}
        return Qwen2VL.placed(self, grid, groups, rows) | told  # not super: Qwen3-Omni borrows this

    def tower(self, height: int, width: int) -> Tower | None:
        """As Qwen2-VL's, with one more merger for each block whose features go to the decoder by themselves."""
        vision = self.model.config.vision_config
        tower = self.merging(height, width, vision.hidden_size, vision.intermediate_size, vision.out_hidden_size)
        deep = sum(i in vision.deepstack_visual_indexes for i in range(vision.depth))
        return replace(tower, after=tower.after * (1 + deep))

    def glue(self, number: int, seconds: float) -> tuple[str, str]:
        """The timestamp in tenths of a second, and vision tokens around every step."""
        return f"<{seconds:.1f} seconds><|vision_start|>", "<|vision_end|>"

    def times(self, seconds: tuple[float, ...]) -> tuple[float, ...]:
        """The mean of a pair's two times."""
        return tuple((a + b) / 2 for a, b in zip(seconds[::2], [*seconds[1::2], seconds[-1]], strict=False))

    @classmethod
    def per_frame(cls, pixels: Pixels) -> Pixels:
        """Limits of a whole video made limits of a frame."""
        lowest, highest = pixels.limits
        return pixels.within(max(lowest // 4, 1), min(highest, 768 * 32 * 32))  # of at least four frames
