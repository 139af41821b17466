"""What a reader draws from: the common face of files, of live sources and of other decoders. It holds no logic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .motion import Motion
from .source import VideoInfo


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture to hand out.

    Attributes
    ----------
    picture : numpy.ndarray or Tensor
        RGB, upright, uint8, `[height, width, 3]`; a tensor where a card decoded it and it stays there.
    time : Fraction
        Seconds from the start of the video.
    lost : int
        What could not be delivered intact up to here.
    motion : Motion or None
        Of this one frame, what the codec says; None if nobody asked.
    """

    picture: NDArray[np.uint8] | Tensor
    time: Fraction
    lost: int
    motion: Motion | None = None

    def after(self, gone: Shot) -> Shot:
        """The same where the picture before it was dropped: what the codec said of that one is said of this one."""
        if self.motion is None or gone.motion is None:
            return self
        return replace(self, motion=self.motion.after(gone.motion))


class Drawn(Protocol):
    """What a reader draws frames from: a file, a live source, or another decoder."""

    info: VideoInfo
    reconnects: int
    connected: bool

    @property
    def silence(self) -> float:
        """Seconds for which a live source has given no frame."""

    @property
    def frames_decoded(self) -> int:
        """Frames decoded so far."""

    @property
    def lost(self) -> int:
        """Packets and frames that could not be delivered intact so far."""

    @property
    def warnings(self) -> list[str]:
        """What went wrong so far."""

    @property
    def last_time(self) -> Fraction:
        """Time of the last frame that was looked at."""

    def __iter__(self) -> Iterator[Shot]:
        """Draw the wanted frames, once."""

    def stop(self) -> None:
        """Let the drawing end as soon as it can; from any thread."""

    def close(self) -> None:
        """Free the source; in the thread that draws."""
