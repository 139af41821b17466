"""Who may come in, how often, with how much, and how slowly: ASGI middleware in front of everything.

Knows keys, addresses, bytes and clocks. Refuses to know what is asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import MutableMapping
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, urlsplit

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from ..guard import Allowance, counted_by
from .metrics import Metrics
from .refusals import Refusal, answered, refusal_of
from .settings import Settings

CLIENT = "pdrop_video.client"
"""Where in the scope of a request it stands who sent it."""
_OPEN = ("/health", "/docs", "/openapi.json")
"""What needs no key: it tells nothing of anybody's."""


class Stalled(Exception):
    """A client that takes nothing any more."""


class Door:
    """The door of one server.

    Parameters
    ----------
    app : callable
    settings : Settings
    metrics : Metrics
    """

    def __init__(self, app: Any, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        most = settings.limits
        self._digests = [_digest(key) for key in settings.keys]
        self._at_once = [Allowance("requests", most.requests_each, most.requests) for _ in range(2)]
        self._rate = RateLimitItemPerMinute(most.per_minute)
        self._rates = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._names = {"localhost", "testserver", *(name.lower() for name in settings.hosts)}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Handle a request or a WebSocket."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            who = self._let_in(scope)
        except Refusal as error:
            await self._refuse(error, scope, receive, send)
            return
        scope[CLIENT] = who[0]
        with ExitStack() as taken:
            try:
                for allowance, each in zip(self._at_once, who, strict=False):
                    allowance.take(each)
                    taken.callback(allowance.give_back, each)
            except Exception as error:
                await self._refuse(error, scope, receive, send)
                return
            with self._metrics.in_flight.track_inprogress():
                await self._handle(scope, receive, send)

    async def _handle(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        stall, most, taken, whole, status = self._settings.limits.stall, self._settings.limits.body, 0, False, 0

        async def bounded() -> Any:
            nonlocal taken, whole
            if whole or scope["type"] != "http":
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), stall)
            except asyncio.TimeoutError:
                raise HTTPException(408, f"Nothing came for {stall:g} seconds; send the request again.") from None
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if taken > most:
                raise HTTPException(413, f"A request may have {most:,} bytes here; send less at a time.")
            return message

        async def patient(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            try:
                await asyncio.wait_for(send(message), stall)
            except asyncio.TimeoutError:
                raise Stalled from None

        try:
            if scope["type"] == "http":
                promised = Headers(scope=scope).get("content-length", "0")
                if not promised.isdecimal() or int(promised[:20]) > most:
                    raise HTTPException(413, f"A request may have {most:,} bytes here; send less at a time.")
            await self._app(scope, bounded, patient)
        except Stalled:
            return  # what is left of the connection is closed by the server
        except HTTPException as error:
            await self._refuse(error, scope, receive, send)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, str(status)).inc()

    def _let_in(self, scope: MutableMapping[str, Any]) -> tuple[str, ...]:
        """By what a client is counted: its key and its address, or its address alone."""
        headers = Headers(scope=scope)
        address = counted_by(scope["client"][0] if scope.get("client") else "")
        who: tuple[str, ...] = (f"address {address}",)
        if scope["path"] not in _OPEN:
            if self._digests:
                who = (f"key {self._key(scope, headers)}", *who)
            else:
                self._check_names(headers)
        for each in who:
            if not self._rates.hit(self._rate, each):
                raise Refusal(
                    f"More than {self._settings.limits.per_minute:,} requests came in a minute; try again later.",
                    429,
                    "rate_limit_exceeded",
                    retry=10,
                )
        return who

    def _key(self, scope: MutableMapping[str, Any], headers: Headers) -> str:
        """The digest of a key that is known."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            key = ""
        if not key and scope["type"] == "websocket":  # browsers can't send headers with one
            (key,) = parse_qs(scope["query_string"].decode("latin-1")).get("api_key", [""])[:1]
        given = _digest(key.strip())
        if not any([hmac.compare_digest(given, known) for known in self._digests]):  # all of them, in constant time
            raise Refusal(
                "No API key that this server knows came with the request; send 'Authorization: Bearer KEY'.",
                401,
                "invalid_api_key",
            )
        return given[:16]

    def _check_names(self, headers: Headers) -> None:
        """Without keys, other people's pages in a browser on this machine must not come in."""
        host, origin = headers.get("host", ""), headers.get("origin")
        name = _name(f"//{host}")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if foreign or not (name in self._names or _is_number(name)):
            raise Refusal(
                "This server answers only by its own names and not to other pages; start it with --api-key, or "
                "with --host-name NAME.",
                403,
                "foreign_host",
            )

    async def _refuse(self, error: Exception, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": str(error)[:100]})
            return
        self._metrics.requests.labels("none", str(refusal_of(error).status)).inc()
        response = answered(error)
        response.headers["connection"] = "close"  # whatever of the request was not read is not waited for
        await response(scope, receive, send)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _name(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


def _is_number(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
