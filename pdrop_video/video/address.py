"""What may be opened, and how: a path, an address on the network or a device, told apart before FFmpeg sees a string.

A string means what it says and nothing else: FFmpeg's own `file:`, `concat:`, `subfile:` and the like are never
understood, and what an opened source may open in turn (a playlist its parts, a server its redirects) is limited to a
list of protocols. This module opens nothing.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import av

from ..common.checks import real, shown, whole
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
# What looks like an address all the same, as data:, pipe: and blob:; one letter is a drive.
_OTHER_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_CAMERA = "v4l2"
_MOST_RETRIES = 1_000_000
_SHOWN = 80
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
            real(name, getattr(self, name), 0, above=True)
        whole("retries", self.retries, 0, _MOST_RETRIES)
        options = self.options
        if not isinstance(options, Mapping) or not all(isinstance(text, str) for text in (*options, *options.values())):
            raise ConfigError(f"options is {shown(options)}; expected texts by name, as {{'video_size': '640x480'}}.")

    def waits(self) -> list[float]:
        """Give the seconds to wait before each attempt to open the source again."""
        return [min(self.wait * 2.0 ** min(attempt, 64), self.longest_wait) for attempt in range(self.retries)]


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
        FFmpeg's `protocol_whitelist`; devices use none, but other formats that go by a name may.
    playlists : bool
        Whether a file may be a list of other files to open.
    """

    name: str
    url: str
    kind: Literal["file", "url", "device"]
    format: str | None = None
    protocols: str = ""
    playlists: bool = True

    @property
    def raw(self) -> bool:
        """Whether bytes are read from a bare socket, without asking for anything."""
        return self.url.lower().startswith(("tcp:", "udp:"))

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
            If `protocols` is not such a list, or FFmpeg has no such format.
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
            raise VideoError(f"the source is {shown(text)}; expected the path of a video file or an address.")
        if protocols is not None and not (isinstance(protocols, str) and _PROTOCOL_LIST.fullmatch(protocols)):
            raise ConfigError(
                f"protocols is {shown(protocols)}; expected names separated by commas, as 'http,https,tcp'."
            )
        named = format is not None and _goes_by_name(format)
        name = _sayable(_without_password(text))
        scheme = _SCHEME.match(text) if isinstance(source, str) else None
        if scheme and scheme[1].lower() in _PROTOCOLS:
            if not text.isprintable():  # a line break would begin another line of the request
                raise VideoError(f"the source is {shown(name)}; expected an address without control characters.")
            return cls(name, text, "url", format, protocols or _PROTOCOLS[scheme[1].lower()])
        path, trouble = Path(text).absolute(), None
        try:
            found = path.stat() if path.exists() else None
        except OSError as error:  # too long for a name, or in a folder that may not be looked into
            found, trouble = None, error
        if named and (found is None or not stat.S_ISREG(found.st_mode)):
            return cls(_cut(name), text, "device", format, protocols or "file")
        if found is None and isinstance(source, str) and _OTHER_SCHEME.match(text):
            raise VideoError(
                f"{_cut(name)} is an address of a kind that is not opened; expected a path, or an address that begins "
                f"with one of {', '.join(_PROTOCOLS)} and '://'."
            )
        if trouble is not None:
            raise VideoError(f"{_cut(name)} is no file that can be read ({trouble.strerror}); expected a video file.")
        if found is not None and stat.S_ISCHR(found.st_mode):
            return cls(name, str(path), "device", _CAMERA, protocols or "file")
        # An absolute path cannot be mistaken for one of FFmpeg's protocols ("concat:", "http:").
        return cls(name, str(_existing_file(path, found)), "file", format, protocols or "file", protocols is not None)


def _goes_by_name(format: object) -> bool:
    """Whether a format reads what a name stands for, as a device or numbered pictures, and no file of that name."""
    try:
        return bool(av.ContainerFormat(format, "r").no_file)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ConfigError(
            f"format is {shown(format)}; expected the name of a format that FFmpeg reads, as 'v4l2' or 'mpegts'."
        ) from None


def _existing_file(path: Path, found: os.stat_result | None) -> Path:
    said = _sayable(str(path))
    if found is None:
        raise VideoError(f"there is no file {said}; expected an existing video file. Check the path.")
    if stat.S_ISDIR(found.st_mode):
        raise VideoError(f"{said} is a folder; expected a video file. Name one of the files in it.")
    if stat.S_ISREG(found.st_mode) and found.st_size == 0:
        raise VideoError(f"{said} is empty (0 bytes); expected a video file. Was the copy or download finished?")
    return path


def _sayable(text: str) -> str:
    """A name as a message can hold it: a file's need not be text."""
    return text.encode("utf-8", "backslashreplace").decode()


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _without_password(text: str) -> str:
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", text)
