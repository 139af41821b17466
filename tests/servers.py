"""Sources for the tests of live video, all on 127.0.0.1: servers that stall, die, refuse, and come back."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# What a server does with one connection: send bytes, wait, close.
Script = Callable[[socket.socket, threading.Event], None]


def send(data: bytes, then: str = "close", seconds: float = 0.0) -> Script:
    """Send `data`, over so many `seconds`; then close the connection, or leave it open and silent ("stall")."""

    def run(connection: socket.socket, over: threading.Event) -> None:
        parts = 20 if seconds else 1
        size = max(-(-len(data) // parts), 1)
        for first in range(0, len(data), size):
            connection.sendall(data[first : first + size])
            if over.wait(seconds / parts):
                return
        connection.settimeout(0.05)
        while then == "stall" and not over.is_set():
            with suppress(TimeoutError):
                if not connection.recv(1):
                    return  # the reader has gone

    return run


class Server:
    """A TCP server that plays one script for each connection, then refuses.

    Attributes
    ----------
    address : str
        As "tcp://127.0.0.1:40000".
    connections : int
        How many came.
    """

    def __init__(self, scripts: Sequence[Script], pause: float = 0.0) -> None:
        self.connections = 0
        self._scripts = list(scripts)
        self._pause = pause
        self._over = threading.Event()
        self._socket: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for number, script in enumerate(self._scripts):
            if number and self._pause:
                time.sleep(self._pause)
                self._socket = socket.create_server(("127.0.0.1", self.port))
            assert self._socket is not None
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            if self._pause:  # away until the pause is over
                self._socket.close()
            with connection, suppress(OSError):  # the reader has gone
                script(connection, self._over)
        self._socket.close()

    def close(self) -> None:
        """End the thread and everything that is open."""
        self._over.set()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        self._thread.join(5)


@contextmanager
def serving(*scripts: Script, pause: float = 0.0) -> Iterator[Server]:
    """Run a `Server`; with a `pause` it refuses connections for so many seconds between two of them."""
    server = Server(scripts, pause)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def web(folder: Path) -> Iterator[str]:
    """Serve a folder by HTTP: the address without a slash at the end."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with listening(partial(Quiet, directory=str(folder))) as address:
        yield address


@contextmanager
def listening(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server of HTTP, a thread for each request: its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class Replying(BaseHTTPRequestHandler):
    """A handler that answers in one go, and writes no log."""

    def reply(self, status: int, data: bytes, headers: Mapping[str, str], body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Posted:
    """A server of JSON; `asked` has what came: path, headers and body of each request, in order."""

    address: str = ""
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


@contextmanager
def answering(answer: Callable[[Any], tuple[int, dict[str, str], Any]]) -> Iterator[Posted]:
    """Serve POST requests: `answer` gets the parsed body and gives status, headers and what is sent as JSON."""
    said, lock = Posted(), threading.Lock()

    class Handler(Replying):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                said.asked.append((self.path, dict(self.headers), body))
                status, headers, content = answer(body)
            self.reply(status, content if isinstance(content, bytes) else json.dumps(content).encode(), headers)

    with listening(Handler) as said.address:
        yield said
