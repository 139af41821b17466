"""Decoding packet by packet, going on after what is broken, and keeping count of it.

Decoders fail packet by packet, so a fault in the middle of a file need not end the reading. This module refuses to know
which frames are wanted: it hands out all of them, in the order of presentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

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

    unreadable: int = 0
    incomplete: int = 0
    undecodable: int = 0
    repaired: int = 0
    unconverted: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.unreadable + self.incomplete + self.undecodable + self.repaired + self.unconverted

    def sentences(self) -> list[str]:
        """Say in plain words what was lost; nothing if all went well."""
        said = [
            (self.unreadable, "the container could not be read at", "place"),
            (self.incomplete, "damaged or cut short:", "packet"),
            (self.undecodable, "could not be decoded:", "packet"),
            (self.repaired, "decoded with guessed parts:", "frame"),
            (self.unconverted, "could not be converted to RGB:", "frame"),
        ]
        return [f"{words} {counted(number, unit)}" for number, words, unit in said if number]


class Decoder:
    """All frames of one stream, in order of presentation, whatever happens in between.

    Decoding runs on several threads. A fault within the last packets of a file can therefore cost the few frames that
    are in flight at that moment (one a thread).

    Parameters
    ----------
    container, stream
        An open container and its video stream; the caller closes it.
    losses : Losses
        Kept up to date while frames are drawn.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, losses: Losses) -> None:
        self._container = container
        self._stream = stream
        self._losses = losses
        # A transport stream drops 188 bytes at a time: most of a marked packet is still there, and without it the
        # frames that build on it would suffer too. Elsewhere the mark means that the file ended within the packet.
        self._use_incomplete = "mpegts" in container.format.name
        stream.codec_context.thread_type = "AUTO"

    def __iter__(self) -> Iterator[VideoFrame]:
        """Draw the frames; the last, empty packet draws those that the decoder still holds."""
        for packet in self._packets():
            for frame in self._decode(packet):
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
            except av.FFmpegError:
                self._losses.unreadable += 1
                failures += 1
        yield None

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        if packet is not None and packet.is_corrupt:
            self._losses.incomplete += 1
            if not self._use_incomplete:
                return []
        try:
            return self._stream.decode(packet)
        except av.FFmpegError:
            self._losses.undecodable += 1
            return []
