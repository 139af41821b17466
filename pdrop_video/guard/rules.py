"""What a stranger may let the server open: files in the server's own folders, and addresses on the public network.

A path is refused unless it lies in one of the folders as it is written: no "..", no symbolic links, no `file:` or any
other of FFmpeg's own notations; nor hidden files. An address is resolved first and refused if any of its numbers is not
public; what is then opened is the number that was checked, and no list of other addresses. Opens nothing itself but the
answers of web servers that send one elsewhere.
"""

from __future__ import annotations

import asyncio
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx

from ..errors import PDropError
from .networks import is_public as _is_public
from .relay import Route

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443, "tcp": 0, "udp": 0}
_CAMERA = re.compile(r"/dev/video\d{1,3}")
# All that is not a list of other addresses to open.
_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,live_flv,ogg,asf,mjpeg,mpjpeg,h264,hevc,ivf,m4v"
_ONE_FILE = {"format_whitelist": _FORMATS}
_LONGEST = 2000
"""Characters of what somebody writes."""
_MOST_REDIRECTS = 5
_PATIENCE = 10.0
"""Seconds for all of them, however slowly a server speaks."""


class Refused(PDropError):
    """The server does not open this; the message says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Source:
    """Something that may be opened.

    Attributes
    ----------
    name : str
        What the user wrote, without a password.
    target : str
        What to open: the path, or the address with its host's number.
    live : bool
        Whether it has no end: a camera or a stream.
    options : dict of str to str
        For FFmpeg.
    protocols : str or None
        Those that FFmpeg may use; None for what it takes for such a target.
    route : Route or None
        Where a relay must lead through which it is opened, if it must.
    """

    name: str
    target: str
    live: bool = False
    options: dict[str, str] = field(default_factory=dict)
    protocols: str | None = None
    route: Route | None = None


@dataclass(frozen=True, slots=True)
class Guard:
    """The rules of one server.

    Attributes
    ----------
    folders : tuple of Path
        Where files may be read from, uploads included.
    private : bool
        Whether addresses on private networks, this machine's included, may be opened.
    devices : bool
        Whether this machine's cameras may be opened.
    """

    folders: tuple[Path, ...]
    private: bool = False
    devices: bool = False

    def source(self, text: str, *, live: bool = False) -> Source:
        """Check what somebody wrote.

        Parameters
        ----------
        text : str
            A path, an address, or a camera such as /dev/video0.
        live : bool
            Whether an address is to be watched without an end.

        Raises
        ------
        Refused
            If it may not be opened.
        """
        text = text.strip()
        if not text or not text.isprintable() or len(text) > _LONGEST:
            raise Refused("Type the name of a video in the server's folder, or an address such as https://...")
        if text.startswith("/dev/"):
            return self._camera(text)
        if _SCHEME.match(text):
            return self._address(text, live)
        return Source(text, str(self.file(text)))

    def file(self, text: str) -> Path:
        """A file in one of the folders; the same refusal for all that is elsewhere, whether it exists or not."""
        written = Path(text)
        for folder in map(Path.resolve, self.folders):
            path = written if written.is_absolute() else folder / written
            # resolve() follows links and takes ".." away, so a path equal to it is what it seems
            try:
                inside = path.relative_to(folder).parts
                if path.resolve() == path and path.is_file() and not any(part.startswith(".") for part in inside):
                    return path
            except (OSError, RuntimeError, ValueError):  # a name too long, a circle of links
                continue
        raise Refused(
            f"There is no video {text!r} in the folders that this server may read; send it, or start the server with "
            "--videos FOLDER."
        )

    def _camera(self, text: str) -> Source:
        if not _CAMERA.fullmatch(text):
            raise Refused(f"{text!r} is not a camera; expected a name such as /dev/video0.")
        if not self.devices:
            raise Refused("This server does not open its own cameras; start it with --allow-devices if it should.")
        return Source(text, text, live=True)

    def _address(self, text: str, live: bool) -> Source:
        parts = split_address(text)
        live = live or parts.scheme not in ("http", "https")
        if self.private:
            return Source(shown_address(parts), text, live)
        if parts.scheme in ("http", "https"):
            text, parts = _followed(text, parts)
        if parts.scheme == "udp" or (parts.scheme == "tcp" and (parts.query or not parts.port)):
            # either would open a port of this machine
            raise Refused(f"{text!r} is not opened for visitors; start the server with --allow-private if it should.")
        number = public_number(parts)
        name, target = shown_address(parts), with_host(parts, number)
        if parts.scheme in ("http", "https"):
            headers = f"Host: {parts.netloc.rpartition('@')[2]}\r\n"
            options = {"headers": headers, "max_redirects": "0", **_ONE_FILE}
            if parts.scheme == "http":
                return Source(name, target, live, options)
            return Source(name, text, live, options, route=Route(number, _port(parts), parts.hostname or "", "http"))
        if parts.scheme in ("rtsp", "rtsps"):
            route = Route(number, _port(parts), (parts.hostname or "") if parts.scheme == "rtsps" else "", "rtsp")
            return Source(name, target, live, {"rtsp_transport": "tcp"}, "rtsp,rtp,tcp", route)  # nothing by UDP
        return Source(name, target, live, dict(_ONE_FILE))


def _followed(text: str, parts: SplitResult) -> tuple[str, SplitResult]:
    """Where a web address leads in the end, each step checked; FFmpeg then follows none."""
    try:
        return asyncio.run(asyncio.wait_for(_end_of(text, parts), _PATIENCE))
    except (asyncio.TimeoutError, httpx.TimeoutException) as error:
        raise Refused(
            f"{shown_address(parts)} does not answer within {_PATIENCE:g} seconds; try again later."
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Refused(
            f"{shown_address(parts)} cannot be reached ({str(error) or type(error).__name__}); check the address."
        ) from error


async def _end_of(text: str, parts: SplitResult) -> tuple[str, SplitResult]:
    first = shown_address(parts)
    async with httpx.AsyncClient(timeout=_PATIENCE, trust_env=False) as client:
        for _ in range(_MOST_REDIRECTS + 1):
            url = with_host(parts, public_number(parts))
            host = {"Host": parts.netloc.rpartition("@")[2]}
            request = client.build_request("GET", url, headers=host, extensions={"sni_hostname": parts.hostname})
            response = await client.send(request, stream=True)  # the head alone
            await response.aclose()
            if not response.is_redirect:
                return text, parts
            text = urljoin(text, response.headers["location"])
            parts = split_address(text)
    raise Refused(f"{first} sends one elsewhere more than {_MOST_REDIRECTS} times; give the last address.")


def public_number(parts: SplitResult) -> str:
    """The number of an address's host, if all the numbers that its name stands for are public.

    Raises
    ------
    Refused
        If one is not, or there is none.
    """
    host = parts.hostname or ""
    try:
        found = socket.getaddrinfo(host, _port(parts), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Refused(f"The host {host!r} cannot be found; check the address.") from error
    numbers = [str(entry[4][0]) for entry in found]
    if not numbers or not all(map(_is_public, numbers)):
        raise Refused(
            f"The host {host!r} is on a private network, which this server does not open for visitors; start it with "
            "--allow-private if it should."
        )
    return numbers[0]


def split_address(text: str) -> SplitResult:
    """The parts of an address of one of the kinds that may be opened; raises `Refused` for others."""
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.scheme not in _PORTS:
        raise Refused(f"{text.partition('@')[2] or text!r} is not opened; expected an address of {', '.join(_PORTS)}.")
    return parts


def _port(parts: SplitResult) -> int:
    return parts.port or _PORTS[parts.scheme]


def with_host(parts: SplitResult, number: str) -> str:
    """An address whose host is a number."""
    user, at, _ = parts.netloc.rpartition("@")
    host = f"[{number}]" if ":" in number else number
    port = f":{parts.port}" if parts.port else ""
    return parts._replace(netloc=f"{user}{at}{host}{port}").geturl()


def shown_address(parts: SplitResult) -> str:
    """An address without user and password."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
