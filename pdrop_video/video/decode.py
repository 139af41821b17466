"""Decoding packet by packet, going on after what is broken, and keeping count of it.

Decoders fail packet by packet, so a fault in the middle of a file need not end the reading. This module refuses to know
which frames are wanted: it hands out all of them, in the order of presentation.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain, dropwhile

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .index import Index, from_keyframe

# Read errors in a row, without a single packet between them, after which the rest is given up.
_GIVE_UP = 32


def counted(number: int, unit: str) -> str:
    """Write a number with its unit: "1 frame", "2 frames"."""
    return f"{number} {unit}{'s' * (number != 1)}"


@dataclass(slots=True)
class Losses:
    """What could not be delivered intact.

    Attributes
    ----------
    headless : int
        Packets before the first keyframe of a recording that starts between two.
    unreadable : int
        Errors while reading the container, between packets.
    incomplete : int
        Packets that the container itself marks as damaged or cut short.
    undecodable : int
        Packets that the decoder refused.
    repaired : int
        Frames that the decoder gave out although it had to guess a part of the picture. The fault may also have been
        counted at its packet.
    unconverted : int
        Frames in a pixel format that could not be converted to RGB.
    """

    headless: int = 0
    unreadable: int = 0
    incomplete: int = 0
    undecodable: int = 0
    repaired: int = 0
    unconverted: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        found = self.unreadable + self.incomplete + self.undecodable + self.repaired + self.unconverted
        return self.headless + found

    def sentences(self) -> list[str]:
        """Say in plain words what was lost; nothing if all went well."""
        said = [
            (self.headless, "stored before the first keyframe, so that nothing can be shown of them:", "packet"),
            (self.unreadable, "the container could not be read at", "place"),
            (self.incomplete, "damaged or cut short:", "packet"),
            (self.undecodable, "could not be decoded:", "packet"),
            (self.repaired, "decoded with guessed parts:", "frame"),
            (self.unconverted, "could not be converted to RGB:", "frame"),
        ]
        return [f"{words} {counted(number, unit)}" for number, words, unit in said if number]


class Decoder:
    """The frames of one stream, in order of presentation, whatever happens in between.

    Decoding runs on several threads. A fault within the last packets of a file can therefore cost the few frames that
    are in flight at that moment (one a thread).

    Parameters
    ----------
    container, stream
        An open container and its video stream; the caller closes it.
    losses : Losses
        Kept up to date while frames are drawn.

    Attributes
    ----------
    fed : int or None
        Presentation time of the packet that was decoded last, in units of the stream's time base.
    broken : str or None
        Why reading ended before the source did: the connection was lost.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, losses: Losses) -> None:
        self.fed: int | None = None
        self.broken: str | None = None
        self._container = container
        self._stream = stream
        self._losses = losses
        # A transport stream drops 188 bytes at a time: most of a marked packet is still there, and without it the
        # frames that build on it would suffer too. Elsewhere the mark means that the file ended within the packet.
        self._use_incomplete = "mpegts" in container.format.name
        # AVI numbers its packets as they are stored. The frames' times are the same numbers, put in order.
        self._unsorted = container.format.name == "avi" and bool(stream.codec_context.has_b_frames)
        self._stamps: list[int] = []
        stream.codec_context.thread_type = "AUTO"
        self._frames = self._begin()

    def __iter__(self) -> Decoder:
        """Return the decoder itself: frames are drawn once."""
        return self

    def __next__(self) -> VideoFrame:
        """Draw the next frame."""
        return next(self._frames)

    def jump(self, index: Index, stamp: int) -> None:
        """Go on at the last keyframe from which the frame shown at `stamp` can be decoded.

        The frames drawn from here on are those that decoding everything before would have given, but for a keyframe
        that does not keep what it promises: its frame then comes late or not at all, and an earlier one is tried. If
        none serves, decoding begins at the first packet.
        """
        for place in range(index.key_before(stamp), -1, -1):
            key = index.keys[place]
            packets = self._enter(index, place)
            if packets is None:
                continue
            frames = self._run(packets, key.pts)
            first = next(frames, None)
            if first is not None and first.pts == index.first_from(key.pts):
                self._frames = chain((first,), frames)
                return
        self._container.seek(min(index.positions), stream=self._stream, backward=True)
        self._frames = self._begin()

    def _begin(self) -> Iterator[VideoFrame]:
        """Draw all frames, from the first keyframe on."""
        passed, packets = from_keyframe(self._packets())
        self._losses.headless += passed
        first = next(packets)
        yield from self._run(chain((first,), packets), first.pts if passed and first is not None else None)

    def _enter(self, index: Index, place: int) -> Iterator[Packet[VideoStream] | None] | None:
        """Seek to a keyframe; None if the container's own table leads past it."""
        key = index.keys[place]
        earlier = index.keys[max(place - 1, 0)]
        # Some containers keep their table by the time of decoding, some by that of presentation.
        for offset in (key.pts, key.dts, earlier.dts, min(index.positions)):
            if offset is None:
                continue
            self._container.seek(offset, stream=self._stream, backward=True)
            packets = self._packets()
            first = next(packets)
            if first is not None and index.positions.get(first.pts or 0, key.position + 1) <= key.position:
                return dropwhile(lambda packet: packet is not None and packet.pts != key.pts, chain((first,), packets))
        return None

    def _run(self, packets: Iterator[Packet[VideoStream] | None], floor: int | None = None) -> Iterator[VideoFrame]:
        """Draw the frames from `floor` on; the last, empty packet draws those that the decoder still holds.

        Pictures that lead an open group (stored after the keyframe, shown before it) need frames that were passed over.
        Nothing from the keyframe on rests on them, so they are neither handed out nor counted as losses.
        """
        for packet in packets:
            leading = floor is not None and packet is not None and packet.pts is not None and packet.pts < floor
            for frame in self._decode(packet, Losses() if leading else self._losses):
                if self._stamps and frame.pts is not None:
                    frame.pts = heappop(self._stamps)
                if floor is None or frame.pts is None or frame.pts >= floor:
                    self._losses.repaired += frame.is_corrupt
                    yield frame

    def _packets(self) -> Iterator[Packet[VideoStream] | None]:
        failures = 0
        while failures < _GIVE_UP:
            try:
                # After an error the demultiplexer looks for the next packet that makes sense.
                for packet in self._container.demux(self._stream):
                    failures = 0
                    yield packet
                return
            except av.ExitError:
                self.broken = "no data within the time allowed"
                break
            except (ConnectionError, av.HTTPError) as error:
                self.broken = getattr(error, "strerror", None) or type(error).__name__
                break
            except av.FFmpegError as error:
                if error.errno == errno.EIO and self._container.size <= 0:
                    break  # FFmpeg's word for the end of whatever did not say how long it is
                self._losses.unreadable += 1
                failures += 1
        yield None

    def _decode(self, packet: Packet[VideoStream] | None, losses: Losses) -> list[VideoFrame]:
        if packet is not None:
            self.fed = packet.pts
            if self._unsorted and packet.pts is not None:
                heappush(self._stamps, packet.pts)
            if packet.is_corrupt:
                losses.incomplete += 1
                if not self._use_incomplete:
                    return []
        try:
            return self._stream.decode(packet)
        except av.FFmpegError:
            losses.undecodable += 1
            return []
