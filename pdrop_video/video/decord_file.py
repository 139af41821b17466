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
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, VideoError
from .address import Address, Connection
from .index import Index, is_true_key
from .numbered import NumberedFrames
from .sampling import Sampling
from .source import open_stream
from .track import Track

_WORKER = Path(__file__).with_name("decord_worker.py")
# Containers in which decord finds the frame that it is asked for. In others it seeks to a place near it.
_CONTAINERS = ("mov", "matroska", "flv", "avi")


class DecordFrames(NumberedFrames):
    """The wanted frames of a file, by decord; parameters, attributes and errors are those of `NumberedFrames`.

    The connection's `decoder_timeout` is the most seconds for opening the file and for each chunk. A `ConfigError` also
    says that decord is not installed, and a `VideoError` that it failed or hung.
    """

    decoder = "decord"

    def __init__(self, address: Address, connection: Connection, sampling: Sampling) -> None:
        if find_spec("decord") is None:
            raise ConfigError("decoder is 'decord', which is not installed here; pip install decord, or use 'pyav'.")
        super().__init__(address, connection, sampling)
        self._limit = connection.decoder_timeout
        self._process = subprocess.Popen(
            [sys.executable, str(_WORKER), address.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._check_count(self._ask(None)["frames"])
        except BaseException:
            self.close()
            raise

    def _unfit(self, track: Track, index: Index) -> str | None:
        """Why decord would not find the frames that an index tells of.

        It numbers frames by the places of their packets and enters at any packet that is marked as a keyframe, so it is
        right where keyframes have the same place in the order of packets and in that of times.
        """
        container = track.container.format.name
        if self.info.mirrored:
            return "it is stored mirrored, which decord ignores"
        if not any(name in container for name in _CONTAINERS) or ("avi" in container and track.reorders):
            return f"it looks for frames in the wrong place of such a container ({container})"
        if len(track.container.streams.video) > 1:
            return "there are several video streams"
        if len(index.positions) != len(index.stamps):
            return "some of its frames are hidden"
        if any(key.position != bisect_left(index.stamps, key.pts) for key in index.keys):
            return "it counts frames in the order of decoding, which is not that of their times"
        if self.info.rotation and (track.stills or "mov" not in container):
            return "it does not turn them upright"
        return None if _true_keys(track.address) else "some of its keyframes are none that decoding can begin at"

    def _drawn(self, numbers: list[int]) -> Any:
        return self._ask(numbers)["pictures"]

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
        super().stop()
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
