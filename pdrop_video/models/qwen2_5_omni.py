"""Qwen2.5-Omni's thinker: it sees as Qwen2.5-VL does, in positions that are shared with sound."""

from __future__ import annotations

import math
from functools import cached_property
from typing import ClassVar

from .ears import Ears, Hearing, HearingPositions
from .pixels import Pixels
from .positions import Positions
from .qwen2_5_vl import Qwen2_5VL


class Qwen2_5Omni(Hearing, Qwen2_5VL):
    """Adapter of ``Qwen2_5OmniThinkerForConditionalGeneration`` (arXiv 2503.20215).

    The talker, which speaks, is not part of it: a whole checkpoint is loaded without.

    The family's processor brings limits of pixels of its own, whatever the checkpoint's files say.
    """

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_omni_thinker",)
    video_token: ClassVar[str] = "<|VIDEO|>"

    @property
    def positions(self) -> Positions:
        """M-RoPE at the checkpoint's positions per second, of which a token of sound takes one."""
        return HearingPositions(self.model.config.position_id_per_seconds, doubled=True)

    @cached_property
    def ears(self) -> Ears:
        """Two seconds of pictures, then their sound; the tower looks at the same two seconds alone."""
        config, mel = self.model.config, self.numbers()
        window = 2 * config.audio_config.n_window
        return Ears(
            mel=mel,
            stretch=math.lcm(window, config.seconds_per_chunk * mel.rate // mel.hop),
            chunk=window,
            tokens=tuple(max(((n - 1) // 2 + 1) // 2, 0) for n in range(window + 1)),
            together=int(config.position_id_per_seconds * config.seconds_per_chunk),
            opening="<|audio_bos|>",
            ending="<|audio_eos|>",
            doubled=True,
        )

    @classmethod
    def per_frame(cls, pixels: Pixels) -> Pixels:
        """The limits that the processor sets."""
        return pixels.within(128 * 28 * 28, 768 * 28 * 28)
