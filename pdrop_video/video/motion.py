"""`Motion`: what a video's codec says of what moved, from frame to frame handed out, and how it is gathered.

A decoder knows for every block of a predicted frame from where it was copied. FFmpeg exports these vectors for H.264
and the MPEG family before it, and none for HEVC, VP9 and AV1. Knows frames that are being decoded; refuses to know
which of them are wanted, and what becomes of the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

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
_TOGETHER = 16
"""Most frames whose vectors wait."""
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
        inf where a predicted frame had a block without a vector there: what it shows is new. A length is no speed,
        since encoders choose among several frames; and what appears is known with the next P-frame, for B-frames before
        it may be copied from there.
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


def largest(
    blocks: Sequence[NDArray[Any]], size: tuple[int, int], frames: int = 1, frame: NDArray[np.intp] | int = 0
) -> NDArray[np.float32]:
    """Of each cell of 8 x 8 pixels of each frame, the largest length of a vector whose block overlaps it.

    Parameters
    ----------
    blocks : six arrays [blocks]
        x and y of the upper left corner, width, height, and the vector's two parts, all in pixels.
    size : (height, width)
        Of a frame, in pixels; what of a block lies outside of it doesn't count.
    frames : int
        How many there are.
    frame : array [blocks]
        Of each block, the number of its frame.

    Returns
    -------
    numpy.ndarray [frames, rows, columns], float32
        inf where no block overlaps: what is there is new.
    """
    rows, columns = (-(-side // CELL) for side in size)
    x, y, width, height, across, down = blocks
    left, right = np.floor_divide(x, CELL).clip(0, columns), (-np.floor_divide(-x - width, CELL)).clip(0, columns)
    top, bottom = np.floor_divide(y, CELL).clip(0, rows), (-np.floor_divide(-y - height, CELL)).clip(0, rows)
    first, length = ((frame * rows + top) * columns + left).astype(np.intp), np.hypot(across, down).astype(np.float32)
    shape = ((bottom - top) * (columns + 1) + right - left).astype(np.intp)
    most, shapes = np.full(frames * rows * columns, -1, np.float32), np.bincount(shape)
    for sort in shapes.nonzero()[0]:  # a few: 2 x 2, 2 x 1, 1 x 2, 1 x 1
        each = slice(None) if shapes[sort] == len(first) else shape == sort
        begin, value = first[each], length[each]
        for row in range(sort // (columns + 1)):
            for column in range(sort % (columns + 1)):
                np.maximum.at(most, begin + (row * columns + column), value)
    most[most < 0] = np.inf
    return most.reshape(frames, rows, columns)


def evened(cells: NDArray[np.float32], size: tuple[int, int], grid: tuple[int, int]) -> NDArray[np.float32]:
    """From cells of 8 x 8 pixels to those of an even grid over the picture, which take the largest they overlap."""
    if size == (grid[0] * CELL, grid[1] * CELL):
        return cells
    for axis, (pixels, number) in enumerate(zip(size, grid, strict=True)):
        edges = np.arange(number + 1) * pixels  # in parts of a pixel
        first, last = edges[:-1] // (number * CELL), -(-edges[1:] // (number * CELL))
        runs = [cells.take(np.minimum(first + i, last - 1), axis) for i in range(int((last - first).max()))]
        cells = np.maximum.reduce(runs)
    return cells


class Gatherer:
    """Gathers what decoded frames say of motion until one is handed out; vectors of a few frames are taken in at once.

    Parameters
    ----------
    upright : Upright
        What turns the source's frames upright.
    stills : bool
        Whether each frame is coded as a picture of its own.
    """

    def __init__(self, upright: Upright, stills: bool) -> None:
        self._upright, self._stills = upright, stills
        self._type: np.dtype[Any] | None = None  # of FFmpeg's vectors, once there were any
        self._mark: object = None  # so that the first frame, before which nobody saw anything, tells of a loss
        self._size: tuple[int, int] = upright.size[::-1]
        self._waiting: list[NDArray[Any]] = []
        self._begin()

    def _begin(self) -> None:
        self._most: NDArray[np.float32] | None = None
        self._latest: NDArray[np.float32] | None = None
        self._key = self._begun = False
        self._known = True

    def see(self, frame: av.VideoFrame, mark: object) -> None:
        """Take in a decoded frame; each, in the order of presentation. Another `mark` says that some were lost."""
        lost, self._mark = mark != self._mark, mark
        self._known &= not (lost or self._stills)
        self._key = False
        if self._stills:
            return
        size = (frame.height, frame.width)
        if size != self._size:
            self._resize(size)
        found = side_data(frame, "MOTION_VECTORS")
        if found is not None:
            told = cast(MotionVectors, found).to_ndarray()
            self._type = told.dtype
            self._waiting.append(told.view(f"V{told.itemsize}").copy())  # it goes with the frame
        elif int(frame.pict_type) in _INTRA:
            self._settle()
            self._key = self._begun = True
            self._known, self._latest = False, None
        elif self._type is None:
            self._known = False
        else:
            self._waiting.append(np.empty(0, f"V{self._type.itemsize}"))  # without any vector all of it is new
        if len(self._waiting) == _TOGETHER:
            self._settle()

    def _settle(self) -> None:
        """Take in the vectors that wait."""
        if not self._waiting:
            return
        told, frames = np.concatenate(self._waiting).view(cast("np.dtype[Any]", self._type)), len(self._waiting)
        frame = np.repeat(np.arange(frames), [len(each) for each in self._waiting])
        self._waiting = []
        width, height = told["w"].astype(np.int32), told["h"].astype(np.int32)
        corner, scale = (told["dst_x"] - width // 2, told["dst_y"] - height // 2), np.maximum(told["motion_scale"], 1)
        blocks = [*corner, width, height, told["motion_x"] / scale, told["motion_y"] / scale]
        moved = largest(blocks, self._size, frames, frame).max(0)
        self._most = moved if self._most is None else np.maximum(self._most, moved)
        self._latest = moved if self._latest is None else np.maximum(self._latest, moved)

    def _resize(self, size: tuple[int, int]) -> None:
        """Go on with frames of another size: what was gathered stays at its place in the picture."""
        self._settle()
        cells = (-(-size[0] // CELL), -(-size[1] // CELL))
        self._most, self._latest = (
            None if before is None else evened(before, self._size, cells) for before in (self._most, self._latest)
        )
        self._size = size

    def take(self) -> Motion:
        """All of it, for the frame that was seen last, which is handed out; what comes is gathered anew."""
        self._settle()
        most = self._standing(self._most)
        latest = self._standing(self._latest) if self._begun else most
        motion = Motion(most, latest, *(torch.tensor([flag]) for flag in (self._key, self._begun, self._known)))
        self._begin()
        return motion

    def _standing(self, cells: NDArray[np.float32] | None) -> Tensor:
        """What was gathered, on the upright picture's grid [1, rows, columns]."""
        width, height = self._upright.size
        grid, turned = (-(-height // CELL), -(-width // CELL)), self._upright.orientation
        if cells is None:
            return torch.zeros(1, *grid)
        stored = evened(cells, self._size, grid[::-1] if turned.turns % 2 else grid)
        return torch.from_numpy(np.ascontiguousarray(turned.upright(stored)))[None]
