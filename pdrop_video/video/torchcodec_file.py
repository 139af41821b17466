"""The third backend: the wanted frames of a file, decoded by torchcodec, on a CUDA card where there is one.

Frames that a card decoded stay on it: the vision tower takes them from there. Which frames there are, and when each is
shown, is not left to it: the file's packets tell, as for the other backends.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from ..errors import ConfigError, VideoError
from .address import Address, Connection
from .index import Index
from .numbered import NumberedFrames
from .sampling import Sampling
from .track import Track

_SAME = 1e-3
"""Seconds by which a frame's time may be another than its packet says: less than any two frames are apart."""


class TorchcodecFrames(NumberedFrames):
    """The wanted frames of a file, by torchcodec; parameters, attributes and errors are those of `NumberedFrames`.

    A `ConfigError` also says that torchcodec is not installed or can't be loaded, and a `VideoError` that it failed.

    Attributes
    ----------
    device : str
        Where they are decoded, and stay: "cuda" where PyTorch finds a card, else "cpu".
    """

    decoder = "torchcodec"

    def __init__(self, address: Address, connection: Connection, sampling: Sampling) -> None:
        made = _decoder_class()
        super().__init__(address, connection, sampling)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._decoder: Any = made(address.url, dimension_order="NHWC", device=self.device)
            found = len(self._decoder)
        except Exception as error:  # whatever its operators raise
            raise self._failed(error) from error
        self._check_count(found)

    def _unfit(self, track: Track, index: Index) -> str | None:
        if len(index.positions) != len(index.stamps):
            return "some of its frames are hidden"
        return "it is stored turned or mirrored" if self.info.rotation or self.info.mirrored else None

    def _failed(self, error: Exception) -> VideoError:
        said = str(error).strip().splitlines()
        return VideoError(
            f"torchcodec can't read {self._name} ({said[0] if said else type(error).__name__}); use decoder='pyav', or "
            "convert the file."
        )

    def _drawn(self, numbers: list[int]) -> Any:
        try:
            drawn = self._decoder.get_frames_at(numbers)
        except Exception as error:
            raise self._failed(error) from error
        for number, seconds in zip(numbers, drawn.pts_seconds.tolist(), strict=True):
            if abs(seconds - float(self._times[number] + self._origin)) > _SAME:
                raise self._other(f"its frame {number} is that of {seconds:.3f} s")
        return drawn.data

    def close(self) -> None:
        """Free the file."""
        self.stop()
        self._decoder = None


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
