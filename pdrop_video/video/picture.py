"""From a decoded frame to an upright RGB picture.

This module knows pixel formats, colour tags and display matrices, and nothing of time or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar, cast

import av
import numpy as np
from av.buffer import Buffer
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from .forked import keep_when_forked

Number = TypeVar("Number", bound=np.generic)

_ITU601 = 5
# Colour matrices that the scaler knows under the same numbers as the H.273 tags that frames carry.
_SCALER_KNOWS = frozenset({1, 4, 5, 7, 9})


@dataclass(frozen=True, slots=True)
class Orientation:
    """How stored pictures must be turned to stand upright.

    Attributes
    ----------
    turns : int
        Quarter turns counter-clockwise (as in `numpy.rot90`), 0 to 3.
    mirrored : bool
        Whether left and right are swapped after turning.
    """

    turns: int = 0
    mirrored: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Orientation | None:
        """Read the frame's display matrix, which also the EXIF data of a photo becomes; None if it has none.

        The matrix sends the stored point (x, y), y pointing down, to (a x + c y, b x + d y). The angle alone, as
        `frame.rotation` gives it, cannot tell a mirrored picture from one turned by 180 degrees.
        """
        matrix = _display_matrix(frame)
        if matrix is None:
            return cls(round(frame.rotation / 90) % 4) if frame.rotation else None
        a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].tolist()
        mirrored = a * d - b * c < 0
        if mirrored:
            a = -a
        if abs(a) >= abs(b):
            return cls(2 if a < 0 else 0, mirrored)
        return cls(1 if b < 0 else 3, mirrored)

    def upright(self, picture: NDArray[Number]) -> NDArray[Number]:
        """Turn a picture `[height, width, ...]`; a view, nothing is copied."""
        picture = np.rot90(picture, self.turns)
        return picture[:, ::-1] if self.mirrored else picture


class Upright:
    """Turns frames of one source upright and keeps them at the size of its first.

    Parameters
    ----------
    first : av.VideoFrame
        Its first frame.
    stills : bool
        Whether each frame is a picture of its own (as in MJPEG, or photos), which is stored upright if it does not say
        otherwise. Frames of other videos then stand as the one before.

    Attributes
    ----------
    orientation : Orientation
        How stored pictures are turned; that of the first frame to begin with.
    size : tuple of int and int
        Width and height of the pictures in pixels, after turning.
    resized : bool
        Whether any frame so far had another size than the first.
    """

    def __init__(self, first: av.VideoFrame, stills: bool = False) -> None:
        self.orientation = Orientation.of(first) or Orientation()
        self.resized = False
        self._stills = stills
        self._reformatter = VideoReformatter()  # one for all, since each has threads of its own
        keep_when_forked(self)
        across = self.orientation.turns % 2
        self.size = (first.height, first.width) if across else (first.width, first.height)

    def convert(self, frame: av.VideoFrame) -> NDArray[np.uint8] | None:
        """Give the picture `[height, width, 3]`, or None if its pixel format cannot be converted."""
        self.orientation = Orientation.of(frame) or (Orientation() if self._stills else self.orientation)
        stored = self.size[::-1] if self.orientation.turns % 2 else self.size
        self.resized = self.resized or (frame.width, frame.height) != stored
        try:
            return self.orientation.upright(to_rgb(frame, *stored, self._reformatter))
        except av.FFmpegError:
            return None

    def warnings(self) -> list[str]:
        """Say what was changed, in one plain sentence."""
        width, height = self.size
        return [f"the resolution changes on the way; frames are scaled to {width} x {height}"] * self.resized


def _display_matrix(frame: av.VideoFrame) -> bytes | None:
    data = side_data(frame, "DISPLAYMATRIX")
    return None if data is None else bytes(data)


def side_data(frame: av.VideoFrame, name: str) -> Buffer | None:
    """What a frame carries beside its picture under a name; None if nothing. It lasts as long as the frame."""
    try:
        return cast("Mapping[str, Buffer]", frame.side_data).get(name)
    except ValueError:
        # PyAV's table of side data lags behind FFmpeg's, and what it does not name ends the listing. What came before
        # is in the container that was being filled; FFmpeg puts the matrix before the EXIF data it is read from.
        listed = SideDataContainer.__new__(SideDataContainer)
        with suppress(ValueError):
            listed.__init__(frame)  # type: ignore[misc]
        for place in range(len(listed)):
            with suppress(ValueError):
                if listed[place].type.name == name:
                    return cast(Buffer, listed[place])
        return None


def to_rgb(frame: av.VideoFrame, width: int, height: int, reformatter: VideoReformatter) -> NDArray[np.uint8]:
    """Convert any pixel format (10 bits, grey, palette, ...) to RGB, scaled to `width` x `height` if need be.

    Parameters
    ----------
    frame : av.VideoFrame
        A decoded frame.
    width, height : int
        Size of the result in pixels, as stored, that is before turning.
    reformatter : VideoReformatter
        What converts it, for one frame after the other.

    Returns
    -------
    numpy.ndarray
        uint8, `[height, width, 3]`. The frame's own colour matrix and range are used; a frame without tags is taken for
        ITU-R BT.601, limited range, as scalers commonly do.

    Raises
    ------
    av.FFmpegError
        If the pixel format cannot be converted.
    """
    # Given explicitly: PyAV 15 ignores the frame's own tags, which shifts the colours of every BT.709 video.
    matrix = 9 if frame.colorspace == 10 else frame.colorspace if frame.colorspace in _SCALER_KNOWS else _ITU601
    rgb = reformatter.reformat(
        frame,
        width=width,
        height=height,
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=_ITU601,
        src_color_range=int(frame.color_range),
    )
    return np.asarray(rgb.to_ndarray(), dtype=np.uint8)
