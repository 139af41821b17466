"""VidCom2: frames unlike the video keep more, and in each what is unlike its frame and the video stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import real, share, whole
from ..common.ties import settled
from ..registry import Facts
from .base import Reduced, Tokens
from .likeness import precisely
from .steps import best_of_each, mean_of_each, unit_by_unit

_WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Of the Gaussian kernels, as the release has them."""


@dataclass(frozen=True, slots=True)
class VidCom2:
    """Video Compression Commander, arXiv 2505.14454: budgets by how unique frames are, then the most unique tokens.

    Over the half of the channels that varies least, tokens are made unit vectors. How unique one is: 1 less a Gaussian
    kernel of its distance to the mean, summed over five widths; once for the mean of the video and once for that of its
    step. Steps share the budget by a softmax of their tokens' mean uniqueness in the video: with T steps a step keeps
    ``keep * (1 + p - 1 / T)`` of its tokens, one at least. Its tokens of the highest sum of both stay. For a chunk that
    holds a whole video this is the release.

    How many stay depends on what is shown: the steps' numbers are rounded one by one.

    Ours, for streams: what is the video to a chunk is all that came so far, its own steps included; the channels are
    those that vary least in the first chunk. Carried are the channels and a sum of tokens over them, 16 bytes a channel
    at most. What stays depends on where chunks begin and end, since the steps of one share its budget; with `unit` it
    does not. However a stream is cut, each chunk keeps its share of tokens to within half a token a step, as long as a
    share is one token of a step or more, and none is asked for more than it has.

    Parameters
    ----------
    keep : float
        Share of the tokens that stays.
    temperature : float
        Of the softmax over steps; the higher, the more alike are their budgets.
    channels : float
        Share of the channels that is looked at, those of the lowest variance.
    unit : int
        Steps that are reduced together, whatever the chunks; 1 for those of a chunk.

    Raises
    ------
    ConfigError
        If one of them is out of range.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    facts: ClassVar[Facts] = Facts(
        says="visual tokens least similar to the mean of their step and of the video, and more of unusual steps",
        paper="VidCom2, arXiv 2505.14454",
        formula=(
            "u(x, m) = sum over five widths s of 1 - exp(-|x - m|^2 / (2 s)), x of length 1, m a mean of such\n"
            "share of a step = keep * (1 + p - 1 / T), p = softmax(mean of u(x, mean of the video) /\n"
            "    temperature) over T steps\n"
            "tokens of highest u(x, mean of the video) + u(x, mean of the step) stay"
        ),
        ours=True,
        carries="one sum of tokens",
    )
    keep: float = 0.25
    temperature: float = 0.01
    channels: float = 0.5
    unit: int = 1

    def __post_init__(self) -> None:
        """Check all four."""
        object.__setattr__(self, "keep", share("keep", self.keep))
        object.__setattr__(self, "temperature", real("temperature", self.temperature, 0, above=True))
        object.__setattr__(self, "channels", share("channels", self.channels))
        object.__setattr__(self, "unit", whole("unit", self.unit))

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Unit by unit."""
        state = dict(carried)

        def decide(part: Tokens) -> Reduced:
            nonlocal state
            kept, state = self._unit(part, state)
            return Reduced(kept)

        return unit_by_unit(tokens, self.unit, decide), state

    def _unit(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        features = precisely(tokens.features)
        channels = carried["channels"] if carried else self._channels(features, tokens.features.dtype)
        features = F.normalize(features[:, channels.to(features.device)], dim=-1)
        total, count = features.sum(0), torch.tensor(len(tokens), device=features.device)
        if carried:
            total, count = total + carried["sum"].to(total), count + carried["count"].to(count)
        sizes = tokens.step.bincount(minlength=len(tokens.seconds))
        in_video = self._unique(features, (total / count)[None], tokens)
        in_step = self._unique(features, mean_of_each(features, tokens.step, sizes)[tokens.step], tokens)
        kept = best_of_each(tokens, in_video + in_step, self._budget(in_video, tokens, sizes))
        return kept.nonzero()[:, 0], {"channels": channels, "sum": total, "count": count}

    def _channels(self, features: Tensor, dtype: torch.dtype) -> Tensor:
        """Those of the lowest variance, ascending."""
        variance = settled(features.var(0, unbiased=False), dtype)
        count = max(int(features.shape[1] * self.channels), 1)
        return variance.argsort(stable=True)[:count].sort().values

    @staticmethod
    def _unique(features: Tensor, centre: Tensor, tokens: Tokens) -> Tensor:
        """How unlike each is to a centre [tokens], from 0 to the number of kernels."""
        distance = (features - centre).square().sum(-1)
        least = max(16 * torch.finfo(tokens.features.dtype).eps ** 2, 64 * torch.finfo(distance.dtype).eps)
        distance = distance.masked_fill(distance < least, 0)  # two roundings of one state
        return sum((-torch.expm1(-distance / (2 * width)) for width in _WIDTHS), torch.zeros_like(distance))

    def _budget(self, unique: Tensor, tokens: Tokens, sizes: Tensor) -> Tensor:
        """How many of each step's tokens stay [steps]."""
        mean = mean_of_each(unique, tokens.step, sizes) / self.temperature
        probability = mean.softmax(0)
        scale = (self.keep * (1 + probability - probability.mean())).clamp(max=1)
        # rounded twice, so that budgets that are equal in exact arithmetic are equal
        return settled(scale * sizes, scale.dtype).round().to(torch.int64).clamp(min=1)

    def left(self, tokens: int) -> None:
        """Up to what they show."""

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """Numbers of channels, a sum over them, and a count."""
        return 16 * hidden + 8

    def flops(self, tokens: int, hidden: int) -> int:
        """A variance, lengths, three means, and distances to two of them."""
        return int(tokens * hidden * (3 + 11 * self.channels))
