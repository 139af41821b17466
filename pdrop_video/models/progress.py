"""Progress bars of transformers, which come only where loading takes long. Knows no models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging

DELAY = 3.0
"""Seconds before a bar appears."""


@contextmanager
def late_bars() -> Iterator[None]:
    """Let bars that begin in the block wait before they appear; what the program has set for bars comes back after it.

    For one thread at a time.
    """

    def late(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kwargs = {"delay": DELAY} | kwargs
        return factory(*args, **kwargs) if before is None else before(factory, args, kwargs)

    before = logging.set_tqdm_hook(late)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)
