"""`VideoReader`: sampled frames of a file, a stream or a camera, in chunks, in one pass.

Frames are chosen by their own presentation times, never by average rate, so that variable frame rates come out right.
The reader knows neither the model nor what becomes of the frames, and not how they are decoded either: that is up to
what it draws from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import VideoError
from .ahead import Ahead
from .chunk import FrameChunk
from .decode import counted
from .drawn import Drawn, Shot
from .live import LiveFrames
from .motion import Motion
from .sampling import Sampling
from .soundtrack import SoundTrack


class VideoReader:
    """Sampled frames of an open video, chunk by chunk, in one pass. Made by `open_video`.

    Frames come upright (rotation and mirroring applied) as RGB of the stored resolution. A sample aspect ratio other
    than 1:1 is left as it is: the pixels are not stretched. If the resolution changes on the way, frames are scaled to
    that of the first.

    Attributes
    ----------
    info : VideoInfo
        Size, codec and what the container promises.
    source : str
        The path or address as it was given, without a password.
    frames_read : int
        Frames handed out so far.
    """

    def __init__(
        self,
        drawn: Drawn,
        source: str,
        sampling: Sampling,
        *,
        ahead: int = 0,
        latest: bool = False,
        sound: SoundTrack | None = None,
    ) -> None:
        self.info = drawn.info
        self.source = source
        self.frames_read = 0
        self._drawn = drawn
        self._sampling = sampling
        self._sound = sound
        self._next: Shot | None = None  # the first of the next chunk, where this one's sound ends
        self._closed = self._exhausted = False
        self._process = os.getpid()
        live = isinstance(drawn, LiveFrames)
        room = max(ahead, int(live)) * sampling.chunk
        self._ahead = (
            Ahead(drawn, room, latest=latest, heir=Shot.after, stop=drawn.stop, release=drawn.close) if room else None
        )
        self._shots: Iterator[Shot] = iter(drawn) if self._ahead is None else self._ahead
        if live and self._ahead is not None:
            self._ahead.start()

    @property
    def frames_decoded(self) -> int:
        """Frames decoded so far, also those decoded ahead or not taken."""
        return self._drawn.frames_decoded

    @property
    def lost(self) -> int:
        """Packets and frames that could not be delivered intact so far: undecodable, damaged, or with a wrong time."""
        return self._drawn.lost

    @property
    def dropped(self) -> int:
        """Frames that were wanted and decoded, but gave way to later ones because they were not read in time."""
        return 0 if self._ahead is None else self._ahead.buffer.dropped

    @property
    def reconnects(self) -> int:
        """How often a lost connection was made again."""
        return self._drawn.reconnects

    @property
    def silence(self) -> float:
        """Seconds for which a live source has given no frame; 0 for what has an end."""
        return self._drawn.silence

    @property
    def connected(self) -> bool:
        """False while the lost connection to a live source is being made again, or after that was given up."""
        return self._drawn.connected

    @property
    def warnings(self) -> list[str]:
        """What went wrong so far, one plain sentence each; empty if nothing did."""
        said = self._drawn.warnings
        if self.dropped:
            said.append(f"dropped because they came faster than they were read: {counted(self.dropped, 'frame')}")
        return said

    def __iter__(self) -> VideoReader:
        """Return the reader itself: there is one pass over a video."""
        return self

    def __next__(self) -> FrameChunk:
        """Read on until a chunk is full or the video ends.

        Raises
        ------
        VideoError
            If the reader was closed, here or by another thread, the process was forked from the one that opened it, or
            the video ended without a single frame to hand out.
        """
        if self._process != os.getpid():
            raise VideoError(
                f"the reader of {self.source} was opened before this process was forked, and neither its threads nor "
                "its place in the file came along; open the video again with open_video in this process."
            )
        if self._exhausted:
            raise StopIteration
        shots: list[Shot] = [] if self._next is None else [self._next]
        room = self._sampling.chunk + (self._sound is not None)
        try:
            while not self._closed and len(shots) < room:
                shots.append(next(self._shots))
        except StopIteration:
            self._exhausted = not self._closed
        except BaseException:  # also Ctrl-C: what draws is spent, and going on would look like an early end
            self.close()
            raise
        if self._closed:
            raise VideoError(f"the reader of {self.source} is closed; open the video again with open_video to read it.")
        sound, rate = self._heard(shots)
        if self._exhausted:
            self._finish(frames=len(shots))
        if not shots:
            raise StopIteration
        self.frames_read += len(shots)
        lost = self.lost if self._exhausted else shots[-1].lost
        pictures = _stacked([shot.picture for shot in shots])
        told = [shot.motion for shot in shots if shot.motion is not None]
        motion = Motion.cat(told) if told else None
        return FrameChunk(pictures, tuple(float(shot.time) for shot in shots), self.source, lost, sound, rate, motion)

    def _heard(self, shots: list[Shot]) -> tuple[torch.Tensor | None, int]:
        """The sound of a chunk, up to the first frame of the next one, which is taken out of `shots` and kept."""
        if self._sound is None or not shots:
            return None, 0
        self._next = shots.pop() if len(shots) > self._sampling.chunk else None
        first, last, end = shots[0].time, shots[-1].time, self._sampling.end
        if self._next is not None:
            until = self._next.time
        else:  # the last frames are on screen for as long as those before
            apart = last - shots[-2].time if len(shots) > 1 else 1 / (self._sampling.fps or Fraction(1))
            until = last + apart if end is None else min(last + apart, end)
        return self._sound.take(first, until, fill=True), self._sound.rate

    def __enter__(self) -> VideoReader:
        """Use the reader as a context manager that closes the source."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the source."""
        self.close()

    def close(self) -> None:
        """Close the source; a second call does nothing.

        Safe from another thread where frames are decoded ahead: a read that waits for the source ends at once.
        """
        self._closed = True
        if self._process != os.getpid():  # what was opened is still in use where it was opened
            return
        if self._sound is not None:
            self._sound.close()
        if self._ahead is not None:
            self._ahead.close()
        else:
            self._drawn.close()

    def _finish(self, frames: int) -> None:
        """End the pass: free the source and see whether there was anything to hand out."""
        self.close()
        if self.frames_read or frames:
            return
        start, end = self._sampling.start, self._sampling.end
        until = "" if end is None else f" and before {float(end):g} s"
        raise VideoError(
            f"{self.source} gave no frame at or after {float(start):g} s{until}; the last frame seen is at "
            f"{float(self._drawn.last_time):.3f} s. Choose start and end within the video, or a higher fps."
        )


def _stacked(pictures: list[NDArray[np.uint8] | torch.Tensor]) -> torch.Tensor:
    """Pictures [frames, height, width, 3], where they are."""
    arrays = [picture for picture in pictures if isinstance(picture, np.ndarray)]
    tensors = [picture for picture in pictures if isinstance(picture, torch.Tensor)]
    return torch.stack(tensors) if tensors else torch.from_numpy(np.stack(arrays))
