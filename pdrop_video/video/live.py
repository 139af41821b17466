"""Frames of a camera or a live stream, for as long as it runs: a lost connection is made again, and times go on.

Times count from the first frame. Within a connection they are the source's own; over a gap they go by this machine's
clock, so that what is shown an hour later is an hour later in the stream.

A web server need not say how long a file is, and then only what happens tells it from a camera: a recording, opened
again, begins as it began before. What was seen of it is passed over, and it has ended once it brings nothing new.
"""

from __future__ import annotations

import threading
import time as clock
from collections.abc import Iterator
from fractions import Fraction

from av.video.frame import VideoFrame

from ..errors import VideoError
from .address import Address, Connection
from .beginning import Beginning
from .decode import counted
from .drawn import Shot
from .motion import Gatherer
from .picture import Upright
from .sampling import Sampling
from .track import Track

# Seconds that a still picture may lag behind a download at twice its own pace; a camera in the dark soon does.
_GRACE = 2


class LiveFrames:
    """The wanted frames of a live source, converted, in the order of their times.

    Parameters
    ----------
    track : Track
        The first connection.
    address, connection
        How to connect again.
    sampling : Sampling
        Which frames to take.
    motion : bool
        Whether they come with what the codec says of motion; the track exports it then.

    Attributes
    ----------
    info : VideoInfo
        What the source said at first.
    reconnects : int
        How often a lost connection was made again.
    connected : bool
        False from the loss of a connection until it is made again.
    """

    def __init__(
        self, track: Track, address: Address, connection: Connection, sampling: Sampling, motion: bool = False
    ) -> None:
        self._track = track
        self._address = address
        self._connection = connection
        self._sampling = sampling
        self._upright = Upright(track.first, track.stills)
        self._gatherer = Gatherer(self._upright, track.stills) if motion else None
        # None for what is live for sure; bare bytes from a socket are, since nobody asked for a file by its name.
        self._beginning = None if address.raw else Beginning(Upright(track.first, track.stills))
        self._replay = False  # whether this connection has given nothing but what was seen of a recording
        self._replayed = self._offset = Fraction(0)
        self._vain = 0  # connections in a row that brought nothing new
        self.info = track.describe(self._upright)
        self.reconnects = 0
        self.connected = True
        self._waiting: float | None = None  # since when, while nothing but the source is waited for
        self.last_time = Fraction(0)
        self._losses = track.losses
        self._said: list[str] = []
        self._stopped = threading.Event()
        self._decoded = self._backward = 0

    @property
    def frames_decoded(self) -> int:
        """Frames decoded so far."""
        return self._decoded + self._track.decoded

    @property
    def lost(self) -> int:
        """Packets and frames that could not be delivered intact so far."""
        return self._losses.total + self._backward + self._track.clock.backward

    @property
    def warnings(self) -> list[str]:
        """What went wrong so far, one plain sentence each."""
        said = self._losses.sentences() + self._track.timing_warnings() + self._upright.warnings()
        if self.reconnects:
            said.append(f"the connection was lost and made again {counted(self.reconnects, 'time')}")
        return said + self._said

    @property
    def silence(self) -> float:
        """Seconds for which the source has given no frame; the time that others take with its frames does not count."""
        waiting = self._waiting
        return 0.0 if waiting is None else clock.monotonic() - waiting

    def __iter__(self) -> Iterator[Shot]:
        """Draw frames until the source is gone for good, the wanted time is over, or somebody stops it."""
        wanted = self._sampling.wanted()
        begun = self._track.opened
        self._waiting = clock.monotonic()
        while True:
            for frame, time in self._fresh():
                self._waiting, self.last_time = None, time
                if self._stopped.is_set() or self._sampling.over(self.last_time):
                    return
                if self._gatherer is not None:
                    self._gatherer.see(frame, (self.lost, self.reconnects))
                if wanted.take(self.last_time):
                    picture = self._upright.convert(frame)
                    if picture is None:
                        self._losses.unconverted += 1
                    else:
                        motion = None if self._gatherer is None else self._gatherer.take()
                        yield Shot(picture, self.last_time, self.lost, motion)
                self._waiting = clock.monotonic()
            if self._over() or not self._connect_again():
                self._waiting = None
                return
            # No time is given twice, even by a source that sent its frames faster than they are shown.
            passed = Fraction(clock.monotonic() - begun).limit_denominator(1000)
            self._offset = max(passed, self.last_time + self._track.step) - self._track.began

    def _fresh(self) -> Iterator[tuple[VideoFrame, Fraction]]:
        """Draw the frames of this connection with their times, less those of a recording that were seen before."""
        for number, (frame, since) in enumerate(self._track):
            if self._replay and not self._stopped.is_set():
                recorded = self._begins_again(self._track, number, frame, since)
                if recorded and since <= self.last_time:
                    self._replayed = since
                    continue
                self._replay, self.reconnects = False, self.reconnects + 1
                if recorded:
                    self._offset = Fraction(0)
                else:
                    self._beginning = None
            if self._beginning is not None:
                self._beginning.note(number, frame)
            yield frame, self._offset + since

    def _begins_again(self, track: Track, number: int, frame: VideoFrame, since: Fraction) -> bool:
        """Whether a connection is, up to a frame with its number and time, the first one over again."""
        if self._beginning is None or not self._beginning.same(number, frame):
            return False
        late = clock.monotonic() - track.opened > since / 2 + _GRACE
        return not (late and self._beginning.still)

    def _over(self) -> bool:
        """Whether a recording has ended: whole once more, it brought nothing new."""
        self._vain = self._vain + 1 if self._replay else 0
        whole = self._track.broken is None and self._replayed >= self.last_time
        return self._replay and (whole or self._vain > self._connection.retries)

    def _connect_again(self) -> bool:
        """Open the source again after ever longer waits; False if it does not come back, or somebody stops it."""
        reason = self._track.broken or "the source ended it"
        self._track.close()
        self.connected = False
        for wait in self._connection.waits():
            if self._stopped.wait(wait):
                return False
            try:
                track = Track(self._address, self._connection, self._losses, self._gatherer is not None)
            except VideoError as error:
                reason = str(error)
                continue
            self._decoded += self._track.decoded
            self._backward += self._track.clock.backward
            self._track = track
            self._replayed = Fraction(0)
            self._replay = self._begins_again(track, 0, track.first, Fraction(0))
            if not self._replay:
                self._beginning = None
                self.reconnects += 1
            self.connected = True
            return True
        if not self._stopped.is_set():
            attempts = counted(self._connection.retries, "attempt")
            self._said.append(f"the connection was lost for good: {attempts} to make it again failed ({reason})")
        return False

    def stop(self) -> None:
        """Let the drawing end as soon as it can, from any thread."""
        self._stopped.set()

    def close(self) -> None:
        """Free the source; only for the thread that draws the frames."""
        self._track.close()
