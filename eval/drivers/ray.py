"""Ray: one actor a model replica, anywhere in a cluster; an actor that dies is restarted and its job done again.

Records come back to the driver, which alone writes them down. Needs the extra: ``pip install pdrop-video[ray]``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pdrop_video as pv

from ..stats.record import Record
from .jobs import Job, MakeWorker, after_death

ROOT = Path(pv.__file__).resolve().parents[1]
"""What has to be on a path for this code to be imported: the checkout, or where the wheel was installed."""


@dataclass(frozen=True, slots=True)
class RayOptions:
    """How Ray is used.

    Attributes
    ----------
    address : str or None
        Of a running cluster ("auto" finds the one that the process is in); None starts one on this machine.
    replicas : int
        Actors, each with a model.
    cpus, gpus : float
        What each replica takes.
    timeout : float
        Seconds to wait for a replica before the run is given up; Ray itself would wait for ever.
    """

    address: str | None = None
    replicas: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    timeout: float = 300.0


@dataclass(slots=True)
class _Busy:
    """A replica's job in progress."""

    replica: Any
    job: Job
    done: list[str] = field(default_factory=list)


def ray_replicas(
    jobs: Sequence[Job], make: MakeWorker, options: RayOptions, give_up: Callable[[Job, str], Iterator[Record]]
) -> Iterator[Record]:
    """Carry jobs out on a Ray cluster.

    Parameters
    ----------
    jobs : sequence of Job
    make : callable
        Makes a replica's worker.
    options : RayOptions
    give_up : callable
        Gives the records of a job's items whose replica died every time.

    Raises
    ------
    ConfigError
        If Ray is not installed, there is no cluster at the address, or no replica could be started in time.
    PDropError
        What a worker raised.
    """
    ray = _ray()
    started = not ray.is_initialized()
    if started:
        _connect(ray, options)
    try:
        yield from _carry_out(ray, deque(jobs), make, options, give_up)
    finally:
        if started:
            ray.shutdown()


def _carry_out(
    ray: Any,
    waiting: deque[Job],
    make: MakeWorker,
    options: RayOptions,
    give_up: Callable[[Job, str], Iterator[Record]],
) -> Iterator[Record]:
    actor = ray.remote(Replica).options(num_cpus=options.cpus, num_gpus=options.gpus, max_restarts=-1)
    replicas = [actor.remote(make) for _ in range(min(options.replicas, len(waiting)))]
    coming = {replica.ready.remote(): replica for replica in replicas}
    idle: deque[Any] = deque()
    busy: dict[Any, _Busy] = {}
    try:
        while waiting or busy:
            if not busy and not idle:
                _wait_for_one(ray, coming, options)
            idle.extend(_arrived(ray, coming))
            while waiting and idle:
                job = waiting.popleft()
                replica = idle.popleft()
                busy[replica.work.options(num_returns="streaming").remote(job)] = _Busy(replica, job)
            ready, _ = ray.wait(list(busy), num_returns=1, timeout=1.0) if busy else ([], [])
            for stream in ready:
                at = busy[stream]
                try:
                    record = ray.get(next(stream))
                except StopIteration:
                    idle.append(busy.pop(stream).replica)
                    continue
                except ray.exceptions.RayActorError as error:
                    replica = busy.pop(stream).replica
                    coming[replica.ready.remote()] = replica  # Ray restarts it; until then it would fail every job
                    again, lost = after_death(at.job, at.done)
                    waiting.extendleft(reversed(again))
                    if lost is not None:
                        yield from give_up(lost, f"its replica died {lost.deaths} times: {_first_line(error)}")
                    continue
                except ray.exceptions.RayTaskError as error:
                    raise _known(error) from error
                at.done.append(record.item)
                yield record
    finally:
        for replica in replicas:
            with suppress(Exception):
                ray.kill(replica)


class Replica:
    """What runs in an actor: a worker, made where it works."""

    def __init__(self, make: MakeWorker) -> None:
        self._worker = make(0)  # Ray shows each replica its own devices only

    def ready(self) -> bool:
        """Answer as soon as the worker is made."""
        return True

    def work(self, job: Job) -> Iterator[Record]:
        """Give the records of a job one by one."""
        yield from self._worker(job)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise pv.ConfigError("Ray is not installed; pip install 'pdrop-video[ray]', or use --workers.") from error
    return ray


def _connect(ray: Any, options: RayOptions) -> None:
    here = {"PYTHONPATH": str(ROOT)}  # what the replicas import is what this process runs
    try:
        ray.init(
            address=options.address,
            log_to_driver=False,
            include_dashboard=False if options.address is None else None,
            configure_logging=False,
            runtime_env={"env_vars": here},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise pv.ConfigError(
            f"no Ray cluster could be reached at {options.address or 'this machine'}: {_first_line(error)}"
        ) from error


def _wait_for_one(ray: Any, coming: dict[Any, Any], options: RayOptions) -> None:
    """Wait until a replica is there, or there again; others may find room later."""
    ready, _ = ray.wait(list(coming), num_returns=1, timeout=options.timeout)
    if not ready:
        raise pv.ConfigError(
            f"no replica could be started in {options.timeout:g} s: each asks for {options.cpus:g} CPUs and "
            f"{options.gpus:g} GPUs; the cluster has {_resources(ray.cluster_resources())}, free are "
            f"{_resources(ray.available_resources())}. Free some, ask for less, or wait longer (--ray-timeout)."
        )


def _arrived(ray: Any, coming: dict[Any, Any]) -> list[Any]:
    """Those that became ready since; `coming` loses them."""
    if not coming:
        return []
    ready, _ = ray.wait(list(coming), num_returns=len(coming), timeout=0)
    there = []
    for reference in ready:
        replica = coming.pop(reference)
        try:
            ray.get(reference)
        except ray.exceptions.ActorUnavailableError:  # still on its way from one process to the next
            coming[replica.ready.remote()] = replica
        except ray.exceptions.RayActorError as error:  # its worker could not be made
            raise _known(error) from error
        else:
            there.append(replica)
    return there


def _resources(of: dict[str, float]) -> str:
    return f"{of.get('CPU', 0):g} CPUs and {of.get('GPU', 0):g} GPUs"


def _known(error: BaseException) -> pv.PDropError:
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, pv.PDropError) else pv.PDropError(_first_line(error))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if "Error" in (lines or [""])[-1] else (lines or [type(error).__name__])[0]
