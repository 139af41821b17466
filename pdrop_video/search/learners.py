"""What VisPCO learns (arXiv 2604.15188): the depth and the ratio of a smooth step, by gradients through a soft pass.

Two learners: the paper's network, which sees the input embeddings and the budget and is trained on twenty budgets, and
two free numbers for one budget, a simpler control that is ours. Knows laid-out clips and a constraint; refuses to know
schedules and what is held out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import cycle

import torch
from torch import Tensor, nn

from ..costs.decoder import DecoderShape
from .lagrangian import UNITS, Lagrangian, Spending, smooth
from .soft import Laid, SoftPass

LEARNERS = ("network", "free")
BUDGETS = (0.01, *(percent / 100 for percent in range(5, 100, 5)))
"""That the network is trained on, one after another."""
EPOCHS = 4
RATES = {"network": 1e-3, "free": 0.1}
"""Learning rates. The paper's is 1e-4, for some thousand steps of sixteen images; here there are few. Ours."""


class Free(nn.Module):
    """Two numbers, whatever the input and the budget."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.zeros(2))

    def forward(self, embeddings: Tensor, budget: float) -> Tensor:
        """The numbers [2] in front of the two sigmoids."""
        return self.numbers


class Network(nn.Module):
    """VisPCO's: a projection, two residual blocks that the budget scales and shifts (FiLM), the mean over rows, an MLP.

    Without the released one's dropout, as there are few steps here.

    Parameters
    ----------
    width : int
        Of the embeddings.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        wide, mid, thin = (max(width // by, 2) for by in (2, 4, 8))
        self.enter = nn.Linear(width, wide)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(a), nn.Linear(a, b), nn.GELU()) for a, b in ((wide, mid), (mid, thin))
        )
        self.around = nn.ModuleList((nn.Linear(wide, mid), nn.Linear(mid, thin)))
        self.budget = nn.Sequential(nn.Linear(1, mid), nn.GELU(), nn.Linear(mid, mid))
        self.films = nn.ModuleList((nn.Linear(mid, 2 * mid), nn.Linear(mid, 2 * thin)))
        self.leave = nn.Sequential(
            nn.LayerNorm(thin), nn.Linear(thin, 256), nn.GELU(), nn.Linear(256, 128), nn.GELU(), nn.Linear(128, 2)
        )

    def forward(self, embeddings: Tensor, budget: float) -> Tensor:
        """The numbers [2] in front of the two sigmoids, of input embeddings [rows, width] at a budget."""
        told = self.budget(embeddings.new_full((1,), budget))
        rows = self.enter(embeddings)
        for block, around, film in zip(self.blocks, self.around, self.films, strict=True):
            scale, shift = film(told).chunk(2)
            rows = scale * (block(rows) + around(rows)) + shift
        return self.leave(rows.mean(0))


class Learner:
    """A module that is learned, and how many passes that took.

    Parameters
    ----------
    name : str
        One of `LEARNERS`.
    width : int
        Of the embeddings.
    layers : int
        Of the decoder.
    seed : int
        Of its first weights.
    """

    def __init__(self, name: str, width: int, layers: int, seed: int) -> None:
        self.name, self.layers = name, layers
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module: nn.Module = Network(width) if name == "network" else Free()
        self.passes = 0

    def numbers(self, laid: Laid, budget: float) -> tuple[Tensor, Tensor]:
        """Depth and ratio [] for a clip and question: k = layers * sigmoid(z1), r = sigmoid(z2)."""
        embeddings = laid.hidden[0].float()
        z1, z2 = self.module.to(embeddings.device)(embeddings, budget).unbind(0)
        return self.layers * torch.sigmoid(z1), torch.sigmoid(z2)

    def shares(self, laid: Laid, budget: float) -> Tensor:
        """The smooth step [layers] of these."""
        return smooth(self.layers, *self.numbers(laid, budget))

    @torch.no_grad()
    def gap(self, laid: Sequence[Laid], shape: DecoderShape, budget: float) -> float:
        """How far it is below a budget, in `UNITS`, the mean over clips and questions."""
        gaps = [float(spending(one, shape).gap(self.shares(one, budget), budget)) for one in laid]
        return sum(gaps) / len(gaps)

    @torch.no_grad()
    def settled(self, laid: Sequence[Laid], budget: float) -> tuple[float, float, float]:
        """Depth and ratio, the mean over clips and questions, and the standard deviation of the depths."""
        depth, ratio = torch.tensor([[float(x) for x in self.numbers(one, budget)] for one in laid]).T
        return float(depth.mean()), float(ratio.mean()), float(depth.std(correction=0))


def spending(laid: Laid, shape: DecoderShape) -> Spending:
    """What shares cost on a clip and question."""
    visual, rows = int(laid.visual.sum()), laid.hidden.shape[1]
    return Spending(visual, rows - visual, shape.hidden, shape.mlp)


def learn(
    soft: SoftPass,
    laid: Sequence[Laid],
    name: str,
    budget: float,
    steps: int,
    epochs: int = EPOCHS,
    seed: int = 0,
    watch: Callable[[str], None] = lambda line: None,
) -> Learner:
    """A learner trained on clips and questions in random order; the network on `BUDGETS` in turn.

    Parameters
    ----------
    soft : SoftPass
    laid : sequence of Laid
    name : str
        One of `LEARNERS`.
    budget : float
        Whose gap moves the constraint after each epoch; what free numbers are trained for.
    steps, epochs : int
        Of an epoch, and at most so many of these.
    seed : int
    watch : callable
        Is given a line for each epoch.
    """
    learner, rng = Learner(name, laid[0].hidden.shape[-1], soft.layers, seed), random.Random(seed)
    numbers, shape = list(learner.module.parameters()), DecoderShape.of(soft.model.config)
    optimiser = torch.optim.AdamW(numbers, lr=RATES[name])
    budgets, rule = cycle(BUDGETS if name == "network" else (budget,)), Lagrangian()
    for epoch in range(epochs):
        lost = 0.0
        for _ in range(steps):
            one, share = rng.choice(laid), next(budgets)
            with torch.enable_grad():
                shares = learner.shares(one, share)
                far = soft.divergence(one, shares)
                loss = rule.loss(far, spending(one, shape).gap(shares, share))
                gradients = torch.autograd.grad(loss, numbers)
            for number, gradient in zip(numbers, gradients, strict=True):
                number.grad = gradient
            nn.utils.clip_grad_norm_(numbers, 1.0)
            optimiser.step()
            learner.passes += 1
            lost += float(far.detach())
        gap = learner.gap(laid, shape, budget)
        rule.update(gap)
        watch(f"{name}, epoch {epoch + 1}: {lost / steps:.4f} nats, {gap / UNITS:+.1%} below the budget")
        if rule.done:
            break
    return learner
