"""Frames of a file by their numbers, for decoders that know nothing of times: the file's packets tell those.

Knows packets and samplings. Refuses to know what decodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, ClassVar

from ..errors import ConfigError, VideoError
from .address import Address, Connection
from .decode import Losses
from .drawn import Shot
from .file import refuse_beyond_end
from .index import Index
from .picture import Upright
from .sampling import Sampling
from .track import Track


class NumberedFrames(ABC):
    """The wanted frames of a file, in the order of their times.

    Parameters
    ----------
    address : Address
        A file.
    connection : Connection
    sampling : Sampling
        Which frames to take.

    Attributes
    ----------
    info : VideoInfo
        What the container promises.
    frames_decoded : int
        Frames that the decoder handed over.

    Raises
    ------
    ConfigError
        If the source is no file.
    VideoError
        If the file can't be read, or the decoder would give other pictures than the packets' times say.
    """

    decoder: ClassVar[str]
    """Its name."""
    reconnects, lost = 0, 0
    silence, connected = 0.0, True

    def __init__(self, address: Address, connection: Connection, sampling: Sampling) -> None:
        if address.kind != "file":
            raise ConfigError(
                f"decoder is {self.decoder!r}, which reads files alone here; use 'pyav' for {address.name}."
            )
        self.frames_decoded, self._name, self._stopped = 0, address.name, False
        track = Track(address, connection, Losses())
        try:
            self.info, self._origin = track.describe(Upright(track.first, track.stills)), track.origin
            index = track.index()
            if index is None:
                raise self._other("its packets do not tell which frames it has")
            if (why := self._unfit(track, index)) is not None:
                raise self._other(why)
            self._ending = track.shortfall(index)
        finally:
            track.close()
        self._times = index.times
        sampling = sampling.knowing(self._times)
        refuse_beyond_end(sampling, self._times, self.info.duration, self._name)
        self._chosen, self._chunk = sampling.numbers(self._times), sampling.chunk

    @abstractmethod
    def _unfit(self, track: Track, index: Index) -> str | None:
        """Why the decoder would give other pictures of a file than its index says; None if it gives those."""

    @abstractmethod
    def _drawn(self, numbers: list[int]) -> Any:
        """Pictures [frames, height, width, 3] of these frames."""

    def _other(self, why: str) -> VideoError:
        return VideoError(
            f"{self.decoder} would give other pictures of {self._name} than their times say: {why}; use decoder='pyav'."
        )

    def _check_count(self, found: int) -> None:
        if found != len(self._times):
            raise self._other(f"it finds {found} frames, and the packets hold {len(self._times)}")

    def stop(self) -> None:
        """Draw no further chunk."""
        self._stopped = True

    @property
    def warnings(self) -> list[str]:
        """What is known to be missing; of damage the decoder itself keeps silent."""
        return [self._ending] if self._ending else []

    @property
    def last_time(self) -> Fraction:
        """Time of the last frame of the file."""
        return self._times[-1]

    def __iter__(self) -> Iterator[Shot]:
        """Draw the frames, a chunk of them at a time."""
        for first in range(0, len(self._chosen), self._chunk):
            if self._stopped:
                return
            numbers = self._chosen[first : first + self._chunk]
            pictures = self._drawn(numbers)
            self.frames_decoded += len(numbers)
            for number, picture in zip(numbers, pictures, strict=True):
                yield Shot(picture, self._times[number], 0)
