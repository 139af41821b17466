"""Events to somebody's address: POSTed as JSON in a thread of its own, tried again, and what did not arrive is said.

Knows HTTP and a bounded queue. Refuses to know what the events are, and keeps nobody waiting.
"""

from __future__ import annotations

import json
import urllib.request
from collections import deque
from collections.abc import Callable
from http.client import HTTPException
from threading import Condition, Thread
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ..common import checks
from ..errors import ConfigError

_AGAIN = (408, 425, 429)
"""Refusals that another attempt may change, beside those of 500 and above."""
_LONGEST = 30.0


class Webhook:
    """Posts one event after another, in order. Use it with ``with``, or call `close`.

    Parameters
    ----------
    url : str
        http or https.
    say : callable
        Gets a sentence about each event that was not delivered, from whichever thread finds it out.
    timeout : float
        Seconds that the server may let each part of its answer wait.
    attempts : int
        How often each event is tried.
    wait : float
        Seconds before the second attempt, twice as long before each further one, 30 at most.
    queue : int
        Most events that wait; the oldest give way.

    Attributes
    ----------
    delivered, lost : int
        Events that arrived, and that never will.

    Raises
    ------
    ConfigError
        If the address is none, or a number out of its bounds.
    """

    def __init__(
        self,
        url: str,
        say: Callable[[str], object],
        *,
        timeout: float = 10.0,
        attempts: int = 6,
        wait: float = 0.5,
        queue: int = 256,
    ) -> None:
        self.url, self._say = check_url(url), say
        self._timeout = checks.real("timeout", timeout, 0, above=True)
        self._attempts, self._wait = checks.whole("attempts", attempts), checks.real("wait", wait, 0)
        self._most = checks.whole("queue", queue)
        self.delivered = self.lost = 0
        self._changed = Condition()
        self._waiting: deque[dict[str, Any]] = deque()
        self._running: dict[str, Any] | None = None
        self._closing = self._over = False
        self._thread = Thread(target=self._work, name="pdrop-video webhook", daemon=True)
        self._thread.start()

    def put(self, event: dict[str, Any]) -> None:
        """Let an event be delivered; never waits."""
        gone = None
        with self._changed:
            if len(self._waiting) == self._most:
                gone = self._waiting.popleft()
            self._waiting.append(event)
            self._changed.notify_all()
        if gone is not None:
            self._lose(gone, f"{self._most} newer events wait")

    def close(self, patience: float = 10.0) -> None:
        """Wait for what is on its way, at most so many seconds; say what did not arrive, and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        try:
            self._thread.join(patience)
        finally:
            with self._changed:
                self._over = True
                left = [*([] if self._running is None else [self._running]), *self._waiting]
                self._waiting.clear()
                self._running = None
                self._changed.notify_all()
            for event in left:
                self._lose(event, f"there was no time for it within {patience:g} s")

    def __enter__(self) -> Webhook:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting or self._over:
                    return
                event = self._running = self._waiting.popleft()
            why = self._deliver(event)
            with self._changed:
                if self._over:  # whoever closed it has said that this one is lost
                    return
                self._running = None
                self.delivered += why is None
            if why is not None:
                self._lose(event, why)

    def _deliver(self, event: dict[str, Any]) -> str | None:
        """Try until it arrives; why it did not, if it did not."""
        why, wait = "", self._wait
        for attempt in range(self._attempts):
            if attempt:
                with self._changed:
                    if self._changed.wait_for(lambda: self._over, wait):
                        return why
                wait = min(2 * wait, _LONGEST)
            try:
                self._post(event)
                return None
            except HTTPError as error:
                error.close()
                why = f"it answered {error.code}"
                if error.code < 500 and error.code not in _AGAIN:
                    return why
            except (OSError, HTTPException, ValueError) as error:  # ValueError: an address that a redirect leads to
                why = str(getattr(error, "reason", "") or error) or type(error).__name__
        return f"{why}, {self._attempts} times" if self._attempts > 1 else why

    def _post(self, event: dict[str, Any]) -> None:
        body = json.dumps(event, ensure_ascii=False, allow_nan=False).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"}, method="POST")
        with _OPENER.open(request, timeout=self._timeout):
            pass

    def _lose(self, event: dict[str, Any], why: str) -> None:
        with self._changed:
            self.lost += 1
        said = json.dumps(event, ensure_ascii=False)
        self._say(f"not delivered to {urlsplit(self.url).hostname}: {said} ({why})")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A POST that is sent elsewhere would arrive there as a GET without its event."""

    def redirect_request(self, *args: Any) -> None:
        """Refuse; the answer's code is the error."""


_OPENER = urllib.request.build_opener(_NoRedirects)


def check_url(url: str) -> str:
    """An http or https address without a password in it.

    Raises
    ------
    ConfigError
    """
    try:
        parts = urlsplit(checks.text("the webhook", url))
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        whole = False
    if not whole or any(c.isspace() or not c.isprintable() or ord(c) > 127 for c in url):
        raise ConfigError(f"the webhook is {checks.shown(url)}; expected an address such as https://example.org/hook.")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("the webhook has a user's name or password in it; put a token into its path or its query.")
    return url
