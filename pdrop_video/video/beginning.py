"""How a source began: one that begins the very same way when it is opened again is a recording, and not live.

Knows pictures and their times. Refuses to know connections.
"""

from __future__ import annotations

from hashlib import blake2b

from av.video.frame import VideoFrame

from .picture import Upright

# Frames that are compared.
_COMPARED = 16


class Beginning:
    """The first frames of a source, as it was first opened.

    Parameters
    ----------
    upright : Upright
        What makes pictures of its frames.
    """

    def __init__(self, upright: Upright) -> None:
        self._upright = upright
        self._marks: list[tuple[int | None, bytes]] = []

    def note(self, number: int, frame: VideoFrame) -> None:
        """Remember a frame by its number, if it is one of the first."""
        if len(self._marks) == number < _COMPARED:
            self._marks.append(self._mark(frame))

    def same(self, number: int, frame: VideoFrame) -> bool:
        """Whether the frame with this number of a later opening is the one of the first, as far as is remembered."""
        return number >= len(self._marks) or self._mark(frame) == self._marks[number]

    @property
    def still(self) -> bool:
        """Whether one picture is all that was seen, as of a camera in the dark, which proves little."""
        return len({picture for _, picture in self._marks}) < 2

    def _mark(self, frame: VideoFrame) -> tuple[int | None, bytes]:
        picture = self._upright.convert(frame)
        return frame.pts, b"" if picture is None else blake2b(picture.tobytes()).digest()
