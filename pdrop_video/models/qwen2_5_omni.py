"""Qwen2.5-Omni's thinker: it sees as Qwen2.5-VL does, in positions that are shared with sound."""

from __future__ import annotations

from typing import ClassVar

from .pixels import Pixels
from .positions import MRopePositions, Positions
from .qwen2_5_vl import Qwen2_5VL


class Qwen2_5Omni(Qwen2_5VL):
    """Adapter of ``Qwen2_5OmniThinkerForConditionalGeneration`` (arXiv 2503.20215).

    The talker, which speaks, is not part of it: a whole checkpoint is loaded without.

    The family's processor brings limits of pixels of its own, whatever the checkpoint's files say.
    """

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_omni_thinker",)
    video_token: ClassVar[str] = "<|VIDEO|>"

    @property
    def positions(self) -> Positions:
        """M-RoPE at the checkpoint's positions per second, of which a token of sound takes one."""
        return MRopePositions(self.model.config.position_id_per_seconds)

    @classmethod
    def per_frame(cls, pixels: Pixels) -> Pixels:
        """The limits that the processor sets."""
        return pixels.within(128 * 28 * 28, 768 * 28 * 28)
