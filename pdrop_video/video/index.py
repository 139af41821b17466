"""Where the frames of a file are, learnt from its packets without decoding one.

A packet carries the time at which its frame is shown and whether decoding can begin there. That is enough to count a
file's frames, to choose among them, and to know where to seek; nothing here looks at a picture.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import TypeVar, overload

import av
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

# Containers whose demultiplexer finds a keyframe by its time. A transport stream has no such table: it is read through.
_SEEKABLE = ("mov", "matroska")
# Frames that may be decoded before a frame and shown after it, in any codec that reorders at all.
_MOST_REORDERED = 16
# Packets without a keyframe among them after which none is waited for: some files mark no packet at all.
_MOST_HEADLESS = 600

# The units in which these codecs begin anew.
_TRUE_KEYS = {"h264": "5", "hevc": "16-21"}

Fed = TypeVar("Fed", bound="Packet[VideoStream] | None")


@dataclass(frozen=True, slots=True)
class Key:
    """A packet at which decoding can begin.

    Attributes
    ----------
    pts, dts : int and int or None
        When its frame is shown and decoded, in units of the stream's time base.
    position : int
        Its place among the stream's packets.
    """

    pts: int
    dts: int | None
    position: int


class Times(Sequence[Fraction]):
    """Seconds from the start of the video, in increasing order, worked out one by one from whole numbers.

    Parameters
    ----------
    stamps : list of int
        Presentation times in units of `time_base`, sorted.
    time_base : Fraction
        Seconds in a unit.
    origin : Fraction
        The time, in seconds on the container's scale, from which to count.
    """

    def __init__(self, stamps: list[int], time_base: Fraction, origin: Fraction) -> None:
        self._stamps = stamps
        self._time_base = time_base
        self._origin = origin

    def __len__(self) -> int:
        """Count the frames."""
        return len(self._stamps)

    @overload
    def __getitem__(self, index: int) -> Fraction: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Fraction]: ...
    def __getitem__(self, index: int | slice) -> Fraction | Sequence[Fraction]:
        """Give a frame's time."""
        if isinstance(index, slice):
            return [self.of(stamp) for stamp in self._stamps[index]]
        return self.of(self._stamps[index])

    def of(self, stamp: int) -> Fraction:
        """Give the time of any presentation time."""
        return stamp * self._time_base - self._origin


@dataclass(frozen=True, slots=True)
class Index:
    """The frames of a sound file.

    Attributes
    ----------
    times : Times
        When each frame is shown.
    stamps : list of int
        The same in units of the stream's time base, sorted.
    positions : dict of int to int
        The place of each packet among the stream's packets, by its presentation time.
    keys : list of Key
        In the order of presentation.
    ended : int
        When the last frame is no longer shown, in units of the time base.
    seekable : bool
        Whether the container can be entered at a keyframe.
    """

    times: Times
    stamps: list[int]
    positions: dict[int, int]
    keys: list[Key]
    ended: int
    seekable: bool

    def key_before(self, stamp: int) -> int:
        """Give the place in `keys` of the last one shown at or before `stamp`; -1 if there is none."""
        return bisect_right(self.keys, stamp, key=lambda key: key.pts) - 1

    def first_from(self, stamp: int) -> int | None:
        """Give the first frame shown at or after `stamp`, by its presentation time; None after the last."""
        place = bisect_left(self.stamps, stamp)
        return self.stamps[place] if place < len(self.stamps) else None


def from_keyframe(packets: Iterable[Fed]) -> tuple[int, Iterator[Fed]]:
    """Pass over what comes before the first keyframe, which a recording begun between two cannot show.

    Returns
    -------
    tuple of int and iterator
        How many packets were passed over, and those from the keyframe on; 0 and all of them where none is marked.
    """
    rest = iter(packets)
    early: list[Fed] = []
    for packet in rest:
        if packet is not None and packet.is_keyframe:
            return len(early), chain((packet,), rest)
        early.append(packet)
        if len(early) == _MOST_HEADLESS:
            break
    return 0, chain(early, rest)


def is_true_key(packet: Packet[VideoStream], stream: VideoStream) -> bool:
    """Whether all can be decoded from a packet on that is marked as a keyframe: it may be a mere point of recovery."""
    codec = stream.codec_context.name
    if codec not in _TRUE_KEYS:
        return True
    try:
        begins = BitStreamFilterContext(f"filter_units=pass_types={_TRUE_KEYS[codec]}", stream)
        return bool(begins.filter(Packet(bytes(packet))))  # a copy, since what is filtered is used up
    except av.FFmpegError:  # what cannot even be parsed
        return False


def build_index(container: InputContainer, stream: VideoStream) -> Index | None:
    """Read all packets of a freshly opened stream; what is in them stays coded.

    Returns
    -------
    Index or None
        None if the packets do not tell which frames decoding them would give: where times are missing, repeated or out
        of any order that the decoder restores, a packet is damaged, or the first frames rest on some that are missing.
    """
    reorder = _MOST_REORDERED if stream.codec_context.has_b_frames else 0
    stamps: list[int] = []
    positions: dict[int, int] = {}
    keys: list[Key] = []
    ended = 0
    try:
        passed, packets = from_keyframe(_video_packets(container, stream))
        for packet in packets:
            if packet.pts is None or packet.pts in positions or packet.is_corrupt:
                return None
            if packet.is_keyframe:
                if not keys and not is_true_key(packet, stream):
                    return None
                keys.append(Key(packet.pts, packet.dts, len(positions)))
            positions[packet.pts] = len(positions)
            if passed or not keys or packet.pts < keys[0].pts:
                return None  # no keyframe comes first, and the decoder alone knows what it makes of that
            if packet.is_discard:  # before the beginning that an edit list sets: decoded, never shown
                continue
            if stamps and len(stamps) - bisect_left(stamps, packet.pts) > reorder:
                return None
            insort(stamps, packet.pts)
            ended = max(ended, packet.pts + (packet.duration or 0))
    except av.FFmpegError:
        return None
    if not stamps or stream.time_base is None:
        return None
    origin = min(stamps[0], stream.start_time if stream.start_time is not None else stamps[0]) * stream.time_base
    keys.sort(key=lambda key: key.pts)
    seekable = any(name in container.format.name for name in _SEEKABLE)
    return Index(Times(stamps, stream.time_base, origin), stamps, positions, keys, ended, seekable)


def _video_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    return (packet for packet in container.demux(stream) if packet.size)
