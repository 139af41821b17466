"""Ray Serve: the application in many replicas, each with a model; a session sticks to one and outlives it.

Ray Serve sends a request with the header ``serve-multiplexed-model-id`` to the replica that has the "model" of that
name, which here is a session. Knows Ray; refuses to know what a session is. Needs the extra "ray" beside "serve".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from ..errors import ConfigError
from ..stream import VideoLM
from .app import create_app
from .settings import Settings
from .shared import SharedSessions, check_folder

APP = "pdrop-video"
_ANNOUNCED = 0.5
"""Seconds in which Ray Serve's proxies hear where a new session is; it tells them of ten times a second."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """How many replicas there are, and what they have.

    Attributes
    ----------
    folder : Path
        For copies of sessions; all machines see it by this name.
    replicas : int
    every : float
        Seconds from one copy of a session to the next.
    cpus, gpus : float
        What each replica takes.
    address : str or None
        Of a running cluster; None starts one on this machine.
    timeout : float
        Seconds for all replicas to be ready.
    """

    folder: Path
    replicas: int = 2
    every: float = 5.0
    cpus: float = 1.0
    gpus: float = 0.0
    address: str | None = None
    timeout: float = 1800.0


class _Seat:
    """What Ray Serve holds in place of a model: when it lets go, so does the replica."""

    def __init__(self, sessions: SharedSessions, name: str) -> None:
        self._sessions, self._name = sessions, name
        self._loop = asyncio.get_running_loop()

    def __del__(self) -> None:
        with suppress(RuntimeError):  # the loop is over, and so is the session
            asyncio.run_coroutine_threadsafe(self._sessions.release(self._name), self._loop)


def build(make: Callable[[], VideoLM], settings: Settings, cluster: Cluster) -> FastAPI:
    """One replica's application; to be called in the replica.

    Parameters
    ----------
    make : callable
        Loads the model.
    settings : Settings
    cluster : Cluster
    """
    from ray import serve

    app = create_app(
        make(), settings, sessions=partial(SharedSessions, folder=cluster.folder.absolute(), every=cluster.every)
    )
    sessions: SharedSessions = app.state.service.sessions

    # more sessions than are open at a time were ended; which those are, Ray Serve finds out by their last use
    @serve.multiplexed(max_num_models_per_replica=settings.limits.sessions)
    async def bring(name: str) -> _Seat:
        await sessions.load(name)
        return _Seat(sessions, name)

    sessions.bring, sessions.known_after = bring, _ANNOUNCED
    return app


def run(make: Callable[[], VideoLM], settings: Settings, cluster: Cluster, host: str, port: int) -> Callable[[], None]:
    """Start the replicas and the proxies in front of them, and wait until all are ready.

    Parameters
    ----------
    make : callable
        Loads the model; called in each replica.
    settings : Settings
    cluster : Cluster
    host : str
    port : int
        At which the proxy of each machine listens.

    Returns
    -------
    callable
        Ends all of it; sessions are written first.

    Raises
    ------
    ConfigError
        If Ray is not there, or replicas could not be started in time.
    """
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise ConfigError(f"Ray Serve needs {error.name}, which is missing: pip install 'pdrop-video[ray]'.") from error
    check_folder(cluster.folder)
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=cluster.address, include_dashboard=False if cluster.address is None else None)
        except (ConnectionError, ValueError, RuntimeError) as error:
            where = cluster.address or "this machine"
            raise ConfigError(f"no Ray cluster could be reached at {where}: {error}") from error

    def end() -> None:
        serve.shutdown()
        if started:
            ray.shutdown()

    def application() -> FastAPI:
        return build(make, settings, cluster)

    deployment = serve.deployment(
        name="replica",
        num_replicas=cluster.replicas,
        ray_actor_options={"num_cpus": cluster.cpus, "num_gpus": cluster.gpus},
        # a replica that Ray Serve took for full would have its sessions looked for elsewhere
        max_ongoing_requests=2 * settings.limits.requests,
    )(serve.ingress(application)())
    try:
        serve.start(proxy_location="EveryNode", http_options={"host": host, "port": port})
        serve.run(deployment.bind(), name=APP, route_prefix="/", blocking=False)
        _wait(serve, cluster)
    except RuntimeError as error:
        end()
        raise ConfigError(f"the replicas could not be started: {error}") from error
    except BaseException:
        end()
        raise
    return end


def _wait(serve: Any, cluster: Cluster) -> None:
    """Until all replicas run."""
    over = time.monotonic() + cluster.timeout
    while True:
        status = serve.status().applications[APP]
        states = [states for one in status.deployments.values() for states in one.replica_states.items()]
        running = sum(count for state, count in states if getattr(state, "value", state) == "RUNNING")
        if running >= cluster.replicas:
            return
        if time.monotonic() > over:
            raise ConfigError(
                f"{running} of {cluster.replicas} replicas could be started in {cluster.timeout:g} s, each with "
                f"{cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs; ask for fewer, or for less."
            )
        time.sleep(0.2)
