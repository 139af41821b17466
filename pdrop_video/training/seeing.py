"""What the trainers share of parts that reach into the vision tower: targets of a step's few tokens, and questions.

Two losses. The answer's cross entropy through the frozen language model, as in the papers. And what makes minutes on
one core enough (ours): each of a step's few tokens is to be like the most salient of those tokens that it stands for,
which the language model can read already, whereas a mean of them it can't.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..models import VisualChunk
from ..video import FrameChunk
from .examples import Example, answer_losses
from .trainer import Trainer

_SHARP = 6.0
"""How much more a token that differs from its step's mean counts than others: e to this, where it differs twice as much
as they do on average."""


def shares(features: Tensor, owned: Tensor, sharp: float = _SHARP) -> Tensor:
    """What each token counts for each of the few [steps, few, tokens]: rows of weights that sum to 1.

    A softmax of ``sharp * |x - mean| / mean |x - mean|``, means over the step. With 0 they are plain means.

    Parameters
    ----------
    features : Tensor [steps, tokens, hidden]
    owned : Tensor [few, tokens], bool
        For which tokens each stands: one or more.
    sharp : float
    """
    apart = (features - features.mean(1, keepdim=True)).norm(dim=-1)
    apart = apart / apart.mean(1, keepdim=True).clamp(min=torch.finfo(apart.dtype).tiny)
    return (sharp * apart)[:, None].expand(-1, len(owned), -1).masked_fill(~owned, -torch.inf).softmax(dim=-1)


def missed(few: Tensor, target: Tensor, steps: int) -> Tensor:
    """How far few tokens are from their targets, both [steps * few, hidden], as a share of what these are.

    sum w |x - t|^2 / (sum w * mean |t|^2) with w = |t - mean|^2, of which the mean is that of the token's step: what
    stands out counts, not the many tokens of a background.
    """
    each = target.unflatten(0, (steps, -1))
    apart = (each - each.mean(1, keepdim=True)).square().sum(-1).flatten()
    whole = (apart.sum() * target.square().sum(-1).mean()).clamp(min=torch.finfo(apart.dtype).tiny)
    return (apart * (few - target).square().sum(-1)).sum() / whole


class SeeingTrainer(Trainer):
    """How a part that reaches into the vision tower is trained; a subclass says what it makes of an example.

    Settings: `sharp` of the targets, `weight` of their loss, `stretch`, steps of time of a video that they are made of,
    and `asked`, the share of the training's steps, the last ones, that see whole videos and answer as well: what can't
    be read yet teaches nothing.
    """

    defaults: ClassVar[Mapping[str, Any]] = {"sharp": _SHARP, "weight": 1.0, "stretch": 10, "asked": 0.25}
    rate: ClassVar[float] = 3e-3
    steps: ClassVar[int] = 2000

    def few(self, part: Any, example: Example) -> VisualChunk:
        """A chunk of the few tokens that the part makes of each step."""
        raise NotImplementedError

    def answered(self, examples: Sequence[Example], few: VisualChunk, draw: torch.Generator) -> Tensor:
        """The answers' loss."""
        return mean_of(answer_losses(self.lm, examples, few))

    def loss(self, part: Any, examples: Sequence[Example], draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """See above."""
        asks = self.progress >= 1 - self.settings["asked"]
        seen = examples[0] if asks else self._stretch(examples[0], draw)
        few = self.few(part, seen)
        target = self.pooled(part, seen, few, self.settings["sharp"]).embeds.float()
        off = missed(few.embeds.float(), target, len(few.steps))
        loss, figures = self.settings["weight"] * off, {"target": float(off.detach())}
        if asks:
            answer = self.answered(examples, few, draw)
            loss, figures["answer"] = loss + answer, float(answer.detach())
        return loss, figures

    def _stretch(self, example: Example, draw: torch.Generator) -> Example:
        """Some steps of a video, one behind another: another stretch of it teaches more than the rest of its scene."""
        most, each = self.settings["stretch"], self.lm.adapter.frames_per_step
        pieces = example.chunk.split(most)
        number = int(torch.randint(len(pieces), (1,), generator=draw))
        frames = slice(number * most * each, (number * most + len(pieces[number].steps)) * each)
        of = FrameChunk(example.frames.frames[frames], example.frames.seconds[frames])
        return replace(example, frames=of, chunk=pieces[number])

    def pooled(self, part: Any, example: Example, few: VisualChunk, sharp: float) -> VisualChunk:
        """The same few tokens as weighted means of the tower's own; plain means where `sharp` is 0."""
        (h, w), steps = example.chunk.size, len(example.chunk.steps)
        features = example.chunk.embeds.view(steps, h * w, -1).float()
        weights = shares(features, part.owned((steps, h, w)).to(features.device), sharp)
        return replace(few, embeds=(weights @ features).flatten(0, 1).to(few.embeds))

    def methods(self, part: Any, example: Example) -> dict[str, VisualChunk]:
        """What the part is judged beside, of as many tokens: plain means, and the targets."""
        few = self.few(part, example)
        return {
            "trained": few,
            "pooled": self.pooled(part, example, few, 0.0),
            "salient": self.pooled(part, example, few, self.settings["sharp"]),
            "all tokens": example.chunk,
        }

    def knowing(self) -> tuple[str, ...]:
        """Nothing."""
        return ()


def mean_of(losses: Sequence[Tensor]) -> Tensor:
    """The mean over answers of the mean over their tokens."""
    return torch.stack([each.mean() for each in losses]).mean()
