"""A pyramid on a model of known depth: where stages end, and what each leaves. Knows layer numbers and ratios."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Schedule:
    """A pyramid on a model of known depth.

    Attributes
    ----------
    num_layers : int
        Decoder layers of the model.
    layers : tuple of int
        Before decoder layer ``layers[s]`` (0-based) runs, stage `s` ends and tokens are dropped. With a boundary at 0
        stage 0 is all that entered: it is counted, but no layer runs it, and nothing remembers it.
    ratios : tuple of float
        Share of the *original* visual tokens that is left after each boundary.
    sound : tuple of float, optional
        The same of tokens of sound; as of visual ones where left out.
    """

    num_layers: int
    layers: tuple[int, ...]
    ratios: tuple[float, ...]
    sound: tuple[float, ...] | None = None

    @property
    def sound_ratios(self) -> tuple[float, ...]:
        """Share of the original tokens of sound that is left after each boundary."""
        return self.ratios if self.sound is None else self.sound

    def counts(self, visual: int, sound: int = 0) -> tuple[int, ...]:
        """Visual tokens, and those of sound, in each stage, the first included: ``(n, int(n * ratios[0]), ...)``."""
        shares = zip(self.ratios, self.sound_ratios, strict=True)
        return (visual + sound, *(int(visual * share) + int(sound * other) for share, other in shares))

    def stage(self, layer: int) -> int:
        """The stage that decoder layer `layer` belongs to, counted from 0."""
        return bisect_right(self.layers, layer)

    @property
    def spans(self) -> tuple[range, ...]:
        """The decoder layers of each stage; none of stage 0 where a boundary stands before layer 0."""
        return tuple(range(first, end) for first, end in pairwise((0, *self.layers, self.num_layers)))

    def per_layer(self, visual: int, sound: int = 0) -> list[int]:
        """Visual tokens, and those of sound, that enter each decoder layer."""
        counts = self.counts(visual, sound)
        return [counts[self.stage(layer)] for layer in range(self.num_layers)]

    def per_layer_shares(self) -> list[float]:
        """The share of the original visual tokens that enters each decoder layer."""
        shares = (1.0, *self.ratios)
        return [shares[self.stage(layer)] for layer in range(self.num_layers)]

    def average(self, visual: int) -> float:
        """Mean number of visual tokens over the layers (the papers' "average tokens")."""
        return sum(self.per_layer(visual)) / self.num_layers
