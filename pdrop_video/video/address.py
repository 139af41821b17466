"""What may be opened, and how: a path, an address on the network or a device, told apart before FFmpeg sees a string.

A string means what it says and nothing else: FFmpeg's own `file:`, `concat:`, `subfile:` and the like are never
understood, and what an opened source may open in turn (a playlist its parts, a server its redirects) is limited to a
list of protocols. This module opens nothing.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Literal

from ..errors import ConfigError, VideoError

# For each kind of address, all that FFmpeg needs to read it, and no more.
_PROTOCOLS = {
    "http": "http,https,tcp,tls,crypto",
    "https": "http,https,tcp,tls,crypto",
    "rtsp": "rtsp,rtp,srtp,tcp,udp",
    "rtsps": "rtsps,rtsp,rtp,srtp,tcp,udp,tls",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,rtmp,tcp,tls",
    "tcp": "tcp",
    "udp": "udp",
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CAMERA = "v4l2"
_PROTOCOL_LIST = re.compile(r"[a-z0-9_+.-]+(,[a-z0-9_+.-]+)*")


@dataclass(frozen=True, slots=True)
class Connection:
    """How patiently to wait for a source on the network or a device.

    Attributes
    ----------
    connect_timeout, read_timeout : float
        Seconds to wait for the source to open, and for each packet of it.
    retries : int
        Attempts to open a lost live source again before it is given up; 0 gives it up at once.
    wait : float
        Seconds before the first of these attempts; each further wait is twice as long as the one before.
    longest_wait : float
        Most seconds between two attempts.
    decoder_timeout : float
        Seconds that decord may take to open a file, and for each chunk.
    options : mapping of str to str
        Passed to FFmpeg as they are, such as `{"video_size": "1280x720"}` for a camera.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    connect_timeout: float = 10.0
    read_timeout: float = 10.0
    retries: int = 6
    wait: float = 0.5
    longest_wait: float = 30.0
    decoder_timeout: float = 60.0
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("connect_timeout", "read_timeout", "wait", "longest_wait", "decoder_timeout"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value <= 0:
                raise ConfigError(f"{name} is {value!r}; expected a number of seconds above 0, such as 10.")
        if isinstance(self.retries, bool) or not isinstance(self.retries, Integral) or self.retries < 0:
            raise ConfigError(f"retries is {self.retries!r}; expected a whole number, 0 or more.")

    def waits(self) -> list[float]:
        """Give the seconds to wait before each attempt to open the source again."""
        return [min(self.wait * 2**attempt, self.longest_wait) for attempt in range(self.retries)]


@dataclass(frozen=True, slots=True)
class Address:
    """Where to read from, checked.

    Attributes
    ----------
    name : str
        The source as it was given, for messages; without the password if it is an address with one.
    url : str
        What FFmpeg opens.
    kind : {"file", "url", "device"}
        Whether it is a file, on the network, or a camera.
    format : str or None
        FFmpeg's name of the format or device, where it must not be guessed.
    protocols : str
        FFmpeg's `protocol_whitelist`; empty for devices, which use none.
    playlists : bool
        Whether a file may be a list of other files to open.
    """

    name: str
    url: str
    kind: Literal["file", "url", "device"]
    format: str | None = None
    protocols: str = ""
    playlists: bool = True

    @classmethod
    def of(cls, source: object, format: str | None = None, protocols: str | None = None) -> Address:
        """Tell what kind of source it is.

        Parameters
        ----------
        source : str or path
            A path, an address that begins with one of http, https, rtsp, rtsps, rtmp, rtmps, tcp and udp and "://",
            or a device: the path of a camera such as /dev/video0, or any name together with `format`.
        format : str or None
            FFmpeg's name of the format, as "v4l2", "avfoundation" or "dshow" for cameras.
        protocols : str or None
            Protocols that FFmpeg may use, separated by commas; None: files for a path, what it takes for an address.

        Raises
        ------
        ConfigError
            If `protocols` is not such a list.
        VideoError
            If the file is missing, a folder or empty, or the source is nothing of the above.
        """
        if not isinstance(source, str | os.PathLike):
            raise VideoError(
                f"the source is a {type(source).__name__}; expected the path of a video file or an address. Frames "
                "that are already in memory need no reader: push them to the stream with their seconds."
            )
        text = os.fspath(source)
        if not isinstance(text, str) or "\0" in text or not text:
            raise VideoError(f"the source is {text!r}; expected the path of a video file or an address.")
        if protocols is not None and not (isinstance(protocols, str) and _PROTOCOL_LIST.fullmatch(protocols)):
            raise ConfigError(f"protocols is {protocols!r}; expected names separated by commas, as 'http,https,tcp'.")
        scheme = _SCHEME.match(text) if isinstance(source, str) else None
        if scheme and scheme[1].lower() in _PROTOCOLS:
            return cls(_without_password(text), text, "url", format, protocols or _PROTOCOLS[scheme[1].lower()])
        path = Path(text).absolute()
        if format is not None and not path.is_file():
            return cls(text, text, "device", format)
        if scheme and not path.exists():
            raise VideoError(
                f"{_without_password(text)} is an address of a kind that is not opened; expected a path, or an address "
                f"that begins with one of {', '.join(_PROTOCOLS)}."
            )
        if path.exists() and stat.S_ISCHR(path.stat().st_mode):
            return cls(text, str(path), "device", _CAMERA)
        # An absolute path cannot be mistaken for one of FFmpeg's protocols ("concat:", "http:").
        return cls(text, str(_existing_file(path)), "file", format, protocols or "file", protocols is not None)


def _existing_file(path: Path) -> Path:
    if not path.exists():
        raise VideoError(f"there is no file {path}; expected an existing video file. Check the path.")
    if path.is_dir():
        raise VideoError(f"{path} is a folder; expected a video file. Name one of the files in it.")
    if path.is_file() and path.stat().st_size == 0:
        raise VideoError(f"{path} is empty (0 bytes); expected a video file. Was the copy or download finished?")
    return path


def _without_password(text: str) -> str:
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", text)
