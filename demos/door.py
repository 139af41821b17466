"""Who may come in, and to what: the page's own visitors and programs, to what the page needs and nothing besides.

Gradio answers at some eighty addresses: it fetches and stores for others, converts recordings, tells who used what.
"""

from __future__ import annotations

import re
import socket
from collections.abc import MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from .shown import Shown

_API = "/gradio_api"
_FILE = f"{_API}/file="
_NAME = "[^/]{1,200}"
_READ = re.compile(
    rf"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(assets|static|svelte)/.+"
    rf"|{_API}/(theme\.css|info/?|openapi\.json|app_id/?|user/?|login_check/?|startup-events|queue/(data|status)"
    rf"|upload_progress|heartbeat/{_NAME}|call/(v2/)?{_NAME}/{_NAME})"
)
_WRITTEN = re.compile(
    rf"{_API}/(upload|queue/join|cancel|reset/?|stream/{_NAME}(/close)?|(call|run|api)/{_NAME}/?|call/v2/{_NAME}/?)"
)
_PORTS = {"http": "80", "https": "443"}


class Door:
    """ASGI middleware in front of everything.

    Parameters
    ----------
    app : callable
        What it stands in front of.
    shown : Shown
        Answers for files.
    name : str
        By which this machine is known, besides its own.
    root : str
        Gradio's root path; if it is an address, its host is one of the page's own.
    """

    def __init__(self, app: Any, shown: Shown, name: str = "", root: str = "") -> None:
        self._app, self._shown = app, shown
        self._own = {_host(root)} if "://" in root else set()
        self._names = {"localhost", socket.gethostname().lower(), name.lower()}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Handle a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":  # the page has none
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._handle(scope, receive, send)

    async def _handle(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        headers, method = Headers(scope=scope), scope["method"]
        path = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))
        reading = method in ("GET", "HEAD")
        if self._rebound(scope, headers) or self._foreign(headers, reading and path == "/"):
            refusal = (
                "This page answers only to itself and to programs, not to other pages; open it by its own address."
            )
            await PlainTextResponse(refusal, 403)(scope, receive, send)
        elif reading and path.startswith(_FILE):
            await self._shown.answer(path.removeprefix(_FILE), scope, receive, send)
        elif (_READ if reading else _WRITTEN).fullmatch(path) and method in ("GET", "HEAD", "POST"):
            await self._app(scope, receive, send)
        else:
            await PlainTextResponse("There is nothing here.", 404)(scope, receive, send)

    def _foreign(self, headers: Headers, front: bool) -> bool:
        """Whether a browser asks on behalf of another page. Whoever is no browser says nothing of that."""
        fetch = headers.get("sec-fetch-site", "none")
        if front and headers.get("sec-fetch-mode", "navigate") == "navigate" and "origin" not in headers:
            return False  # somebody followed a link
        if fetch not in ("none", "same-origin"):
            return True
        page = headers.get("origin", "" if "sec-fetch-site" in headers else headers.get("referer", ""))
        return bool(page) and _host(page) not in self._own | self._own_names(headers, page)

    @staticmethod
    def _own_names(headers: Headers, page: str) -> set[str]:
        """What a page calls itself: its host, which a proxy may have put into a header of its own."""
        scheme = page.partition("://")[0]
        said = [headers.get("host", ""), headers.get("x-forwarded-host", "").split(",")[0].strip()]
        return {_host(f"{scheme}://{host}") for host in said if host}

    def _rebound(self, scope: MutableMapping[str, Any], headers: Headers) -> bool:
        """Whether another page's name was made to lead to this machine.

        Such a page is the same to a browser as this one. It says its own name and, as no proxy stands between, this
        server's port.
        """
        server = scope.get("server") or ("", None)
        if not _loopback(server[0]):
            return False
        name, _, port = _host(f"http://{headers.get('host', '')}").rpartition(":")
        known = name in self._names or name.endswith(".localhost") or _number(name)
        return not known and port == str(server[1])


def _host(address: str) -> str:
    """Host and port of an address, as "video.example:443"; "" where there is none."""
    try:
        parts = urlsplit(address)
        return f"{parts.hostname}:{parts.port or _PORTS.get(parts.scheme, '')}" if parts.hostname else ""
    except ValueError:
        return ""


def _number(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return False


def _loopback(name: str) -> bool:
    return _number(name) and ip_address(name).is_loopback
