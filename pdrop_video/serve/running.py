"""The application on a port, by uvicorn; connections that say nothing, and that take nothing, come to an end."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import ConfigError

_UNSPOKEN = 15.0
"""Seconds for a whole head of a request, from its first byte, and for the first one from when it could come."""
_UNTAKEN = 5.0
"""Seconds for a closed connection to take what was sent."""
_KEEP_ALIVE = 30
_GRACE = 5
"""Seconds for requests under way when the server is told to stop."""


class _Transport:
    """A transport that, once closed, does not wait for ever for the other side."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        self._transport.close()
        asyncio.get_running_loop().call_later(_UNTAKEN, self._transport.abort)


class Protocol(H11Protocol):
    """uvicorn's own, which waits for ever for the head of a request, and for the last byte to be taken."""

    def connection_made(self, transport: Any) -> None:
        """A client connects."""
        super().connection_made(_Transport(transport))  # type: ignore[arg-type]
        self._unspoken = self.loop.call_later(_UNSPOKEN, self.transport.close)

    def data_received(self, data: bytes) -> None:
        """It says something: a whole head ends the waiting, and the first bytes of the next one begin it anew."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._unspoken.cancel()
        elif self._unspoken.cancelled():
            self._unspoken = self.loop.call_later(_UNSPOKEN, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._unspoken.cancel()
        super().connection_lost(exc)


def listening(host: str, port: int) -> socket.socket:
    """A socket that a server may listen at.

    Raises
    ------
    ConfigError
        If it can't be had.
    """
    try:
        (family, *_, place), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(place[:2], family=family, backlog=512)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"the server can't listen at {host}, port {port}: {error}; choose another --host or --port."
        ) from error


def server_of(app: FastAPI, *, largest: int = 2**26) -> uvicorn.Server:
    """uvicorn, ready to serve an application.

    Parameters
    ----------
    app : FastAPI
    largest : int
        Bytes of a message of a WebSocket.
    """
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws_max_size=largest,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
        access_log=False,
        server_header=False,
        log_level="warning",
    )
    return uvicorn.Server(config)
