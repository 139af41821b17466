"""The sound of a file, decoded beside its pictures and on their clock. Knows packets; refuses to know frames."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from threading import Lock

import av
import numpy as np
import torch
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from ..errors import VideoError
from .address import Address, Connection
from .forked import keep_when_forked
from .source import open_stream

_OFF = Fraction(1, 10)
"""Seconds by which decoded sound may be off its time before silence fills the gap, or the overlap is cut."""
_EARLIER = Fraction(2)
"""Seconds before those wanted from which decoding begins after a seek: codecs need a few packets to come in."""


class SoundTrack:
    """Sound of a file, of one channel, in one pass.

    Parameters
    ----------
    address : Address
    connection : Connection
        How to open it.
    rate : int
        Samples a second to hand out.
    origin : Fraction
        When the video starts, on the container's own clock.

    Raises
    ------
    VideoError
        If the file has no sound that can be decoded.
    """

    def __init__(self, address: Address, connection: Connection, rate: int, origin: Fraction) -> None:
        keep_when_forked(self)
        self.rate = rate
        self._origin = origin
        self._lock, self._closed = Lock(), False
        self._container, _ = open_stream(address, connection)
        try:
            sounds = [each for each in self._container.streams.audio if each.codec_context is not None]
            if not sounds:
                raise VideoError(f"{address.name} has no sound that can be decoded; leave sound out.")
            best = self._container.streams.best("audio")
            self._stream = next((each for each in sounds if best is not None and each.index == best.index), sounds[0])
        except BaseException:
            self._container.close()
            raise
        self._at: int | None = None
        self._first = self._given = 0
        self._pending: list[NDArray[np.float32]] = []
        self._pieces: Iterator[NDArray[np.float32]] | None = None

    def take(self, start: Fraction, until: Fraction, *, fill: bool = True) -> torch.Tensor:
        """Sound up to a second [samples], float32: from `start` on at first, then from where the last one ended.

        Where there is none it is silent; without `fill` it ends where the file's does.
        """
        if self._pieces is None:
            self._first = self._given = round(start * self.rate)
            self._pieces = self._decoded(start)
        wanted = round(until * self.rate) - self._given
        got = sum(map(len, self._pending))
        with self._lock:
            while got < wanted and not self._closed:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._pending.append(piece)
                got += len(piece)
        whole = np.concatenate([np.zeros(0, np.float32), *self._pending])
        taken, self._pending = whole[: max(wanted, 0)], [whole[max(wanted, 0) :]]
        self._given += len(taken)
        if fill and len(taken) < wanted:
            missing = wanted - len(taken)
            taken, self._given = np.concatenate([taken, np.zeros(missing, np.float32)]), self._given + missing
        return torch.from_numpy(taken.copy())

    def close(self) -> None:
        """Free the file; a second call does nothing."""
        with self._lock:
            self._closed = True
            self._container.close()

    def _decoded(self, start: Fraction) -> Iterator[NDArray[np.float32]]:
        """Samples without gaps, from the first that is wanted on."""
        if start > 2 * _EARLIER:
            self._container.seek(int((self._origin + start - _EARLIER) * av.time_base), backward=True)
        resampler = AudioResampler(format="fltp", layout="mono", rate=self.rate)
        for frame in self._frames():
            stamp = None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
            due = self._at if stamp is None else round((stamp - self._origin) * self.rate)
            if self._at is None:
                self._at = due or 0
                if self._at > self._first:  # sound that sets in later
                    yield np.zeros(self._at - self._first, np.float32)
            elif due is not None and due - self._at > _OFF * self.rate:
                yield from self._wanted(np.zeros(due - self._at, np.float32))
            samples = [out.to_ndarray()[0] for out in resampler.resample(frame)]
            overlap = self._at - due if due is not None and self._at - due > _OFF * self.rate else 0
            for piece in samples:
                cut = min(overlap, len(piece))
                overlap -= cut
                yield from self._wanted(piece[cut:])
        if self._at is not None:
            for out in resampler.resample(None):
                yield from self._wanted(out.to_ndarray()[0])

    def _wanted(self, piece: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """What of a piece comes at or after the first second wanted; it is counted in any case."""
        assert self._at is not None
        early, self._at = self._first - self._at, self._at + len(piece)
        if early < len(piece):
            yield piece[max(early, 0) :]

    def _frames(self) -> Iterator[AudioFrame]:
        """All frames; what can't be decoded is left out, and silence stands for it."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.FFmpegError):
                return
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            yield from (frame for frame in frames if isinstance(frame, AudioFrame))
