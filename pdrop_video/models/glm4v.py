"""GLM-4.1V, 4.5V and 4.6V: frames merged in pairs, each pair a picture of its own with its time in words behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from .pixels import Pixels
from .qwen3_vl import Qwen3VL
from .tower import Tower


class Glm4v(Qwen3VL):
    """Adapter of ``Glm4vForConditionalGeneration`` (arXiv 2507.01006) and ``Glm4vMoeForConditionalGeneration``.

    A step is ``<|begin_of_image|>...<|end_of_image|>12``: its visual tokens are a picture's, and the time of the first
    of its two frames stands behind them, in whole seconds or, as of GLM-4.6V, ``12.5 seconds``. Which of the two the
    checkpoint's processor says, not its architecture: GLM-4.6V's are those of 4.1V and 4.5V. Positions run as
    Qwen3-VL's: every step is a video of its own between text.

    A checkpoint's limits of pixels are for a whole video, whose length a stream does not know: a frame gets at most
    768 tokens' worth, as in Qwen's reference pipeline, and at least the share of one frame among four. With the
    published limits (30,000 tokens' worth of pairs) that is the same for up to 78 frames that large, and a processor
    that knows of more makes each smaller.
    """

    model_types: ClassVar[tuple[str, ...]] = ("glm4v", "glm4v_moe")
    video_token: ClassVar[str] = "<|image|>"
    placeholder: ClassVar[str] = "<|video|>"
    parts: ClassVar[bool] = False
    writer: ClassVar[str] = "Glm4vProcessor"
    """Class of the processor where the checkpoint names neither of the two."""

    def tower(self, height: int, width: int) -> Tower | None:
        """Gated MLPs; then patches merged by a convolution, and a gated MLP behind another matrix."""
        vision, tokens = self.model.config.vision_config, height * width
        out, inner = vision.out_hidden_size, vision.intermediate_size
        # the blocks' MLPs are as wide as what leaves the tower, `intermediate_size` is the merger's
        whole = self.merging(height, width, vision.hidden_size, out, out)
        patches = vision.hidden_size * vision.spatial_merge_size**2
        return replace(whole, gated=True, after=((tokens, (patches, out, out, 2 * inner)), (tokens, (inner, out))))

    def glue(self, number: int, seconds: float) -> tuple[str, str]:
        """Tokens around a picture, and its time."""
        named = self.pixels.said.get("processor_class")
        writer = named if named in (Glm4v.writer, Glm46V.writer) else self.writer
        time = f"{seconds:.1f} seconds" if writer == Glm46V.writer else str(int(seconds))
        return "<|begin_of_image|>", f"<|end_of_image|>{time}"

    def times(self, seconds: tuple[float, ...]) -> tuple[float, ...]:
        """That of a pair's first frame."""
        return seconds[::2]

    @classmethod
    def per_frame(cls, pixels: Pixels) -> Pixels:
        """Limits of a whole video made limits of a frame."""
        lowest, highest = pixels.limits
        return pixels.within(max(lowest // 4, 1), min(highest, 768 * 28 * 28))  # of at least four frames


class Glm46V(Glm4v):
    """Adapter of ``Glm46VForConditionalGeneration``, which other releases of GLM-4.6V and GLM-GA load as.

    Their towers and decoders are GLM-4.1V's. GLM-GA's video processor may ask for sides that are multiples of more
    than one token's (`patch_expand_factor`).
    """

    model_types: ClassVar[tuple[str, ...]] = ("glm46v", "glmga")
    writer: ClassVar[str] = "Glm46VProcessor"

    def size(self, height: int, width: int, factor: int) -> tuple[int, int]:
        """In multiples of what the checkpoint's processor asks for."""
        return super().size(height, width, factor * self.pixels.said.get("patch_expand_factor", 1))


class GlmOcr(Glm46V):
    """Adapter of ``GlmOcrForConditionalGeneration``, whose processor is GLM-4.6V's."""

    model_types: ClassVar[tuple[str, ...]] = ("glm_ocr",)

    def tower(self, height: int, width: int) -> Tower | None:
        """The widths are said in another way than GLM-4.1V's."""
        vision, tokens = self.model.config.vision_config, height * width
        out, inner = vision.out_hidden_size, vision.out_hidden_size * vision.in_channels
        whole = self.merging(height, width, vision.hidden_size, vision.intermediate_size, out)
        patches = vision.hidden_size * vision.spatial_merge_size**2
        return replace(whole, gated=True, after=((tokens, (patches, out, out, 2 * inner)), (tokens, (inner, out))))
