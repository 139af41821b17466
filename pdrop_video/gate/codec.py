"""Codec: only what the video's own codec says moved, or what pixels say changed, is encoded again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import real, share, switch, whole
from ..registry import Facts
from .base import Gated, Watched

_MICROSECONDS = 10**6
_ROUNDING = 1000
"""Microseconds by which times may be off: some containers round them to whole milliseconds."""
_LUMA = (38, 75, 15)
"""Red, green and blue in 128ths of the luma of ITU-R BT.601, which 16 bits hold."""


@dataclass(frozen=True, slots=True)
class Codec:
    """Leaves out of every frame what neither moved by the codec's vectors nor changed by its pixels.

    A patch of a frame is dynamic if the largest motion vector of any block that overlaps it, over *every* frame decoded
    since the frame before, is at least ``tau`` long, if a block there had none (something new is shown), or if its luma
    differs from the luma last encoded there. A visual token, which shows ``group`` x ``group`` patches, is worth having
    if any of them is dynamic; a model that merges two frames encodes a place if either is. Frames that are I-frames are
    encoded whole. With ``sticky``, a place that a vector made dynamic stays so up to the next I-frame. What is not
    worth having gives no token at all, and a frame with nothing is left out.

    The rules of CodecSight (arXiv 2604.06036) are: vectors and ``tau`` (whose value was not found), no residuals,
    stickiness, completed groups, whole I-frames, no token for what is skipped. Ours are: the maximum over blocks that
    overlap a patch; vectors of frames that were never sampled; blocks without a vector count as dynamic; the test of
    pixels, beside the vectors and in place of those that a codec does not give, since a slow change in place has none;
    ``max_age``; whole frames on scene cuts; and all values of the parameters.

    Stickiness and what was encoded are two things. A place that changed is encoded with the next frame that comes
    here, and its reference is reset *on that*, never by an I-frame: one between two sampled frames does not hide what
    moved before it (`Motion.most` reaches over it). Such an I-frame ends the stickiness of its group of pictures all
    the same (`Motion.latest` tells what moved since). So ``sticky=True`` is the paper's rule wherever all frames are
    watched, and ``sticky=False`` encodes a place once a change. What pixels alone found does not stick: it is found
    again while it lasts.

    Without motion (arrays, or readers that were not asked for it) and with codecs that export no vectors, as HEVC, VP9
    and AV1, pixels decide alone; an I-frame is known of the latter all the same.

    Carried: of each pixel the luma, and of each place the time, that were encoded last there, and whether it sticks:
    less than one frame in RGB and 64 KiB. What is decided of a frame does not depend on where pushes begin and end.

    Parameters
    ----------
    tau : float
        Pixels of the stored video from which a vector counts as motion.
    pixels : float
        Mean absolute difference of a patch's luma from what was encoded there last, from which it changed; in levels
        of 255.
    max_age : float
        Seconds after which a place is encoded again, whatever it shows.
    group : int
        Patches along each side of a visual token.
    cut : float
        Share of a frame's patches; where more are dynamic, it is a scene cut, and encoded whole.
    sticky : bool
        Whether a place that moved stays dynamic up to the next I-frame.

    Raises
    ------
    ConfigError
        If a parameter is out of its range.
    """

    uses_motion: ClassVar[bool] = True
    facts: ClassVar[Facts] = Facts(
        says="places where the codec's vectors or the pixels say that something changed",
        paper="CodecSight, arXiv 2604.06036",
        formula=(
            "a patch changed if |motion vector| >= tau in any frame since the last one, if it has no vector\n"
            "    there, or if mean |Y - Y when last encoded| >= pixels\n"
            "a token's place is encoded if any of its group x group patches changed, or after max_age seconds\n"
            "a frame is encoded whole if it is an I-frame, or if more than the share cut of its patches changed"
        ),
        ours=True,
        carries="luma, and the time of each place, last encoded",
    )
    tau: float = 1.0
    pixels: float = 8.0
    max_age: float = 8.0
    group: int = 2
    cut: float = 0.6
    sticky: bool = True

    def __post_init__(self) -> None:
        """Check the parameters."""
        for name, least, most in (("tau", 0, 65536), ("pixels", 0, 255), ("max_age", 0, 10**6)):
            object.__setattr__(self, name, real(name, getattr(self, name), least, most, above=True))
        object.__setattr__(self, "group", whole("group", self.group, 1, 16))
        object.__setattr__(self, "cut", share("cut", self.cut))
        switch("sticky", self.sticky)

    @torch.no_grad()
    def __call__(self, watched: Watched, carried: Mapping[str, Tensor]) -> tuple[Gated, dict[str, Tensor]]:
        """Frame by frame; each place that is encoded is what the next are compared with."""
        device, motion = watched.frames.device, watched.motion
        layout = _Layout.of(watched, self.group)
        known = {name: tensor.to(device) for name, tensor in carried.items()}
        if not known or known["luma"].shape != layout.canvas or known["since"].shape != watched.grid:
            known = {}  # of another size, so another picture
        sticks = known.get("sticks", torch.zeros(watched.grid, dtype=torch.bool, device=device))
        luma, since = known.get("luma"), known.get("since")
        moved = lately = key = begun = None
        if motion is not None:
            moved, lately = (self._moving(cells.to(device), layout) for cells in (motion.most, motion.latest))
            key, begun = motion.key.to(device), motion.begun.to(device)
        most, worth = int(self.cut * layout.count + 1e-6), []
        for number, seconds in enumerate(watched.seconds):
            now, picture = round(seconds * _MICROSECONDS), layout.luma(watched.frames[number])
            if moved is None or lately is None or begun is None:
                sticks = torch.zeros_like(sticks)  # no group of pictures is known of
            else:
                lasting = torch.where(begun[number], False, sticks)
                sticks = lasting | layout.tokens(lately[number])
            if luma is None or since is None:
                wanted = torch.ones_like(sticks)
                luma, since = picture, torch.full(watched.grid, now, dtype=torch.int64, device=device)
            else:
                dynamic = layout.sums(picture, luma) >= self.pixels * layout.pixels
                dynamic = dynamic if moved is None else dynamic | moved[number]
                entirely = dynamic.sum() > most
                entirely = entirely if key is None else entirely | key[number]
                stale = now - since >= round(self.max_age * _MICROSECONDS) - _ROUNDING
                wanted = layout.tokens(dynamic) | stale | entirely
                wanted = wanted | sticks if self.sticky else wanted
                luma = torch.where(layout.spread(wanted), picture, luma)
                since = torch.where(wanted, now, since)
            worth.append(wanted)
        assert luma is not None
        assert since is not None
        shown = torch.stack(worth)
        kept = shown.flatten(1).any(1).nonzero()[:, 0].tolist()  # the host must know what to encode
        return Gated(tuple(kept), shown), {"luma": luma.clone(), "since": since.clone(), "sticks": sticks.clone()}

    def _moving(self, cells: Tensor, layout: _Layout) -> Tensor:
        """Patches [frames, rows, columns] of which a vector is long enough."""
        return F.adaptive_max_pool2d(cells[:, None], layout.patches)[:, 0] >= self.tau

    def most_bytes(self, height: int, width: int) -> int:
        """One frame, and 64 KiB for small pictures that models enlarge."""
        return 3 * height * width + 2**16

    def flops(self, frames: int, height: int, width: int) -> int:
        """The luma: three products and sums a pixel. All else compares and adds."""
        return 6 * frames * height * width


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """Which pixels each patch and each visual token shows; each pixel belongs to one of either.

    Attributes
    ----------
    grid, patches, canvas : (rows, columns)
        Of visual tokens, of patches, and of pixels. A picture of fewer pixels than patches is enlarged.
    row, column : Tensor [canvas rows], [canvas columns]
        Of each pixel, the row or column of its patch.
    pixels : Tensor [patch rows, patch columns], int32
        How many each patch has.
    """

    grid: tuple[int, int]
    patches: tuple[int, int]
    canvas: tuple[int, int]
    row: Tensor
    column: Tensor
    pixels: Tensor

    @classmethod
    def of(cls, watched: Watched, group: int) -> _Layout:
        """For frames of this size."""
        patches = (watched.grid[0] * group, watched.grid[1] * group)
        canvas = (max(watched.frames.shape[1], patches[0]), max(watched.frames.shape[2], patches[1]))
        row, column = (
            torch.arange(side, device=watched.frames.device) * number // side
            for side, number in zip(canvas, patches, strict=True)
        )
        tall, wide = torch.bincount(row, minlength=patches[0]), torch.bincount(column, minlength=patches[1])
        return cls(watched.grid, patches, canvas, row, column, (tall[:, None] * wide).int())

    @property
    def count(self) -> int:
        """How many patches there are."""
        return self.patches[0] * self.patches[1]

    def luma(self, frame: Tensor) -> Tensor:
        """Luma [rows, columns] of the canvas, uint8, of a frame [height, width, 3]."""
        red, green, blue = (part * weight for part, weight in zip(frame.to(torch.int16).unbind(-1), _LUMA, strict=True))
        luma = ((red + green + blue + 64) >> 7).to(torch.uint8)
        if luma.shape == self.canvas:
            return luma
        (height, width), (rows, columns) = luma.shape, self.canvas
        down, across = torch.arange(rows) * height // rows, torch.arange(columns) * width // columns
        return luma[down.to(luma.device)[:, None], across.to(luma.device)]

    def sums(self, first: Tensor, second: Tensor) -> Tensor:
        """Absolute differences of two canvases, summed over each patch: whole numbers, the same on every machine."""
        apart = (first.to(torch.int16) - second).abs().int()
        rows = apart.new_zeros(self.patches[0], self.canvas[1]).index_add_(0, self.row, apart)
        return rows.new_zeros(self.patches).index_add_(1, self.column, rows)

    def tokens(self, patches: Tensor) -> Tensor:
        """Which visual tokens show any of these patches."""
        down, across = (number // of for number, of in zip(self.patches, self.grid, strict=True))
        return patches.reshape(self.grid[0], down, self.grid[1], across).any(3).any(1)

    def spread(self, tokens: Tensor) -> Tensor:
        """Which pixels of the canvas these visual tokens show."""
        down, across = (number // of for number, of in zip(self.patches, self.grid, strict=True))
        return tokens[self.row // down][:, self.column // across]
