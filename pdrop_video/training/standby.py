"""Training of standby tokens: the answer's loss with them alone and with a step's own tokens beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..models import VisualChunk
from ..parts.standby import StandbyPart
from ..stream.sight import look
from .examples import Example, answer_losses
from .seeing import SeeingTrainer, mean_of


class StandbyTrainer(SeeingTrainer):
    """Two forwards an answer, losses averaged: with standby tokens alone, and with full ones beside those of the end.

    That is the paper's second stage, in which it trains the language model, too. Ours: this one stays frozen; the full
    tokens beside them are those of a window at the end, of a length drawn anew, as a stream remembers them; and the
    loss of targets (`pdrop_video.training.seeing`). Setting `n`: standby tokens a step.
    """

    part: ClassVar[type[StandbyPart]] = StandbyPart
    defaults: ClassVar[Mapping[str, Any]] = {**SeeingTrainer.defaults, "n": 4}

    def begin(self) -> StandbyPart:
        """Of so many tokens."""
        return StandbyPart.of(self.lm.model, n=self.settings["n"])

    def few(self, part: Any, example: Example) -> VisualChunk:
        """The standby tokens."""
        frames = example.frames
        chunk, _ = look(part, self.lm.adapter, frames.frames, frames.seconds, 0, {})
        return beside(chunk, 0)

    def answered(self, examples: Sequence[Example], few: VisualChunk, draw: torch.Generator) -> Tensor:
        """Both forwards."""
        steps = len(few.steps)
        window = int(torch.randint(1, max(steps // 4, 1) + 1, (1,), generator=draw))
        whole = examples[0].chunk.with_standby(few.embeds.unflatten(0, (steps, -1)), few.standby)
        losses = [mean_of(answer_losses(self.lm, examples, each)) for each in (few, beside(whole, window))]
        return torch.stack(losses).mean()


def beside(chunk: VisualChunk, window: int) -> VisualChunk:
    """All standby tokens of a chunk, and the full ones of so many steps at its end."""
    rows = chunk.visual_rows()
    stays = chunk.place()[rows] >= chunk.size[0] * chunk.size[1]
    return chunk.keep((stays | (chunk.step()[rows] >= len(chunk.steps) - window)).nonzero()[:, 0])
