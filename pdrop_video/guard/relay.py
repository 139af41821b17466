"""A port of this machine that leads to one number on the network, and nowhere else.

FFmpeg looks names up itself, and follows an RTSP server that sends it elsewhere, whatever was checked before. Through a
relay it reaches the number that was checked, by TLS for the name that was checked, and no other. Knows no video.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass

import httpx

_PATIENCE = 10.0
"""Seconds for a connection to be made."""
_ELSEWHERE = b"\nlocation:"
"""How an RTSP answer sends one elsewhere; FFmpeg skips carriage returns, and takes small letters, too."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a relay leads.

    Attributes
    ----------
    number : str
    port : int
    name : str
        For TLS; empty for none.
    scheme : str
        What is spoken to the relay: "http", the certificate being checked, or "rtsp".
    """

    number: str
    port: int
    name: str
    scheme: str


class Relay:
    """The port, open as long as the context.

    Parameters
    ----------
    route : Route

    Attributes
    ----------
    host : str
        To connect to, as "127.0.0.1:40000".
    """

    def __init__(self, route: Route) -> None:
        self.route, self.host = route, ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="relay", daemon=True)

    def __enter__(self) -> Relay:
        self._context = self._tls() if self.route.name else None  # what can fail does so here, and not in the thread
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(RuntimeError):  # it may have ended with the interpreter
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        pairs: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            pair = asyncio.ensure_future(self._pair(reader, writer))
            pairs.add(pair)
            pair.add_done_callback(pairs.discard)

        server = await asyncio.start_server(connected, sock=self._socket)
        self._ready.set()
        await self._over.wait()
        server.close()
        for pair in pairs:
            pair.cancel()
        await asyncio.gather(*pairs, return_exceptions=True)

    def _tls(self) -> ssl.SSLContext:
        if self.route.scheme == "http":
            return httpx.create_ssl_context(trust_env=False)
        context = ssl.create_default_context()  # cameras sign for themselves
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    async def _pair(self, here: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        tls = self._context
        try:
            to = asyncio.open_connection(
                self.route.number, self.route.port, ssl=tls, server_hostname=self.route.name if tls else None
            )
            reader, there = await asyncio.wait_for(to, _PATIENCE)
            assert there is not None
            ways = [asyncio.ensure_future(_carry(here, there)), asyncio.ensure_future(self._back(reader, answer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.TimeoutError):
            pass  # whoever connected is told by the end of the connection
        finally:
            answer.close()
            if there is not None:
                there.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _carry(reader, writer, _ELSEWHERE if self.route.scheme == "rtsp" else None)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, until: bytes | None = None) -> None:
    """Carry bytes from one side to the other, to their end or until they say something."""
    last = b""
    while data := await reader.read(2**16):
        if until is not None:
            said = last + data.lower().replace(b"\r", b"")
            if until in said:
                return
            last = said[-len(until) :]
        writer.write(data)
        await writer.drain()
