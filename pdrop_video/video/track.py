"""One opened video stream: its frames with their times, from good packets and bad, and what is known of it.

A track is read by one thread. It knows neither which frames are wanted nor what a picture looks like.
"""

from __future__ import annotations

import time as clock
from bisect import bisect_left
from collections.abc import Iterator
from fractions import Fraction

import av
from av.codec.context import Flags2
from av.video.frame import VideoFrame

from ..errors import VideoError
from .address import Address, Connection
from .clock import PATIENCE, Clock
from .decode import Decoder, Losses, counted
from .forked import keep_when_forked
from .index import Index, build_index
from .picture import Upright
from .source import VideoInfo, frame_step, has_end, open_stream, promised_seconds, start_seconds

# A video that ends this much earlier than promised is called cut short; less is rounding in the container.
_SHORTFALL = Fraction(1, 4)
# FFmpeg's mark of formats in which no packet ever carries a time.
_NO_TIMESTAMPS = 0x80


class Track:
    """An open source, with its first frame decoded.

    Parameters
    ----------
    address : Address
        What to open.
    connection : Connection
        How long to wait for it.
    losses : Losses
        Kept up to date while frames are drawn.
    motion : bool
        Whether the decoder exports motion vectors with its frames.

    Attributes
    ----------
    address : Address
        As given.
    opened : float
        When opening it began, by `time.monotonic`.
    losses : Losses
        As given.
    first : VideoFrame
        The first frame; the display matrix comes with the frames.
    began : Fraction
        Its time in seconds from the start of the video.
    origin : Fraction
        That start on the container's own clock, in seconds.
    clock : Clock
        What it says of the times so far.
    step : Fraction
        Usual seconds between two frames.
    promised : Fraction or None
        Seconds that the container promises.
    ends : bool
        Whether the source has an end.
    decoded : int
        Frames decoded so far.
    jumps : int
        How often frames were passed over without being decoded.

    Raises
    ------
    VideoError
        If the source cannot be opened or not one frame of it can be decoded.
    """

    def __init__(self, address: Address, connection: Connection, losses: Losses, motion: bool = False) -> None:
        keep_when_forked(self)
        self.opened = clock.monotonic()
        self.losses = losses
        self.address = address
        self._connection = connection
        self.container, self.stream = open_stream(address, connection)
        try:
            self._time_base = self.stream.time_base or Fraction(1, av.time_base)
            self.step = frame_step(self.stream)
            self.clock = Clock(start_seconds(self.stream), self.step)
            self.promised = promised_seconds(self.container, self.stream)
            self.ends = has_end(self.container, self.promised)
            self.decoded = self.jumps = 0
            self._last: VideoFrame | None = None
            self._passed: int | None = None
            if motion:  # before the first packet opens the decoder
                self.stream.codec_context.flags2 |= Flags2.export_mvs
            self._decoder = Decoder(self.container, self.stream, losses)
            self._timed = self._run()
            self._pending = next(self._timed, None)
            if self._pending is None:
                said = "; ".join(losses.sentences()) or "the video is empty"
                raise VideoError(
                    f"{address.name} holds no frame that can be decoded ({said}); expected at least one. Check that "
                    "the file plays, or convert it."
                )
            self.first, self.began = self._pending
            stated = start_seconds(self.stream)
            self.origin = (self._seconds(self.first.pts) or Fraction(0)) if stated is None else stated
        except BaseException:
            self.container.close()
            raise

    def __iter__(self) -> Track:
        """Return the track itself: there is one pass."""
        return self

    def __next__(self) -> tuple[VideoFrame, Fraction]:
        """Draw the next frame whose time goes forward, with its time in seconds from the start of the video."""
        drawn, self._pending = self._pending or next(self._timed, None), None
        if drawn is None:
            raise StopIteration
        self._last = drawn[0]
        return drawn

    def _run(self) -> Iterator[tuple[VideoFrame, Fraction]]:
        """Draw frames with their times; one without a time waits for the next that has one, so as not to take it."""
        waiting: list[VideoFrame] = []
        patient = not self.container.format.flags & _NO_TIMESTAMPS
        for frame in self._decoder:
            self.decoded += 1
            if self._passed is not None and frame.pts is not None and frame.pts <= self._passed:
                continue
            if frame.pts is None and patient and len(waiting) < PATIENCE:
                waiting.append(frame)
                continue
            patient = patient and (frame.pts is not None or not waiting)
            yield from self._time([*waiting, frame])
            waiting = []
        yield from self._time(waiting)

    def _time(self, frames: list[VideoFrame]) -> Iterator[tuple[VideoFrame, Fraction]]:
        """Give times to frames of which only the last may carry one."""
        if not frames:
            return
        *before, last = frames
        stamp = self._seconds(last.pts)
        times = [*self.clock.before(stamp, [self._seconds(frame.dts) for frame in before])]
        times.append(self.clock.read(stamp, self._seconds(last.dts)))
        for frame, time in zip(frames, times, strict=True):
            if time is not None:
                yield frame, time

    def _seconds(self, stamp: int | None) -> Fraction | None:
        return None if stamp is None else stamp * self._time_base

    def index(self) -> Index | None:
        """Read the packets of the whole file, from an opening of its own; None if they do not tell what frames come."""
        container, stream = open_stream(self.address, self._connection)
        try:
            return build_index(container, stream)
        finally:
            container.close()

    def jump(self, index: Index, time: Fraction, least: int) -> bool:
        """Pass over frames before the first one at or after `time` seconds, if that spares `least` packets or more.

        Returns
        -------
        bool
            Whether there is such a frame at all.
        """
        place = bisect_left(index.times, time)
        if place == len(index.stamps):
            return False
        fed = index.positions.get(self._decoder.fed) if self._decoder.fed is not None else None
        if fed is None or self._last is None:
            return True
        key = index.key_before(index.stamps[place])
        if key >= 0 and index.keys[key].position - fed >= least:
            # A keyframe that does not serve leads back further, perhaps to frames that were drawn already.
            self._passed = self._last.pts
            self.jumps += 1
            self._decoder.jump(index, index.stamps[place])
        return True

    def shortfall(self, index: Index | None = None) -> str | None:
        """Compare where the frames end with what the container promised: a sentence, or None if all came."""
        if index is not None:
            ended = max(index.times[-1], index.times.of(index.ended))
        elif self.clock.last is not None and self._last is not None:
            ended = self.clock.last + ((self._last.duration or 0) * self._time_base or self.step)
        else:
            return None
        if self.promised is None or self.promised - ended <= max(_SHORTFALL, 2 * self.step):
            return None
        return f"cut short: the container promised {float(self.promised):.1f} s, decoding ended at {float(ended):.1f} s"

    @property
    def stills(self) -> bool:
        """Whether each frame is coded as a picture of its own."""
        return self.stream.codec_context.codec.intra_only

    @property
    def reorders(self) -> bool:
        """Whether frames are stored in another order than that in which they are shown."""
        return bool(self.stream.codec_context.has_b_frames)

    def describe(self, upright: Upright) -> VideoInfo:
        """Say what is known, for frames that are turned like `upright`."""
        width, height = upright.size
        began = start_seconds(self.stream)
        return VideoInfo(
            width=width,
            height=height,
            rotation=90 * upright.orientation.turns,
            mirrored=upright.orientation.mirrored,
            codec=self.stream.codec_context.name,
            duration=None if self.promised is None else float(self.promised),
            average_rate=None if self.stream.average_rate is None else float(self.stream.average_rate),
            start=None if began is None else float(began),
            frames=self.stream.frames or None,
        )

    @property
    def broken(self) -> str | None:
        """Why the connection to the source was lost; None if it was not."""
        return self._decoder.broken

    def timing_warnings(self) -> list[str]:
        """Say what was wrong with the times so far, one plain sentence each."""
        clock, said = self.clock, []
        if self.broken:
            said.append(f"the connection was lost ({self.broken})")
        if clock.backward:
            said.append(f"skipped because their times repeat or go back: {counted(clock.backward, 'frame')}")
        if clock.restarts:
            said.append(f"the source's clock was set back {counted(clock.restarts, 'time')}; times go on from before")
        if clock.untimed:
            said.append(
                f"without a presentation time: {counted(clock.untimed, 'frame')}; times follow from the decoding order "
                f"and {float(1 / self.step):g} frames a second"
            )
        return said

    def close(self) -> None:
        """Free the source; a second call does nothing."""
        self._pending = self._last = None
        self.container.close()
