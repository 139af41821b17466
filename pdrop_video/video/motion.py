"""`Motion`: what a video's codec says of what moved, from frame to frame handed out, and how it is gathered.

A decoder knows for every block of a predicted frame from where it was copied. FFmpeg exports these vectors for H.264
and the MPEG family before it, and none for HEVC, VP9 and AV1. Knows frames that are being decoded; refuses to know
which of them are wanted, and what becomes of the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import cast

import av
import numpy as np
import torch
from av.sidedata.motionvectors import MotionVectors
from numpy.typing import NDArray
from torch import Tensor

from ..common.checks import shown
from ..errors import FrameError
from .picture import Upright, side_data

CELL = 8
"""Pixels of a cell's side: the smallest block whose vector FFmpeg exports."""
# FFmpeg's numbers of pictures that are coded without any other: I, SI and BI.
_INTRA = frozenset({1, 5, 7})


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """What the codec says of each frame of a chunk, over all that was decoded since the frame handed out before it.

    Places are cells of an even grid over the upright picture, 8 x 8 pixels each where 8 divides the picture's sides.

    Attributes
    ----------
    most : Tensor [frames, rows, columns], float32
        The largest length of a motion vector that touched the cell, in pixels of the stored video, over every frame
        decoded since the frame handed out before this one, itself included; 0 where nothing moved or nothing is known;
        inf where a predicted frame had a block without a vector there, which shows something new. Encoders choose among
        several older frames, so a length is no speed.
    latest : Tensor [frames, rows, columns], float32
        The same since the latest I-frame; what ``most`` is where there was none in between.
    key : Tensor [frames], bool
        Whether this very frame is an I-frame. Never where every frame is one, as in MJPEG: that says nothing.
    begun : Tensor [frames], bool
        Whether a group of pictures began since the frame handed out before: whether any decoded frame since, this one
        included, is an I-frame.
    known : Tensor [frames], bool
        Whether vectors told of all that happened since: False for a stream's first frame, of codecs that export none,
        where an I-frame came in between, and where frames were lost or passed over without being decoded.

    Raises
    ------
    FrameError
        If a tensor has another type, or their shapes do not fit each other.
    """

    most: Tensor
    latest: Tensor
    key: Tensor
    begun: Tensor
    known: Tensor

    def __post_init__(self) -> None:
        """Check types and shapes."""
        grids, flags = (self.most, self.latest), (self.key, self.begun, self.known)
        if not all(isinstance(each, Tensor) for each in (*grids, *flags)):
            raise FrameError("motion holds something that is no tensor; expected five, as Motion describes them.")
        shape = tuple(self.most.shape)
        good = len(shape) == 3 and min(shape) > 0 and all(each.shape == self.most.shape for each in grids)
        good = good and all(each.shape == self.most.shape[:1] for each in flags)
        if not good or any(e.dtype != torch.float32 for e in grids) or any(e.dtype != torch.bool for e in flags):
            said = [f"{field.name} {shown(_sort(getattr(self, field.name)))}" for field in fields(self)]
            raise FrameError(
                f"motion has {', '.join(said)}; expected most and latest of float32 [frames, rows, columns], key, "
                "begun and known of bool [frames]."
            )

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.most)

    @classmethod
    def cat(cls, parts: Sequence[Motion]) -> Motion:
        """Frames one after the other."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def part(self, first: int, last: int) -> Motion:
        """Some of the frames, without a copy."""
        return Motion(*(getattr(self, field.name)[first:last] for field in fields(self)))

    def clone(self) -> Motion:
        """The same with storage of its own."""
        return Motion(*(getattr(self, field.name).clone() for field in fields(self)))

    def after(self, gone: Motion) -> Motion:
        """The same where the frames before, whose motion is `gone`, were dropped: the first frame now says it all."""
        heir = self.clone()
        if gone.most.shape[1:] != heir.most.shape[1:]:  # a picture of another size
            heir.known[0] = False
            return heir
        latest = gone.latest[0]
        for number in range(1, len(gone)):
            latest = torch.where(gone.begun[number], gone.latest[number], latest.maximum(gone.latest[number]))
        heir.latest[0] = torch.where(heir.begun[0], heir.latest[0], heir.latest[0].maximum(latest))
        heir.most[0] = heir.most[0].maximum(gone.most.amax(0))
        heir.begun[0] |= gone.begun.any()
        heir.known[0] &= gone.known.all()
        return heir


def _sort(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def largest(blocks: NDArray[np.floating], size: tuple[int, int], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Of each cell of an even grid over a picture, the largest length of a vector whose block overlaps it.

    Parameters
    ----------
    blocks : numpy.ndarray [blocks, 6]
        x and y of the upper left corner, width, height, and the vector's two parts, all in pixels.
    size : (height, width)
        Of the picture, in pixels; what of a block lies outside of it doesn't count.
    grid : (rows, columns)

    Returns
    -------
    numpy.ndarray [rows, columns], float32
        -1 where no block overlaps.
    """
    most = np.full(grid[0] * grid[1], -1, np.float32)
    x, y, width, height, across, down = np.asarray(blocks, np.float64).reshape(-1, 6).T
    top, bottom = _cells(y, y + height, size[0], grid[0])
    left, right = _cells(x, x + width, size[1], grid[1])
    seen = (top < bottom) & (left < right)
    if not seen.any():
        return most.reshape(grid)
    top, bottom, left, right = top[seen], bottom[seen], left[seen], right[seen]
    length = np.hypot(across[seen], down[seen]).astype(np.float32)
    for row in range(int((bottom - top).max())):
        for column in range(int((right - left).max())):
            within = (top + row < bottom) & (left + column < right)
            places = (top + row) * grid[1] + left + column
            np.maximum.at(most, places[within], length[within])
    return most.reshape(grid)


def _cells(
    begin: NDArray[np.floating], end: NDArray[np.floating], pixels: int, cells: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """From the first cell that an interval of pixels touches to the one behind the last."""
    first = np.floor(begin.clip(0, pixels) * cells / pixels).astype(np.intp)
    last = np.ceil(end.clip(0, pixels) * cells / pixels).astype(np.intp)
    return first, last


class Gatherer:
    """Gathers what decoded frames say of motion until one is handed out.

    Parameters
    ----------
    upright : Upright
        What turns the source's frames upright.
    stills : bool
        Whether each frame is coded as a picture of its own.
    """

    def __init__(self, upright: Upright, stills: bool) -> None:
        self._upright, self._stills = upright, stills
        width, height = upright.size
        self._grid = (-(-height // CELL), -(-width // CELL))
        self._exports = False
        self._mark: object = None  # so that the first frame, before which nobody saw anything, tells of a loss
        self._begin()

    def _begin(self) -> None:
        self._most, self._latest = np.zeros(self._grid, np.float32), np.zeros(self._grid, np.float32)
        self._key = self._begun = False
        self._known = True

    def see(self, frame: av.VideoFrame, mark: object) -> None:
        """Take in a decoded frame; each, in the order of presentation. Another `mark` says that some were lost."""
        lost, self._mark = mark != self._mark, mark
        self._known &= not (lost or self._stills)
        self._key = False
        if self._stills:
            return
        blocks = _blocks(frame)
        if blocks is None and int(frame.pict_type) in _INTRA:
            self._key = self._begun = True
            self._known = False
            self._latest = np.zeros(self._grid, np.float32)
            return
        if blocks is None and not self._exports:
            self._known = False
            return
        self._exports = True
        turned = self._upright.standing(frame)
        grid = self._grid[::-1] if turned.turns % 2 else self._grid
        blocks = np.empty((0, 6)) if blocks is None else blocks  # all of it is new
        stored = largest(blocks, (frame.height, frame.width), grid)
        moved = turned.upright(np.where(stored < 0, np.float32(np.inf), stored))
        self._most = np.maximum(self._most, moved)
        self._latest = np.maximum(self._latest, moved)

    def take(self) -> Motion:
        """All of it, for the frame that was seen last, which is handed out; what comes is gathered anew."""
        flags = (torch.tensor([flag]) for flag in (self._key, self._begun, self._known))
        motion = Motion(torch.from_numpy(self._most)[None], torch.from_numpy(self._latest)[None], *flags)
        self._begin()
        return motion


def _blocks(frame: av.VideoFrame) -> NDArray[np.float64] | None:
    """The blocks of a frame, as `largest` takes them; None if it carries no vectors."""
    found = side_data(frame, "MOTION_VECTORS")
    if found is None:
        return None
    told = cast(MotionVectors, found).to_ndarray()
    width, height, scale = told["w"], told["h"], np.maximum(told["motion_scale"], 1)
    x, y = told["dst_x"] - width / 2.0, told["dst_y"] - height / 2.0
    return np.stack([x, y, width, height, told["motion_x"] / scale, told["motion_y"] / scale], 1)
