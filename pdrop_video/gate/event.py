"""Event: frames go on where an event camera would have fired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import real, share, switch
from ..registry import Facts
from .base import Gated, Watched

_SIDE = 336
"""Most pixels remembered along each side of the picture."""
_GRID = 4096
"""Steps of log intensity in 1: whole numbers of them add up to the same on every machine."""
_FINE = 16
"""Steps of a mean level in 1."""
_LUMA = (77.0, 150.0, 29.0)
"""Red, green and blue in a level of luma, in 256ths."""
_MOST = 2**14
"""Most events that a pixel counts between two keyframes."""


def fired(level: Tensor, reference: Tensor, theta: float, dark: float = -torch.inf) -> tuple[Tensor, Tensor]:
    """How many events each pixel fires, and the level that it remembers from then on.

    Parameters
    ----------
    level, reference : Tensor [...]
        Log intensity now, and as it was when the pixel fired last, both of one type, whole or floating.
    theta : float
        Change of log intensity that is one event.
    dark : float
        Pixels below it in both fire nothing.
    """
    change = level - reference
    count = change.abs() // theta
    count = count.masked_fill((level < dark) & (reference < dark), 0)
    return count, reference + change.sign() * count * theta


@dataclass(frozen=True, slots=True)
class Event:
    """Keyframes where motion is informative, as EventPrune (ECP, arXiv 2605.19506) samples them causally.

    Inferred throughout, from the paper's abstract and from what an event camera is: no code and no formula is public.
    There are no real events, so they are simulated: each pixel remembers the log intensity at which it fired last, and
    fires one event for each `theta` that it is away from it, L = log(luma + 1); what it remembers follows by what it
    fired. So a slow change adds up until it counts. A frame is a keyframe where at least a share `kappa` of the pixels
    fired since the last keyframe, or where `max_gap` seconds passed; so is the first. The events since the last
    keyframe, as means over the pixels of each visual token, are handed on as `Gated.saliency`, to the reducer
    ``event_saliency`` and the scorer ``event_fusion``. With a moving camera everything fires, and the gate lets
    everything through.

    Ours: pixels are means over blocks, so that no side has more than 336 of them; levels are rounded to 1/4096 and
    `theta` with them, luma is that of 8-bit arithmetic, so that nothing depends on a machine's rounding; of the first
    frame everything is new, which counts as one event at each pixel; a frame that is no keyframe shows the events so
    far, should it complete a step of two.

    A stream carries what each pixel remembers, its events, the time of the last keyframe and the size of the picture:
    4 bytes for each of at most 336 x 336 pixels, and 24. What is decided does not depend on where chunks begin and end.

    Parameters
    ----------
    theta : float
        Change of log intensity that is one event; .2 is a rise by 22 % or a fall by 18 %.
    kappa : float
        Share of the pixels that must have fired.
    max_gap : float
        Seconds after which a frame goes on in any case.
    dark : float
        Levels of 255 below which a pixel's changes are noise.
    centred : bool
        Subtract the median change of a frame's pixels first, so that flicker and automatic exposure, which change all
        alike, fire nothing. What takes up more than half of the picture then counts as still.

    Raises
    ------
    ConfigError
        If a threshold is out of its range.
    """

    facts: ClassVar[Facts] = Facts(
        says="frames in which enough pixels changed in brightness since the last keyframe",
        paper="EventPrune, arXiv 2605.19506",
        formula=(
            "L = log(luma + 1); events = floor(|L - L0| / theta), then L0 moves by events * theta towards L\n"
            "a frame goes on if the share of pixels with an event since the last keyframe >= kappa, or after\n"
            "    max_gap seconds"
        ),
        ours=True,
        carries="log intensity and events of at most 336 x 336 pixels",
    )
    theta: float = 0.2
    kappa: float = 0.02
    max_gap: float = 2.0
    dark: float = 8.0
    centred: bool = False

    def __post_init__(self) -> None:
        """Check the thresholds."""
        object.__setattr__(self, "theta", real("theta", self.theta, 0.01, 5))
        object.__setattr__(self, "kappa", share("kappa", self.kappa))
        object.__setattr__(self, "max_gap", real("max_gap", self.max_gap, 0, above=True))
        object.__setattr__(self, "dark", real("dark", self.dark, 0, 255))
        switch("centred", self.centred)

    @torch.no_grad()
    def __call__(self, watched: Watched, carried: Mapping[str, Tensor]) -> tuple[Gated, dict[str, Tensor]]:
        """Frame by frame; what a keyframe has seen is counted no more."""
        size = torch.tensor(watched.frames.shape[1:3])
        device = watched.frames.device
        reference = events = None
        last = 0.0
        if "reference" in carried and torch.equal(carried["size"].cpu(), size):
            reference, events = carried["reference"].to(device), carried["events"].to(device)
            last = float(carried["last"])
        theta, dark = (round(_GRID * each) for each in (self.theta, _log(self.dark)))
        kept, maps = [], []
        for number, frame in enumerate(watched.frames):
            level = _level(frame)
            if reference is None or events is None:
                reference, events, key = level, torch.ones_like(level), True
            else:
                # a shift of what is remembered, not of the level: what is dark is dark as it is
                shift = (level - reference).flatten().median() if self.centred else 0
                count, shifted = fired(level, reference + shift, theta, dark)
                reference, events = shifted - shift, (events + count).clamp_(max=_MOST)
                # the host must know whether to encode
                key = watched.seconds[number] - last >= self.max_gap or self._enough(events)
            maps.append(watched.cells(events[None].float()))
            if key:
                kept.append(number)
                events, last = torch.zeros_like(events), watched.seconds[number]
        assert reference is not None
        assert events is not None
        moment = torch.tensor(last, dtype=torch.float64)
        carry = {"reference": reference, "events": events, "last": moment, "size": size}
        return Gated(tuple(kept), saliency=torch.cat(maps)), carry

    def _enough(self, events: Tensor) -> bool:
        return int(events.count_nonzero()) >= self.kappa * events.numel()

    def most_bytes(self, height: int, width: int) -> int:
        """Two maps of 16-bit numbers, a time and a size."""
        return 4 * min(height, _SIDE) * min(width, _SIDE) + 24

    def flops(self, frames: int, height: int, width: int) -> int:
        """The luma of every pixel."""
        return 6 * frames * height * width


def _log(level: float) -> float:
    return float(torch.tensor(level, dtype=torch.float64).log1p())


def _level(frame: Tensor) -> Tensor:
    """log(luma + 1) of a picture [height, width, 3] in steps of 1 / 4096 [rows, columns], int16, made smaller."""
    # whole numbers and sums of them, which float32 has exactly
    luma = frame.float() @ torch.tensor(_LUMA, device=frame.device)
    block = [-(-side // _SIDE) for side in luma.shape]
    if max(block) > 1:
        luma = F.avg_pool2d(luma[None, None], block, ceil_mode=True)[0, 0]
    table = torch.arange(255 * _FINE + 1, dtype=torch.float64).div_(_FINE).log1p_().mul_(_GRID).round_()
    which = (luma * (_FINE / 256)).round_().int()
    return table.to(torch.int16).to(frame.device).index_select(0, which.flatten()).view(luma.shape)
