"""The third backend: the wanted frames of a file, decoded by torchcodec, on a CUDA card where there is one.

Frames that a card decoded stay on it: the vision tower takes them from there. Which frames there are, and when each is
shown, is not left to it: the file's packets tell, as for the other backends.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from ..errors import ConfigError, VideoError
from .address import Address, Connection
from .decode import Losses
from .drawn import Shot
from .file import refuse_beyond_end
from .picture import Upright
from .sampling import Sampling
from .track import Track

_SAME = 1e-3
"""Seconds by which a frame's time may be another than its packet says: less than any two frames are apart."""


class TorchcodecFrames:
    """The wanted frames of a file, in the order of their times.

    Parameters
    ----------
    address : Address
        A file.
    connection : Connection
    sampling : Sampling
        Which frames to take.

    Attributes
    ----------
    info : VideoInfo
        What the container promises.
    device : str
        Where they are decoded, and stay: "cuda" where PyTorch finds a card, else "cpu".
    frames_decoded : int
        Frames that torchcodec handed over.

    Raises
    ------
    ConfigError
        If torchcodec is not installed or can't be loaded, or the source is no file.
    VideoError
        If the file can't be read, torchcodec fails, or it would give other pictures than the packets' times say.
    """

    reconnects = lost = 0
    silence, connected = 0.0, True

    def __init__(self, address: Address, connection: Connection, sampling: Sampling) -> None:
        made = _decoder_class()
        if address.kind != "file":
            raise ConfigError(f"decoder is 'torchcodec', which reads files alone here; use 'pyav' for {address.name}.")
        self.frames_decoded, self._name, self._stopped = 0, address.name, False
        track = Track(address, connection, Losses())
        try:
            upright = Upright(track.first, track.stills)
            self.info, index, self._origin = track.describe(upright), track.index(), track.origin
            if index is None or len(index.positions) != len(index.stamps):
                raise self._other("its packets do not tell which frames it has")
            if self.info.rotation or self.info.mirrored:
                raise self._other("it is stored turned or mirrored")
            self._ending = track.shortfall(index)
        finally:
            track.close()
        self._times = index.times
        sampling = sampling.knowing(self._times)
        refuse_beyond_end(sampling, self._times, self.info.duration, self._name)
        self._chosen, self._chunk = sampling.numbers(self._times), sampling.chunk
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._decoder: Any = made(address.url, dimension_order="NHWC", device=self.device)
            found = len(self._decoder)
        except Exception as error:  # whatever its operators raise
            raise self._failed(error) from error
        if found != len(self._times):
            raise self._other(f"it finds {found} frames, and the packets hold {len(self._times)}")

    def _other(self, why: str) -> VideoError:
        return VideoError(
            f"torchcodec would give other pictures of {self._name} than their times say: {why}; use decoder='pyav'."
        )

    def _failed(self, error: Exception) -> VideoError:
        said = str(error).strip().splitlines()
        return VideoError(
            f"torchcodec can't read {self._name} ({said[0] if said else type(error).__name__}); use decoder='pyav', or "
            "convert the file."
        )

    @property
    def warnings(self) -> list[str]:
        """What is known to be missing."""
        return [self._ending] if self._ending else []

    @property
    def last_time(self) -> Fraction:
        """Time of the last frame of the file."""
        return self._times[-1]

    def __iter__(self) -> Iterator[Shot]:
        """Draw the frames, a chunk of them at a time."""
        for first in range(0, len(self._chosen), self._chunk):
            numbers = self._chosen[first : first + self._chunk]
            if self._stopped:
                return
            try:
                drawn = self._decoder.get_frames_at(numbers)
            except Exception as error:
                raise self._failed(error) from error
            self.frames_decoded += len(numbers)
            for number, picture, seconds in zip(numbers, drawn.data, drawn.pts_seconds.tolist(), strict=True):
                if abs(seconds - float(self._times[number] + self._origin)) > _SAME:
                    raise self._other(f"its frame {number} is that of {seconds:.3f} s")
                yield Shot(picture, self._times[number], 0)

    def stop(self) -> None:
        """Draw no further chunk."""
        self._stopped = True

    def close(self) -> None:
        """Free the file."""
        self._stopped, self._decoder = True, None


def _decoder_class() -> Any:
    """Torchcodec's decoder of videos."""
    if find_spec("torchcodec") is None:
        raise ConfigError(
            "decoder is 'torchcodec', which is not installed here; install the release that fits your PyTorch (pip "
            "install 'pdrop-video[torchcodec]') and FFmpeg's libraries, or use 'pyav'."
        )
    try:
        return import_module("torchcodec.decoders").VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"decoder is 'torchcodec', which is installed and can't be loaded ({str(error).strip().splitlines()[0]}); "
            "it needs FFmpeg's libraries and the release that fits your PyTorch. Or use 'pyav'."
        ) from error
