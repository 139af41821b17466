"""Frames of a camera or a live stream, for as long as it runs: a lost connection is made again, and times go on.

Times count from the first frame. Within a connection they are the source's own; over a gap they go by this machine's
clock, so that what is shown an hour later is an hour later in the stream.
"""

from __future__ import annotations

import threading
import time as clock
from collections.abc import Iterator
from fractions import Fraction

from ..errors import VideoError
from .address import Address, Connection
from .decode import counted
from .drawn import Shot
from .picture import Upright
from .sampling import Sampling
from .track import Track


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

    Attributes
    ----------
    info : VideoInfo
        What the source said at first.
    reconnects : int
        How often a lost connection was made again.
    connected : bool
        False from the loss of a connection until it is made again.
    """

    def __init__(self, track: Track, address: Address, connection: Connection, sampling: Sampling) -> None:
        self._track = track
        self._address = address
        self._connection = connection
        self._sampling = sampling
        self._upright = Upright(track.first)
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
        begun, offset = self._track.opened, Fraction(0)
        self._waiting = clock.monotonic()
        while True:
            for frame, since in self._track:
                self._waiting = None
                self.last_time = offset + since
                if self._stopped.is_set() or self._sampling.over(self.last_time):
                    return
                if wanted.take(self.last_time):
                    picture = self._upright.convert(frame)
                    if picture is None:
                        self._losses.unconverted += 1
                    else:
                        yield Shot(picture, self.last_time, self.lost)
                self._waiting = clock.monotonic()
            if not self._connect_again():
                self._waiting = None
                return
            # No time is given twice, even by a source that sent its frames faster than they are shown.
            passed = Fraction(clock.monotonic() - begun).limit_denominator(1000)
            offset = max(passed, self.last_time + self._track.step) - self._track.began

    def _connect_again(self) -> bool:
        """Open the source again after ever longer waits; False if it does not come back, or somebody stops it."""
        reason = self._track.broken or "the source ended it"
        self._track.close()
        self.connected = False
        for wait in self._connection.waits():
            if self._stopped.wait(wait):
                return False
            try:
                track = Track(self._address, self._connection, self._losses)
            except VideoError as error:
                reason = str(error)
                continue
            self._decoded += self._track.decoded
            self._backward += self._track.clock.backward
            self._track = track
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
