"""Ray Serve: two replicas, one killed while ten sessions watch and ask; their clients send again what they are told to.

All answers, and all that is remembered in the end, are those of streams to which nothing ever happened.
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hosted import built_in, png
from test_session import same

import pdrop_video as pv
from pdrop_video.serve import Settings

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("watchdog")]
ROOT = Path(__file__).parent.parent
PATH = "/v1/streaming/sessions"
RECIPE = {"pyramid": {"stages": 3}, "memory": {"tokens": 60}}
QUESTION = "What colour is shown first in the video?"
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255)]
SESSIONS, PUSHES, EACH = 10, 12, 2


def frames(session: int, first: int, last: int) -> np.ndarray[Any, Any]:
    """Two colours a session, the second from its middle on, and something that differs from frame to frame."""
    made = np.zeros((last - first, 56, 84, 3), np.uint8)
    for i in range(first, last):
        made[i - first] = COLOURS[(session + (i >= PUSHES)) % len(COLOURS)]
        made[i - first, :14, 14 * (i % 6) : 14 * (i % 6) + 14] = np.random.default_rng(i).integers(0, 256, 3)
    return made


@dataclass
class Client:
    """One that does what the answers tell it to."""

    http: httpx.AsyncClient
    number: int
    told: list[str] = field(default_factory=list)
    answers: dict[int, tuple[str, list[int]]] = field(default_factory=dict)
    heard: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"session-of-client-{self.number:02d}"

    async def request(self, method: str, path: str, **how: Any) -> httpx.Response | None:
        """The answer, or None if there was none that says anything."""
        headers = {"serve-multiplexed-model-id": self.name, **self.heard}
        try:
            answer = await self.http.request(method, f"{PATH}{path}", headers=headers, **how)
        except httpx.TransportError:
            answer = None
        if answer is None or answer.status_code >= 500:
            await asyncio.sleep(0.2)
            return None
        return answer

    async def done(self, answer: httpx.Response | None) -> bool:
        """Whether it was; if it was not as the session went on elsewhere, that is heard."""
        if answer is None or answer.status_code == 200:
            return answer is not None
        assert answer.json()["error"]["code"] == "session_resumed", answer.text
        self.heard = {"resume-from-seconds": answer.headers["resume-from-seconds"]}
        self.told.append(answer.headers["resume-from-seconds"])
        return False

    async def next_frame(self) -> int:
        """The first that is not remembered."""
        while (state := await self.request("GET", f"/{self.name}")) is None:
            pass
        seconds = state.json()["seconds"]
        return 0 if seconds is None else int(2 * seconds[1]) + 1

    async def watch(self, pushed: Any) -> None:
        while True:
            opened = await self.request("POST", "", json={"recipe": RECIPE})
            if opened is not None:
                assert opened.status_code == 201 or opened.json()["error"]["code"] == "session_exists"
                break
        at = 0
        while at < PUSHES * EACH or at not in self.answers:
            if at and at % (3 * EACH) == 0 and at not in self.answers:
                done = await self.ask(at)
            else:
                done = await self.push(at)
                at += EACH * done
            if not done:
                at = await self.next_frame()
            await pushed(self.number, at)

    async def push(self, at: int) -> bool:
        """Whether it was answered that the next frames were watched."""
        images = [base64.b64encode(png(frame)).decode() for frame in frames(self.number, at, at + EACH)]
        body = {"frames": [{"image": image, "seconds": 0.5 * i} for i, image in enumerate(images, at)]}
        return await self.done(await self.request("POST", f"/{self.name}/frames", json=body))

    async def ask(self, at: int) -> bool:
        asked = await self.request("POST", f"/{self.name}/ask", json={"question": QUESTION, "max_tokens": 8})
        if not await self.done(asked):
            return False
        assert asked is not None
        self.answers[at] = (asked.json()["text"], asked.json()["remembered"])
        return True

    async def settled(self) -> None:
        """Wait until all of it is in the folder."""
        while True:
            state = await self.request("GET", f"/{self.name}")
            if state is not None and state.json()["resume_from_seconds"] == 0.5 * (PUSHES * EACH - 1):
                return
            await asyncio.sleep(0.1)


@pytest.fixture
def ray(tmp_path: Path) -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": environment})
    yield ray
    ray.shutdown()


def test_ten_sessions_go_on_when_one_of_two_replicas_is_killed(ray: Any, tmp_path: Path) -> None:
    from pdrop_video.serve.replicas import Cluster, run

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    end = run(pv.load, Settings(), Cluster(tmp_path / "shared", 2, every=0.5, cpus=0.5), "127.0.0.1", port)
    at = dict.fromkeys(range(SESSIONS), 0)
    killed: list[str] = []

    async def pushed(session: int, frame: int) -> None:
        at[session] = max(at[session], frame)
        if not killed and min(at.values()) >= PUSHES:  # all of them are in their second half
            names = [each["name"] for each in ray.util.list_named_actors(all_namespaces=True)]
            killed.append(next(name for name in names if name.startswith("SERVE_REPLICA")))
            ray.kill(ray.get_actor(killed[0], namespace="serve"))
        while not killed and frame >= PUSHES * EACH - 2 * EACH:  # and none of them is done
            await asyncio.sleep(0.01)

    async def everybody() -> list[Client]:
        most = httpx.Limits(max_connections=SESSIONS)
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, limits=most) as http:
            clients = [Client(http, i) for i in range(SESSIONS)]
            await asyncio.gather(*(client.watch(pushed) for client in clients))
            await asyncio.gather(*(client.settled() for client in clients))
        return clients

    try:
        clients = asyncio.run(everybody())
    finally:
        end()
    assert killed and 0 < sum(bool(client.told) for client in clients) < SESSIONS
    texts = set()
    for client in clients:
        plain, want = built_in().stream(pv.Recipe.from_dict(RECIPE)), {}
        for first in range(0, PUSHES * EACH, EACH):
            plain.push(frames(client.number, first, first + EACH), [0.5 * i for i in range(first, first + EACH)])
            if (first + EACH) % (3 * EACH) == 0:
                answer = plain.ask(QUESTION, 8)
                want[first + EACH] = answer.text, list(answer.kept)
        assert client.answers == want
        texts |= {text for text, _ in want.values()}
        same(built_in().resume(tmp_path / "shared" / f"{client.name}.pdrop"), plain)
    assert len(texts) > 2
