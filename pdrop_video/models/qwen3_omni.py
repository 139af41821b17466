"""Qwen3-Omni's thinker: Qwen3-VL's vision tower, without a word between frames, in positions shared with sound."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from .ears import Ears, Hearing, HearingPositions
from .pixels import Pixels
from .positions import Positions
from .qwen2_vl import Qwen2VL
from .qwen3_vl import Qwen3VL


class Qwen3Omni(Hearing, Qwen2VL):
    """Adapter of ``Qwen3OmniMoeThinkerForConditionalGeneration`` (arXiv 2509.17765).

    What stands around a video and how frames are resized is as in Qwen2-VL; what the tower makes of them is as in
    Qwen3-VL, features of deeper layers included. The talker is left out, and the processor's limits of pixels hold,
    whatever the checkpoint's files say.
    """

    model_types: ClassVar[tuple[str, ...]] = ("qwen3_omni_moe_thinker",)

    placed = Qwen3VL.placed
    tower = Qwen3VL.tower

    @property
    def positions(self) -> Positions:
        """M-RoPE at the checkpoint's positions per second, of which a token of sound takes one.

        Positions are whole numbers; transformers leaves a step whose time is no whole number of them in between.
        """
        return HearingPositions(self.model.config.position_id_per_seconds, doubled=False)

    @cached_property
    def ears(self) -> Ears:
        """Every token of sound behind the picture of its time; the tower looks at eight seconds together."""
        audio = self.model.config.audio_config
        window = 2 * audio.n_window

        def halved(n: int) -> int:
            return (n - 1) // 2 + 1

        return Ears(
            mel=self.numbers(),
            stretch=audio.n_window_infer // window * window,
            chunk=window,
            tokens=tuple(halved(halved(halved(n))) for n in range(window + 1)),
            together=1,
            opening="<|audio_start|>",
            ending="<|audio_end|>",
            doubled=False,
        )

    @classmethod
    def per_frame(cls, pixels: Pixels) -> Pixels:
        """The limits that the processor sets."""
        return pixels.within(128 * 32 * 32, 768 * 32 * 32)
