"""Does the server hold many sessions for long? Nothing may be lost, memory stays flat, and first tokens come soon.

python -m eval.bench.serve --json
python -m eval.bench.serve --minutes 1 --sessions 8
"""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import httpx
import pandas as pd
import typer
from PIL import Image

from .common import AsJson, Out, report
from .soak import CHUNK, frames_of

_PATH = "/v1/streaming/sessions"
_START = ("-c", "from pdrop_video.cli import app; app()", "serve")
_QUESTION = "how many things are shown?"


class Load:
    """Clients of one server, each with a session of its own, and what they saw.

    Parameters
    ----------
    client : AsyncClient
    seconds : float
        For how long.
    period, asking : float
        Seconds from one push of a session to its next, and from one question to the next.
    tokens : int
        What a layer of each session remembers at most.
    """

    def __init__(self, client: httpx.AsyncClient, seconds: float, period: float, asking: float, tokens: int) -> None:
        self._client, self._seconds, self._period, self._asking = client, seconds, period, asking
        self._recipe = {"memory": {"tokens": tokens}}
        self._pictures = [_encoded(picture) for i in range(4) for picture in frames_of(CHUNK * i, seed=0)]
        self.firsts: list[float] = []
        self.pushes: list[float] = []
        self.sent = self.watched = self.refused = self.failed = 0

    async def run(self, sessions: int) -> None:
        """Let all of them push and ask until the time is over; then see whether every frame was watched."""
        begun = time.monotonic()
        apart = self._period / sessions
        await asyncio.gather(*(self._one(i, begun + i * apart, begun + self._seconds) for i in range(sessions)))

    async def _one(self, number: int, due: float, end: float) -> None:
        opened = await self._client.post(_PATH, json={"recipe": self._recipe})
        name, sent, asked = opened.json()["id"], 0, due + self._asking * (1 + number % 8) / 8
        while due < end:
            await asyncio.sleep(max(due - time.monotonic(), 0))
            due = max(due + self._period, time.monotonic())  # who is late does not hurry
            body = {"frames": [{"image": self._pictures[sent % len(self._pictures)], "seconds": float(sent)}]}
            sent += await self._push(f"{_PATH}/{name}/frames", body)
            if time.monotonic() >= asked and sent:
                asked += self._asking
                await self._ask(f"{_PATH}/{name}/ask")
        state = await self._client.get(f"{_PATH}/{name}")
        self.watched += state.json()["frames"]
        await self._client.delete(f"{_PATH}/{name}")

    async def _push(self, url: str, body: Any) -> int:
        """One frame, sent again until it is taken; a server that is full says when."""
        begun = time.monotonic()
        while True:
            answer = await self._client.post(url, json=body)
            if answer.status_code not in (429, 503):
                break
            self.refused += 1
            await asyncio.sleep(float(answer.headers["retry-after"]))
        self.pushes.append(time.monotonic() - begun)
        self.failed += answer.status_code != 200
        self.sent += answer.status_code == 200
        return int(answer.status_code == 200)

    async def _ask(self, url: str) -> None:
        begun, body = time.monotonic(), {"question": _QUESTION, "max_tokens": 8, "stream": True}
        first, last = None, ""
        async with self._client.stream("POST", url, json=body) as events:
            async for line in events.aiter_lines():
                if line.startswith("data: "):
                    first, last = first or time.monotonic() - begun, line
        whole = last == "data: [DONE]"
        self.failed += not whole
        if first is not None and whole:
            self.firsts.append(first)


def _encoded(picture: Any) -> str:
    file = BytesIO()
    Image.fromarray(picture.numpy()).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


@contextmanager
def _served(model: str | None) -> Iterator[tuple[str, int]]:
    """A server in a process of its own; its address and its process."""
    chosen = [] if model is None else ["--model", model]
    command = [sys.executable, *_START, "--port", "0", *chosen]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if "http" not in line:
            raise SystemExit(f"the server did not start: {line}")
        url = line.split()[4].removesuffix("/v1")
        for _ in range(600):
            try:
                httpx.get(f"{url}/health", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url, server.pid
    finally:
        server.terminate()
        server.wait()


@asynccontextmanager
async def _sampled(process: int, every: float, rows: list[dict[str, float]], load: Load) -> AsyncIterator[None]:
    """Note the process's resident memory again and again."""
    begun = time.monotonic()

    async def note() -> None:
        while True:
            pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
            mib = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            rows.append({"second": time.monotonic() - begun, "rss_mib": mib, "frames": load.sent})
            await asyncio.sleep(every)

    task = asyncio.ensure_future(note())
    try:
        yield
    finally:
        task.cancel()


async def _measured(
    url: str, process: int, sessions: int, seconds: float, period: float, asking: float, tokens: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    limits = httpx.Limits(max_connections=2 * sessions)
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False, limits=limits) as client:
        load, rows = Load(client, seconds, period, asking, tokens), list[dict[str, float]]()
        async with _sampled(process, max(seconds / 60, 0.5), rows, load):
            await load.run(sessions)
    table, firsts, pushes = pd.DataFrame(rows), pd.Series(load.firsts), pd.Series(load.pushes)
    # the first third is warming up: memories fill, and allocators come to their size
    first, last = (table.rss_mib[table.second.between(*part)] for part in _thirds(table.second.iloc[-1]))
    return table, {
        "sessions": sessions,
        "seconds": seconds,
        "frames_sent": load.sent,
        "frames_lost": load.sent - load.watched,
        "questions": len(load.firsts),
        "failed": load.failed,
        "refused": load.refused,
        "rss_growth": float(last.max() / first.max() - 1),
        "peak_rss_mib": float(table.rss_mib.max()),
        "push_p50": float(pushes.quantile(0.5)),
        "push_p99": float(pushes.quantile(0.99)),
        "first_token_p50": float(firsts.quantile(0.5)),
        "first_token_p99": float(firsts.quantile(0.99)),
    }


def _thirds(end: float) -> tuple[tuple[float, float], tuple[float, float]]:
    return (end / 3, 2 * end / 3), (2 * end / 3, end)


def main(
    sessions: Annotated[int, typer.Option(help="Sessions at a time.", min=1)] = 32,
    minutes: Annotated[float, typer.Option(help="For how long.", min=0.05)] = 10.0,
    period: Annotated[float, typer.Option(help="Seconds from one frame of a session to its next.")] = 2.0,
    asking: Annotated[float, typer.Option(help="Seconds from one question of a session to its next.")] = 20.0,
    tokens: Annotated[int, typer.Option(help="What a layer of each session remembers at most.")] = 256,
    model: Annotated[str | None, typer.Option(help="Folder or name on the hub; left out: the built-in model.")] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Start a server, open sessions, push and ask at a low rate, and look at its memory."""
    with _served(model) as (url, process):
        table, figures = asyncio.run(_measured(url, process, sessions, 60 * minutes, period, asking, tokens))
    for name, value in figures.items():
        print(f"{name:16} {value:.4f}" if isinstance(value, float) else f"{name:16} {value:,}")
    draw = lambda shown: shown.plot(x="second", y="rss_mib")  # noqa: E731
    report("serve", table, draw, out, as_json, figures, model or "the built-in model")


if __name__ == "__main__":
    typer.run(main)
