"""Frames of a file (or of a download that ends): read through, or from keyframe to keyframe where that costs less.

Whichever way is taken, the frames are those that reading the whole video gives, bit for bit, with the same times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from ..errors import VideoError
from .address import Address, Connection
from .decode import Losses
from .drawn import Shot
from .index import Index
from .motion import Gatherer
from .picture import Upright
from .sampling import Sampling
from .track import Track

# A seek empties the decoder's pipeline and costs about as much as decoding so many packets.
_SEEK_COST = 16
# Seconds between wanted frames, or before the first of them, from which reading the index may pay.
_WORTH_AN_INDEX = 2


class FileFrames:
    """The wanted frames of a file, converted, in the order of their times.

    Parameters
    ----------
    track : Track
        The file, open.
    address, connection
        How to open it once more.
    sampling : Sampling
        Which frames to take.
    motion : bool
        Whether they come with what the codec says of motion; the track exports it then.

    Attributes
    ----------
    info : VideoInfo
        What the container promises.

    Raises
    ------
    VideoError
        If `at` lies behind the file's end.
    """

    reconnects, silence, connected = 0, 0.0, True

    def __init__(
        self, track: Track, address: Address, connection: Connection, sampling: Sampling, motion: bool = False
    ) -> None:
        self._track = track
        self._losses = track.losses
        self._sampling = sampling
        self._ending: str | None = None
        self._upright = Upright(track.first, track.stills)
        self._gatherer = Gatherer(self._upright, track.stills) if motion else None
        self.info = track.describe(self._upright)
        self._index = track.index() if self._needs_index(address) else None
        self._seekable = self._index is not None and self._index.seekable and address.kind == "file"
        self._times: Sequence[Fraction] = ()
        if sampling.picks:
            self._times, self._ending = known_times(address, connection, self._index)
            self._sampling = sampling = sampling.knowing(self._times)
        refuse_beyond_end(sampling, self._times, self.info.duration, address.name)

    @property
    def origin(self) -> Fraction:
        """The video's start on the container's own clock, in seconds."""
        return self._track.origin

    @property
    def frames_decoded(self) -> int:
        """Frames decoded so far."""
        return self._track.decoded

    @property
    def lost(self) -> int:
        """Packets and frames that could not be delivered intact so far: undecodable, damaged, or with a wrong time."""
        return self._losses.total + self._track.clock.backward

    @property
    def warnings(self) -> list[str]:
        """What went wrong so far, one plain sentence each."""
        said = self._losses.sentences() + self._track.timing_warnings() + self._upright.warnings()
        return said + ([self._ending] if self._ending else [])

    @property
    def last_time(self) -> Fraction:
        """Time of the last frame that was looked at, or is known of."""
        return self._index.times[-1] if self._index is not None else self._track.clock.last or Fraction(0)

    def __iter__(self) -> Iterator[Shot]:
        """Draw the frames to hand out, converted; only these are."""
        wanted, whole = self._sampling.wanted(self._times), self._sampling.end is None
        planned: Fraction | None = None
        for frame, time in self._track:
            if self._sampling.over(time):
                return
            if self._gatherer is not None:
                self._gatherer.see(frame, (self.lost, self._track.jumps))
            if wanted.take(time):
                picture = self._upright.convert(frame)
                if picture is None:
                    self._losses.unconverted += 1
                else:
                    yield Shot(picture, time, self.lost, None if self._gatherer is None else self._gatherer.take())
            due = wanted.due
            if due is None or self._sampling.over(due):
                break
            if self._seekable and self._index is not None and due != planned:
                planned = due
                if not self._track.jump(self._index, due, _SEEK_COST):
                    break
        else:
            self._ending = self._track.shortfall() if whole else None
            return
        if self._index is not None:
            self._ending = self._track.shortfall(self._index) if whole else None

    def _needs_index(self, address: Address) -> bool:
        wishes = self._sampling
        sparse = wishes.start >= _WORTH_AN_INDEX or (wishes.fps is not None and wishes.fps * _WORTH_AN_INDEX <= 1)
        return wishes.picks or (sparse and address.kind == "file")

    def stop(self) -> None:
        """Nothing to interrupt: a file does not keep anybody waiting."""

    def close(self) -> None:
        """Free the file; only for the thread that draws the frames."""
        self._track.close()


def known_times(address: Address, connection: Connection, index: Index | None) -> tuple[Sequence[Fraction], str | None]:
    """Give the times of all frames: from the index if the packets tell, else by decoding the whole file once.

    The second value says what such a decoding found missing at the end.
    """
    if index is not None:
        return index.times, None
    track = Track(address, connection, Losses())
    try:
        return [time for _, time in track], track.shortfall()
    finally:
        track.close()


def refuse_beyond_end(sampling: Sampling, times: Sequence[Fraction], duration: float | None, name: str) -> None:
    """Raise if `at` asks for frames behind the end, which is the container's where sound outlasts the pictures."""
    if sampling.at is None:
        return
    end = max(float(times[-1]) + 1, duration or 0)
    if sampling.at[-1] > end:
        raise VideoError(
            f"at asks for the frame at {float(sampling.at[-1]):g} s, but {name} ends at {float(times[-1]):.3f} s; "
            "expected times within the video."
        )
