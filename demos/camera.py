"""Pictures from a visitor's browser as chunks of frames, newest first to stay: a camera does not wait."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

import pdrop_video as pv

_ON_ITS_WAY = 4.0
"""Seconds for which a picture may be under way."""
_PAGES = 256
"""Pages of which it is known that they let go their camera."""


class BrowserCamera:
    """A bounded queue of pictures; the oldest go when the model is slower than the camera.

    Parameters
    ----------
    chunk : int
        Most frames of a chunk; a chunk has what is there by then.
    step : int
        Fewest frames of a chunk.
    silence : float
        Seconds without a picture after which the camera counts as gone.

    Attributes
    ----------
    dropped : int
        Pictures that had to go.
    """

    info, reconnects, connected, warnings = None, 0, True, ()

    def __init__(self, chunk: int = 8, step: int = 2, silence: float = 30.0) -> None:
        self.dropped = 0
        self._chunk, self._step, self._silence = max(chunk, step), step, silence
        self._pictures: deque[tuple[NDArray[np.uint8], float]] = deque()
        self._changed = threading.Condition()
        self._began = self._heard = time.monotonic()
        self._closed = False

    @property
    def silence(self) -> float:
        """Seconds since the last picture."""
        return time.monotonic() - self._heard

    def put(self, picture: NDArray[np.uint8]) -> bool:
        """Take a picture [height, width, 3]; False once the camera was closed."""
        with self._changed:
            if self._closed:
                return False
            if len(self._pictures) == 2 * self._chunk:
                self._pictures.popleft()
                self.dropped += 1
            self._heard = time.monotonic()
            self._pictures.append((picture, self._heard - self._began))
            self._changed.notify_all()
            return True

    def close(self) -> None:
        """Take no more pictures."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __enter__(self) -> BrowserCamera:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[pv.FrameChunk]:
        while taken := self._take():
            for run in _alike(taken):
                pictures, seconds = zip(*run, strict=True)
                yield pv.FrameChunk(torch.from_numpy(np.stack(pictures)), seconds, "webcam")

    def _take(self) -> list[tuple[NDArray[np.uint8], float]]:
        with self._changed:
            heard = self._changed.wait_for(lambda: self._closed or len(self._pictures) >= self._step, self._silence)
            if self._closed or not heard:
                self._closed = True
                return []
            return [self._pictures.popleft() for _ in range(min(self._chunk, len(self._pictures)))]


class LetGo:
    """Pages whose camera was let go a moment ago: what it sent before is still on its way, and begins nothing.

    Parameters
    ----------
    clock : callable
        Seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pages: deque[tuple[str, float]] = deque(maxlen=_PAGES)

    def note(self, page: str) -> None:
        """The camera of a page was let go."""
        if page:
            self._pages.append((page, self._clock()))

    def just_now(self, page: str) -> bool:
        """Whether that was just now."""
        return self._clock() - dict(self._pages).get(page, -math.inf) < _ON_ITS_WAY


def _alike(
    taken: list[tuple[NDArray[np.uint8], float]],
) -> Iterator[list[tuple[NDArray[np.uint8], float]]]:
    """Runs of pictures of one size: a phone that is turned changes it."""
    run: list[tuple[NDArray[np.uint8], float]] = []
    for picture, seconds in taken:
        if run and run[-1][0].shape != picture.shape:
            yield run
            run = []
        run.append((picture, seconds))
    yield run
