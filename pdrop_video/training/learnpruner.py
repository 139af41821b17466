"""Training of LearnPruner's network: drop or keep by a straight-through argmax, and the answer's loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..parts.learnpruner import KEEP, LearnPrunerPart
from ..reduce import Reducer
from ..reduce.learnpruner import LearnPruner
from .examples import Example, answer_losses
from .trainer import Trainer


def straight_through(logits: Tensor) -> Tensor:
    """1 where keep is the larger logit, else 0 [tokens], with the gradient of the soft share of keep.

    Parameters
    ----------
    logits : Tensor [tokens, 2]
    """
    soft = logits.softmax(-1)[:, KEEP]
    hard = (logits.argmax(-1) == KEEP).to(soft)
    return hard + soft - soft.detach()


class LearnPrunerTrainer(Trainer):
    """The answer's cross entropy under the tokens that are kept, as the paper has it.

    Ours: a second term, `weight` * (share kept - `keep`) ** 2, that holds the share of kept tokens at a target, without
    which keeping everything is best; the noise (Gumbel) that is added to the logits before the argmax, so that tokens
    near the threshold are tried both ways; and that dropped tokens are hidden from all rows in all layers, which
    computes what their removal does and tells a dropped token, too, what it would have been worth.
    """

    part: ClassVar[type[LearnPrunerPart]] = LearnPrunerPart
    defaults: ClassVar[dict[str, Any]] = {"keep": 0.1, "weight": 12.0, "noise": 0.5}
    rate: ClassVar[float] = 2e-3
    steps: ClassVar[int] = 250

    def loss(self, part: Any, examples: Sequence[Example], draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """See the class."""
        logits = part(examples[0].features)
        noise = torch.rand(logits.shape, generator=draw).clamp(1e-6, 1 - 1e-6)
        keep = straight_through(logits + self.settings["noise"] * -(-noise.log()).log().to(logits))
        answer = torch.stack([each.mean() for each in answer_losses(self.lm, examples, keep=keep)]).mean()
        share = keep.mean()
        loss = answer + self.settings["weight"] * (share - self.settings["keep"]).square()
        return loss, {"answer": float(answer.detach()), "kept": float(share.detach())}

    def reducers(self) -> dict[str, Reducer]:
        """At the share that it was trained for."""
        keep = self.settings["keep"]
        return {
            "trained": LearnPruner(keep=keep, score="trained"),
            "residual": LearnPruner(keep=keep),
            "length": LearnPruner(keep=keep, score="length"),
        }
