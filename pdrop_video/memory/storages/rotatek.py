"""rotatek: keys that have left the recent window as coordinates in the few directions in which keys differ most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...common import checks
from ...common.ties import working
from ...registry import Facts
from ..room import Parts
from ..subspace import Subspace
from .base import Codec, Learned
from .full import AsIs


@dataclass(frozen=True, slots=True)
class Directions:
    """Keys as `Subspace` has them, one for a layer.

    Parameters
    ----------
    keep : float
        Share of the directions.
    """

    plain: ClassVar[bool] = True
    keep: float

    def learn(self, states: Tensor, weight: Tensor | None = None) -> Learned:
        """Directions [1, kv_heads, head_dim, kept] and what all keys share [1, kv_heads, 1, head_dim].

        Parameters
        ----------
        states : Tensor [1, kv_heads, columns, head_dim]
        weight : Tensor [kv_heads, head_dim], optional
            Of each channel.
        """
        exact = working(states)
        found = Subspace.of(exact[0], self.kept(states.shape[-1]), weight)
        return found.axes[None], found.rest[None, :, None]

    def kept(self, head_dim: int) -> int:
        """How many directions, as the release counts them: those that go are rounded down."""
        return head_dim - min(int(head_dim * (1 - self.keep)), head_dim - 1)

    def encode(self, states: Tensor, learned: Learned) -> Parts:
        """Coordinates [1, kv_heads, columns, kept]: neither centred nor weighted."""
        return ((states.to(learned[0].dtype) @ learned[0]).to(states.dtype),)

    def decode(self, parts: Parts, learned: Learned, dtype: torch.dtype) -> Tensor:
        """The keys that they stand for."""
        axes, rest = learned
        return (parts[0].to(axes.dtype) @ axes.mT + rest).to(dtype)

    def flops(self, head_dim: int) -> int:
        """Of reading a key of one head."""
        return 2 * self.kept(head_dim) * head_dim

    def lost(self, states: Tensor, learned: Learned) -> Tensor:
        """Share of keys' variance about what they share that lies outside of the directions [kv_heads].

        What a logit is off by is its product with the query; to be watched on keys that are still whole.
        """
        exact = states.to(learned[0].dtype)
        off = exact - self.decode(self.encode(exact, learned), learned, exact.dtype)
        about = exact - exact.mean(2, keepdim=True)
        return (off.square().sum((2, 3)) / about.square().sum((2, 3)).clamp(min=1e-30))[0]


@dataclass(frozen=True, slots=True)
class RotateK:
    """A quarter of the keys' channels for what has left the recent window (RotateK, arXiv 2605.19218); values whole.

    A key k counts as ``P k + (I - P) mu``: P projects onto the directions in which the first keys that left the window
    differed most, mu is their mean. So its logit is off by ``(k - mu) (I - P) q``. What is stored are its coordinates,
    five eighths of the bytes of key and value together.

    Ours, since the paper compresses one prefill, at one time, after all has attended to whole keys, and a stream goes
    on: the newest columns and the prompt stay whole, and what comes later attends to what is left of the others.
    The paper has directions of its own for each block of keys with RoPE. Of a block the default evictor leaves three
    columns after an hour, and directions take as much as 44 of them save. Here a layer has one set of them for the
    whole stream, learned once, as ``recent`` columns have left the window; that it may serve, keys are stored without
    RoPE and rotated as they are read, to where they stand then. That is the same as to turn queries back, and holds for
    any move: nothing is split, and nothing held twice.

    Parameters
    ----------
    keep : float
        Share of the channels (the release's ``channel_ratio`` is what goes, .75).
    recent : int
        How many of the newest columns stay whole, beside the prompt; no more than a quarter of what the budget would
        hold of them.
    asked : bool
        Weigh channels by what the probe asks, the standing question where there is one: a probe then follows every
        chunk through all layers. The paper's default weighs by the question, which a stream does not know when it
        forgets; channels that a rotation mixes weigh alike (ours).

    Raises
    ------
    ConfigError
        If a parameter is out of its bounds.
    """

    facts: ClassVar[Facts] = Facts(
        says="of keys that left the recent window a quarter of the channels, in the directions in which they differ",
        paper="RotateK, arXiv 2605.19218",
        formula=(
            "key read as P k + (I - P) mean, P = projection on the share `keep` of the directions in which keys\n"
            "    differ most"
        ),
        ours=True,
    )
    bare: ClassVar[bool] = True
    keep: float = 0.25
    recent: int = 128
    asked: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", checks.share("keep", self.keep))
        object.__setattr__(self, "recent", checks.whole("recent", self.recent, 1, 2**31))
        checks.switch("asked", self.asked)

    @property
    def uses_query(self) -> bool:
        """Whether it learns from what a probe asks."""
        return self.asked

    def __call__(self, of: Literal["keys", "values"]) -> Codec:
        """Directions for keys; values as they are."""
        return Directions(self.keep) if of == "keys" else AsIs()
