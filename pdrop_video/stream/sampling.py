"""`Sampling`: how an answer's tokens are drawn where they are not the likeliest ones. Knows logits, and no text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common import checks

Choice = Callable[[Tensor], Tensor]
"""The next token's id [] from its logits [vocabulary], where they are: the host need not know it yet."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the tokens of one answer are drawn: by a generator of its own, whoever else draws meanwhile.

    Parameters
    ----------
    temperature : float
        By what the logits are divided; 0 takes the likeliest token each time.
    top_p : float
        Only the likeliest tokens can be drawn whose probabilities add up to this: the fewest that do, and one at least.
    seed : int, optional
        The same seed draws the same tokens from the same logits; None draws others each time.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check what was given."""
        object.__setattr__(self, "temperature", checks.real("temperature", self.temperature, 0, 100))
        object.__setattr__(self, "top_p", checks.real("top_p", self.top_p, 0, 1, above=True))
        if self.seed is not None:
            object.__setattr__(self, "seed", checks.whole("seed", self.seed, -(2**63), 2**63 - 1))

    def begin(self) -> Choice:
        """What chooses the tokens of one answer, one after the other."""
        if self.temperature == 0:
            return likeliest
        generator = torch.Generator()  # on the host: the same numbers on every device
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return lambda logits: self._draw(logits, generator)

    def _draw(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        # Apple's cards know no wider numbers
        wanted = logits.detach().to(torch.float32 if logits.device.type == "mps" else torch.float64)
        # the best is at 0 before it is divided, so that nothing overflows however cold it is
        chances = ((wanted - wanted.max()) / self.temperature).softmax(-1)
        places = torch.arange(len(chances), device=chances.device)
        ids = places
        if self.top_p < 1:
            chances, ids = chances.sort(descending=True, stable=True)
            chances = chances.masked_fill(places > (chances.cumsum(-1) < self.top_p).sum(), 0)
        reached = chances.cumsum(-1)
        at = float(torch.rand((), generator=generator, dtype=torch.float64)) * reached[-1:]
        # where rounding leads behind the last one that has a chance, that one is meant
        last = places.masked_fill(chances == 0, 0).max()
        return ids.gather(0, torch.searchsorted(reached, at, right=True).minimum(last))[0]


def likeliest(logits: Tensor) -> Tensor:
    """Greedy: the token with the largest logit."""
    return logits.argmax()


def read_later(token: Tensor) -> Callable[[], int]:
    """Begin to bring a token's id [] to the host; what is returned waits for it, and nothing behind it."""
    if token.device.type != "cuda":
        return lambda: int(token)
    host = torch.empty_like(token, device="cpu", pin_memory=True)
    host.copy_(token, non_blocking=True)
    there = torch.cuda.Event()
    there.record(torch.cuda.current_stream(token.device))

    def read() -> int:
        there.synchronize()
        return int(host)

    return read
