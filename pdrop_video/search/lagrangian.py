"""VisPCO's constraint (arXiv 2604.15188): a budget of FLOPs as an augmented Lagrangian, with its released constants.

Knows numbers and tensors of numbers; refuses to know models. The loss is 1000 KL - .1 w g + sigma g^2, with g how far
the FLOPs are below the target; after each epoch w, and if need be sigma, are moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .kernels import STEEPNESS, vispco_flops, vispco_target

UNITS = 10.0
"""What all visual tokens cost, in the units of g. The paper has TFLOPs of the models that it trains on, which come to
about as much; of a small model they would be nothing, and the budget no constraint. Ours."""


@dataclass(slots=True)
class Lagrangian:
    """The multiplier and the penalty, and when to stop.

    Attributes
    ----------
    w, sigma : float
        Multiplier and penalty, as they begin.
    alpha : float
        The penalty grows so many times where g did not fall enough.
    beta : float
        It fell enough if it is less than this share of what it was.
    eps : float
        g is 0 below that.
    times : int
        So many times running it has to be.
    before : float or None
        g at the last update.
    met : int
        How often running it was 0.

    Examples
    --------
    >>> given = Lagrangian(before=0.4)
    >>> for gap in (0.3, 0.12, 0.05):
    ...     given.update(gap)
    ...     print(round(given.sigma), round(given.w, 9))
    500 -149.0
    500 -209.0
    500 -234.0
    """

    w: float = 1.0
    sigma: float = 100.0
    alpha: float = 5.0
    beta: float = 0.5
    eps: float = 0.01
    times: int = 3
    before: float | None = None
    met: int = 0

    def loss(self, divergence: Tensor, gap: Tensor) -> Tensor:
        """1000 KL - .1 w g + sigma g^2."""
        return 1000 * divergence - 0.1 * self.w * gap + self.sigma * gap**2

    def update(self, gap: float) -> None:
        """Move penalty and multiplier after an epoch, by g on what is validated on."""
        if self.before and abs(gap) / abs(self.before) >= self.beta:
            self.sigma *= self.alpha
        self.w -= self.sigma * gap
        self.met = self.met + 1 if abs(gap) < self.eps else 0
        self.before = gap

    @property
    def done(self) -> bool:
        """Whether the budget was met often enough."""
        return self.met >= self.times


def smooth(layers: int, depth: Tensor, ratio: Tensor) -> Tensor:
    """Shares of the original tokens [layers] by `kernels.smooth_step`, as a tensor that has gradients.

    Examples
    --------
    >>> shares = smooth(8, torch.tensor(2.5, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64))
    >>> [round(float(share), 6) for share in shares]
    [1.0, 1.0, 0.995315, 0.304685, 0.3, 0.3, 0.3, 0.3]
    """
    layer = torch.arange(layers, dtype=depth.dtype, device=depth.device)
    return 1 + (ratio - 1) * torch.sigmoid(STEEPNESS * (layer - depth))


@dataclass(frozen=True, slots=True)
class Spending:
    """What shares of the visual tokens cost, counted as VisPCO does.

    Attributes
    ----------
    visual, text : int
        Rows of each kind.
    hidden, mlp : int
        Sizes of the decoder.

    Examples
    --------
    >>> given = Spending(visual=100, text=20, hidden=64, mlp=128)
    >>> shares = smooth(8, torch.tensor(2.5, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64))
    >>> round(float(given.flops(shares)), 1), round(given.target(0.5) - float(given.flops(shares)), 1)
    (27109740.3, -1182060.3)
    >>> round(float(given.gap(shares, 0.5)), 6)  # of 10 units, which all visual tokens cost
    -0.291503
    """

    visual: int
    text: int
    hidden: int
    mlp: int

    def flops(self, shares: Tensor) -> Tensor:
        """Multiply-adds [] of all layers; see `vispco_flops`."""
        rows = self.text + self.visual * shares
        return (4 * rows * self.hidden**2 + 2 * rows**2 * self.hidden + 2 * rows * self.hidden * self.mlp).sum()

    def _ends(self, layers: int) -> tuple[float, float]:
        return tuple(  # type: ignore[return-value]
            vispco_flops([share] * layers, self.visual, self.text, self.hidden, self.mlp) for share in (1.0, 0.0)
        )

    def target(self, budget: float, layers: int = 8) -> float:
        """The multiply-adds that a budget means."""
        return vispco_target(budget, *self._ends(layers))

    def gap(self, shares: Tensor, budget: float) -> Tensor:
        """How far the cost is below the target, g [], in `UNITS`."""
        full, none = self._ends(len(shares))
        return UNITS * (vispco_target(budget, full, none) - self.flops(shares)) / (full - none)
