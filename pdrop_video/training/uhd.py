"""Training of the compression inside the vision tower: targets of its few tokens, and the answer's loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..models import VisualChunk
from ..parts.uhd import UHDPart
from ..stream.sight import look
from .examples import Example
from .seeing import SeeingTrainer


class UHDTrainer(SeeingTrainer):
    """The answer's loss, with the language model frozen, and that of targets (`pdrop_video.training.seeing`), ours.

    The paper trains tower and language model in four stages. Setting `after`: blocks in front of the compressor;
    0 for the paper's share of them, 6 of 27, or three where that is more.
    """

    part: ClassVar[type[UHDPart]] = UHDPart
    defaults: ClassVar[Mapping[str, Any]] = {**SeeingTrainer.defaults, "after": 0}

    def begin(self) -> UHDPart:
        """Behind so many blocks."""
        after = self.settings["after"]
        return UHDPart.of(self.lm.model, **({"after": after} if after else {}))

    def few(self, part: Any, example: Example) -> VisualChunk:
        """What leaves the tower."""
        frames = example.frames
        chunk, _ = look(part, self.lm.adapter, frames.frames, frames.seconds, 0, {})
        return chunk
