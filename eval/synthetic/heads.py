"""Linear heads that ask the middle of the model, in training, what it knows; they are thrown away afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .known import FACTS, OPTIONS, PLACES, STATES


class Heads(nn.Module):
    """Heads on one norm, each with a class for every word of its own and one more for none.

    Parameters
    ----------
    width : int
        Of the hidden states.
    """

    words: ClassVar[Mapping[str, tuple[str, ...]]]
    none_weight: ClassVar[float] = 1.0
    """What the class "none" counts in the loss."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = [len(words) + 1 for words in self.words.values()]
        self.norm = nn.RMSNorm(width)
        self.out = nn.Linear(width, sum(self.sizes))

    def scores(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Each head's scores `[..., classes]` from `[..., width]`, in float32."""
        return self.out(self.norm(hidden)).float().split(self.sizes, -1)

    def loss(self, hidden: Tensor, classes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy over the heads, and each one's accuracy where it is asked for a word.

        Parameters
        ----------
        hidden : Tensor
            `[clips, T, width]`.
        classes : Tensor
            `[clips, T, heads]`; -100 where nothing is asked.
        """
        some = (classes >= 0).any(-1)
        classes = classes[some]
        losses, right = [], {}
        for (name, words), scores, wanted in zip(
            self.words.items(), self.scores(hidden[some]), classes.unbind(-1), strict=True
        ):
            weight = torch.ones(len(words) + 1, device=scores.device)
            weight[-1] = self.none_weight
            counted = torch.where(wanted >= 0, weight[wanted.clamp(min=0)], 0.0).sum().clamp(min=1e-6)
            losses.append(F.cross_entropy(scores, wanted, weight, reduction="sum") / counted)
            asked = (wanted >= 0) & (wanted < len(words))
            right[name] = ((scores.argmax(-1) == wanted) & asked).sum() / asked.sum().clamp(min=1)
        return torch.stack(losses).mean(), right


class PlaceHeads(Heads):
    """They read where in its grid a visual slot is."""

    words = PLACES


class StateHeads(Heads):
    """They read the clip's state so far from a visual slot."""

    words = STATES


class FactHeads(Heads):
    """They read what is known of a thing from a word for it; most words are for things that are not shown."""

    words = FACTS
    none_weight = 0.25


class OptionHeads(Heads):
    """They read from an option's last word whether it is the right one."""

    words = OPTIONS
