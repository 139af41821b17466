"""From a decoded frame to an upright RGB picture.

This module knows pixel formats, colour tags and display matrices, and nothing of time or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av.buffer import Buffer
from numpy.typing import NDArray

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
    def of(cls, frame: av.VideoFrame) -> Orientation:
        """Read the frame's display matrix; without one, pictures are stored upright.

        The matrix sends the stored point (x, y), y pointing down, to (a x + c y, b x + d y). The angle alone, as
        `frame.rotation` gives it, cannot tell a mirrored picture from one turned by 180 degrees.
        """
        side_data = cast("Mapping[str, Buffer]", frame.side_data).get("DISPLAYMATRIX")
        if side_data is None:
            return cls()
        a, b, _, c, d = np.frombuffer(bytes(side_data), dtype=np.int32)[:5].tolist()
        mirrored = a * d - b * c < 0
        if mirrored:
            a = -a
        if abs(a) >= abs(b):
            return cls(2 if a < 0 else 0, mirrored)
        return cls(1 if b < 0 else 3, mirrored)

    def upright(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a picture `[height, width, 3]`; a view, nothing is copied."""
        picture = np.rot90(picture, self.turns)
        return picture[:, ::-1] if self.mirrored else picture


class Upright:
    """Turns frames of one source upright and keeps them at the size of its first.

    Parameters
    ----------
    first : av.VideoFrame
        Its first frame.

    Attributes
    ----------
    orientation : Orientation
        How stored pictures are turned.
    resized : bool
        Whether any frame so far had another size than the first.
    """

    def __init__(self, first: av.VideoFrame) -> None:
        self.orientation = Orientation.of(first)
        self.resized = False
        self._stored = (first.width, first.height)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures in pixels, after turning."""
        return self._stored if self.orientation.turns % 2 == 0 else self._stored[::-1]

    def convert(self, frame: av.VideoFrame) -> NDArray[np.uint8] | None:
        """Give the picture `[height, width, 3]`, or None if its pixel format cannot be converted."""
        self.resized = self.resized or (frame.width, frame.height) != self._stored
        try:
            return self.orientation.upright(to_rgb(frame, *self._stored))
        except av.FFmpegError:
            return None

    def warnings(self) -> list[str]:
        """Say what was changed, in one plain sentence."""
        width, height = self._stored
        return [f"the resolution changes on the way; frames are scaled to {width} x {height}"] * self.resized


def to_rgb(frame: av.VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
    """Convert any pixel format (10 bits, grey, palette, ...) to RGB, scaled to `width` x `height` if need be.

    Parameters
    ----------
    frame : av.VideoFrame
        A decoded frame.
    width, height : int
        Size of the result in pixels, as stored, that is before turning.

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
    rgb = frame.reformat(
        width=width,
        height=height,
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=_ITU601,
        src_color_range=int(frame.color_range),
    )
    return np.asarray(rgb.to_ndarray(), dtype=np.uint8)
