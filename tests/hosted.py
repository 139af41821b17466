"""A server on a loopback port, in a thread of this process, so that tests can look at what it holds."""

from __future__ import annotations

import base64
import functools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from openai import OpenAI
from PIL import Image

import pdrop_video as pv
from pdrop_video.serve import Settings, create_app
from pdrop_video.serve.running import listening, server_of
from pdrop_video.serve.service import Service

CLIPS = Path(__file__).parent.parent / "demos" / "clips"
CLIP = CLIPS / "clip.mp4"


@functools.cache
def built_in() -> pv.VideoLM:
    return pv.load()


@dataclass(frozen=True)
class Hosted:
    """A running server."""

    url: str
    service: Service
    port: int

    def client(self, key: str = "none") -> OpenAI:
        plain = httpx.Client(timeout=60, trust_env=False, verify=False)
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60, http_client=plain)

    def http(self, **how: Any) -> httpx.Client:
        # nothing is encrypted here: to read the machine's certificates takes longer than most requests
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, verify=False, **how)

    def metric(self, name: str, **labels: str) -> float:
        return self.service.metrics.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def hosted(settings: Settings | None = None, lm: pv.VideoLM | None = None) -> Iterator[Hosted]:
    """A server for as long as the block lasts."""
    app = create_app(built_in() if lm is None else lm, settings or Settings(folders=(CLIPS,)))
    with listening("127.0.0.1", 0) as place:
        server = server_of(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        port = place.getsockname()[1]
        try:
            yield Hosted(f"http://127.0.0.1:{port}", app.state.service, port)
        finally:
            server.should_exit = True
            thread.join()


def until(true: Any) -> None:
    """Wait for the server to come somewhere; a test that waits in vain is ended by the watchdog."""
    while not true():
        time.sleep(0.005)


def picture(seed: int, height: int = 56, width: int = 84) -> np.ndarray[Any, Any]:
    """Random blocks of colour [height, width, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 14, width // 14, 3), np.uint8)
    return small.repeat(14, 0).repeat(14, 1)


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def as_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def watched(path: Path = CLIP, **how: Any) -> pv.VideoStream:
    """The built-in model's stream after a video, by the library alone."""
    return _watched(path, *how.items()).fork()


@functools.cache
def _watched(path: Path, *options: tuple[str, Any]) -> pv.VideoStream:
    """Watched once; its forks are streams of their own."""
    lm, how = built_in(), dict(options)
    stream = lm.stream(pv.Recipe())
    with pv.open_video(path, how.pop("fps", lm.adapter.fps), 8, **how) as video:
        for chunk in video:
            stream.push(chunk)
    return stream
