"""The second backend: the wanted frames of a file, decoded by decord in a process that can be killed.

decord may hang in native code while it holds Python's lock, and may crash; neither must take the caller along. Which
frames there are, and when each is shown, is not left to it: the file's packets tell, as for the first backend.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from bisect import bisect_left
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, VideoError
from .address import Address, Connection
from .decode import Losses
from .drawn import Shot
from .file import refuse_beyond_end
from .index import Index, is_true_key
from .picture import Upright
from .sampling import Sampling
from .source import open_stream
from .track import Track

_WORKER = Path(__file__).with_name("decord_worker.py")
# Containers in which decord finds the frame that it is asked for. In others it seeks to a place near it.
_CONTAINERS = ("mov", "matroska", "flv", "avi")


class DecordFrames:
    """The wanted frames of a file, in the order of their times.

    Parameters
    ----------
    address : Address
        A file.
    connection : Connection
        Its `decoder_timeout` is the most seconds for opening the file and for each chunk.
    sampling : Sampling
        Which frames to take.

    Attributes
    ----------
    info : VideoInfo
        What the container promises.
    frames_decoded : int
        Frames that decord handed over.

    Raises
    ------
    ConfigError
        If decord is not installed, or the source is no file.
    VideoError
        If the file cannot be read, or decord fails, hangs, or would give other pictures than the packets' times say.
    """

    reconnects = lost = 0
    silence, connected = 0.0, True

    def __init__(self, address: Address, connection: Connection, sampling: Sampling) -> None:
        if find_spec("decord") is None:
            raise ConfigError("decoder is 'decord', which is not installed here; pip install decord, or use 'pyav'.")
        if address.kind != "file":
            raise ConfigError(f"decoder is 'decord', which reads files alone; use 'pyav' for {address.name}.")
        self.frames_decoded = 0
        self._name = address.name
        self._limit = connection.decoder_timeout
        track = Track(address, connection, Losses())
        try:
            upright = Upright(track.first, track.stills)
            self.info = track.describe(upright)
            index = track.index()
            if self.info.mirrored:
                raise VideoError(f"{self._name} is stored mirrored, which decord ignores; use decoder='pyav'.")
            index = self._trusted(track, index)
            self._ending = track.shortfall(index)
        finally:
            track.close()
        self._times = index.times
        sampling = sampling.knowing(self._times)
        refuse_beyond_end(sampling, self._times, self.info.duration, self._name)
        self._chosen = sampling.numbers(self._times)
        self._chunk = sampling.chunk
        self._process = subprocess.Popen(
            [sys.executable, str(_WORKER), address.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            found = self._ask(None)["frames"]
            if found != len(self._times):
                raise VideoError(
                    f"decord finds {found} frames in {self._name}, whose packets hold {len(self._times)}; use "
                    "decoder='pyav'."
                )
        except BaseException:
            self.close()
            raise

    def _trusted(self, track: Track, index: Index | None) -> Index:
        """The index, if decord finds the frames that it tells of.

        decord numbers frames by the places of their packets and enters at any packet that is marked as a keyframe, so
        it is right where keyframes have the same place in the order of packets and in that of times.
        """
        container, said = track.container.format.name, None
        if index is None:
            said = "its packets do not tell which frames it has"
        elif not any(name in container for name in _CONTAINERS) or ("avi" in container and track.reorders):
            said = f"it looks for frames in the wrong place of such a container ({container})"
        elif len(track.container.streams.video) > 1:
            said = "there are several video streams"
        elif len(index.positions) != len(index.stamps):
            said = "some of its frames are hidden"
        elif any(key.position != bisect_left(index.stamps, key.pts) for key in index.keys):
            said = "it counts frames in the order of decoding, which is not that of their times"
        elif self.info.rotation and (track.stills or "mov" not in container):
            said = "it does not turn them upright"
        elif not _true_keys(track.address):
            said = "some of its keyframes are none that decoding can begin at"
        if index is None or said is not None:
            raise VideoError(
                f"decord would give other pictures of {self._name} than their times say: {said}; use decoder='pyav'."
            )
        return index

    @property
    def warnings(self) -> list[str]:
        """What is known to be missing; decord itself keeps silent about damage."""
        return [self._ending] if self._ending else []

    @property
    def last_time(self) -> Any:
        """Time of the last frame of the file."""
        return self._times[-1]

    def __iter__(self) -> Iterator[Shot]:
        """Draw the frames, a chunk of them at a time."""
        for first in range(0, len(self._chosen), self._chunk):
            numbers = self._chosen[first : first + self._chunk]
            pictures = self._ask(numbers)["pictures"]
            self.frames_decoded += len(pictures)
            for number, picture in zip(numbers, pictures, strict=True):
                yield Shot(picture, self._times[number], 0)

    def _ask(self, numbers: list[int] | None) -> dict[str, Any]:
        """Send a request (none: wait until the file is open) and read the answer; end a process that takes too long."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        watchdog = threading.Timer(self._limit, give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            answer = self._exchange(numbers)
        except (OSError, ValueError):  # the pipe broke, or what came through it is no answer
            answer = None
        finally:
            watchdog.cancel()
        if answer is None:
            what = "opening it" if numbers is None else f"decoding frames {numbers[0]} to {numbers[-1]}"
            how = f"took longer than {self._limit:g} s and was ended" if late.is_set() else "crashed"
            raise VideoError(
                f"decord {how} while {what}, in {self._name}. Use decoder='pyav', or allow more time with "
                "Connection(decoder_timeout=...)."
            )
        if "error" in answer:
            raise VideoError(
                f"decord cannot read {self._name} ({answer['error']}); use decoder='pyav', or convert the file."
            )
        return answer

    def _exchange(self, numbers: list[int] | None) -> dict[str, Any] | None:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        if numbers is not None:
            requests.write(json.dumps(numbers).encode() + b"\n")
            requests.flush()
        line = answers.readline()
        if not line.endswith(b"\n"):
            return None
        answer = json.loads(line)
        if "shape" in answer:
            pictures = _read_array(answers, tuple(answer["shape"]))
            return None if pictures is None else {"pictures": pictures}
        return answer

    def stop(self) -> None:
        """Kill the process; a wait for its answer ends at once."""
        self._process.kill()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # a request that was never read is still in the pipe
                pass


def _true_keys(address: Address) -> bool:
    container, stream = open_stream(address)
    try:
        return all(is_true_key(packet, stream) for packet in container.demux(stream) if packet.is_keyframe)
    finally:
        container.close()


def _read_array(stream: IO[bytes], shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    size = math.prod(shape)
    data = stream.read(size)
    return np.frombuffer(data, np.uint8).reshape(shape) if len(data) == size else None
