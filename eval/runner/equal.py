"""Settings that spend a given share of the FLOPs of the whole way: vision tower, gate, reducer, decoder, a question.

Knows what each part costs on a typical video; refuses to know what any of it is good for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape, prefill_flops
from pdrop_video.search.budget import SMALLEST, largest
from pdrop_video.stream.sight import Sight, left_of, look_flops

STEPS = 45
"""Of a typical short video."""
TEXT = 20
"""Tokens of a question."""
WHOLE = pv.Pyramid(stages=1)


@dataclass(frozen=True, slots=True)
class Way:
    """The way of a typical video through one model.

    Attributes
    ----------
    decoder : DecoderShape
    step : int
        FLOPs of the tower for one step.
    places : int
        Visual tokens of a step.
    whole : float
        FLOPs that shares are of; 0 for this way's own, where nothing is left out.
    """

    decoder: DecoderShape
    step: int
    places: int
    whole: float = 0.0

    @classmethod
    def of(cls, lm: pv.VideoLM, side: int = 224) -> Way:
        """Of frames of so many pixels down and across.

        Raises
        ------
        ConfigError
            If the family does not say what its tower costs.
        """
        down, across = lm.adapter.grid(side, side)
        tower = lm.adapter.tower(down, across)
        if tower is None:
            raise pv.ConfigError("the model's family does not say what its vision tower costs; take another one.")
        return cls(DecoderShape.of(lm.model.config.get_text_config()), tower.flops(), down * across)

    def through(self, lm: pv.VideoLM, part: Sight, side: int = 224) -> Way:
        """The way through a trained part that reaches into the tower; what it spends is a share of this one's whole.

        Parameters
        ----------
        lm : VideoLM
        part : Part
            Attached to the model.
        side : int
            As `of`'s.
        """
        size = lm.adapter.grid(side, side)
        step = look_flops(part, lm.adapter, size, 1)
        assert step is not None  # the families that such parts serve all say what their towers cost
        return replace(self, step=step, places=left_of(part, size, full=False), whole=self._all)

    @property
    def _all(self) -> float:
        return self.whole or self._flops(1.0, 1.0, WHOLE)

    def share(self, *, encoded: float = 1.0, keep: float = 1.0, pyramid: pv.Pyramid = WHOLE) -> float:
        """FLOPs of all that the way costs, of what it costs where nothing is left out.

        Parameters
        ----------
        encoded : float
            Share of the steps that a gate lets on.
        keep : float
            Share of their tokens that a reducer leaves.
        pyramid : Pyramid
        """
        return self._flops(encoded, keep, pyramid) / self._all

    def _flops(self, encoded: float, keep: float, pyramid: pv.Pyramid) -> float:
        schedule = pyramid.resolve(self.decoder.layers, self.decoder.rank_at)
        visual = round(STEPS * self.places * encoded * keep)
        return encoded * STEPS * self.step + prefill_flops(self.decoder, schedule, visual, TEXT)

    def keep(self, share: float, *, encoded: float = 1.0, pyramid: pv.Pyramid = WHOLE) -> float | None:
        """The share of tokens that a reducer may leave within a share of all FLOPs; None if none."""
        return _largest(lambda keep: self.share(encoded=encoded, keep=keep, pyramid=pyramid), share)

    def active(self, share: float, *, encoded: float = 1.0) -> float | None:
        """The share of visual rows that may get FFNs of their own, all of them attended to; None if none."""
        behind = self.decoder.behind or (3 * self.decoder.hidden * self.decoder.mlp,) * self.decoder.layers
        ffn = 2 * round(STEPS * self.places * encoded) * sum(behind) / self._all
        return _largest(lambda active: self.share(encoded=encoded) - (1 - active) * ffn, share)

    def schedule(
        self, share: float, make: Callable[[float], pv.Pyramid], *, encoded: float = 1.0, keep: float = 1.0
    ) -> pv.Pyramid | None:
        """The most expensive ``make(ratio)`` within a share of all FLOPs; None if none is."""
        ratio = _largest(lambda ratio: self.share(encoded=encoded, keep=keep, pyramid=make(ratio)), share)
        return None if ratio is None else make(ratio)


def _largest(cost: Callable[[float], float], most: float) -> float | None:
    """The largest number from `SMALLEST` to 1, to four digits, whose cost is no more than `most`."""
    found = largest(cost, most, SMALLEST)
    return None if found is None else max(SMALLEST, int(found * 1e4) / 1e4)
