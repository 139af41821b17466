"""How a checked source is opened: where it must be through a relay, through that. Refuses to know how it is sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..errors import VideoError
from .relay import Relay
from .rules import Source

Reader = TypeVar("Reader")


@contextmanager
def reading(source: Source, read: Callable[[str], Any]) -> Iterator[Any]:
    """The reader of a source, for as long as the block lasts.

    Parameters
    ----------
    source : Source
    read : callable
        Opens a path or an address, with the source's own options; a context manager.
    """
    if source.route is None:
        with read(source.target) as reader:
            yield reader
        return
    with Relay(source.route) as relay:
        parts = urlsplit(source.target)
        user, at, host = parts.netloc.rpartition("@")
        here = parts._replace(scheme=source.route.scheme, netloc=f"{user}{at}{relay.host}")
        try:
            with read(here.geturl()) as reader:
                yield reader
        except VideoError as error:  # the visitor knows nothing of the relay
            raise VideoError(str(error).replace(relay.host, host)) from error
