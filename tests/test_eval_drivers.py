"""Every way to carry work out gives the scores of a single process: no item twice, none lost, whoever is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import stub
from stub import ITEMS, Mortal, Stub, check, config, lines, result, undisturbed, written
from videomme import make_videomme

import pdrop_video as pv
from eval.drivers import Place, local, place_of, torchrun_place
from eval.drivers.jobs import Driver, Job, failed, item_key, jobs_of, pending, serial
from eval.drivers.ray import RayOptions
from eval.run import driver_of
from eval.runner.config import RunConfig
from eval.runner.execute import execute
from eval.stats.record import read_records
from eval.tasks import Item

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videomme(tmp_path_factory.mktemp("data") / "videomme", ITEMS // 3)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return undisturbed(data, tmp_path_factory.mktemp("alone"))


def test_what_a_single_process_comes_to(alone: dict[str, Any], data: Path) -> None:
    counts = alone["items"]
    assert counts["expected"] == counts["finished"] == ITEMS and counts["videos"] == ITEMS // 3
    assert 0 < counts["errors"] < counts["unanswered"] < ITEMS
    assert alone["accuracy"]["strict_all"]["items"] == ITEMS
    assert alone["accuracy"]["official_answered"]["items"] == ITEMS - counts["unanswered"]


def test_two_local_workers_one_killed(data: Path, tmp_path: Path, alone: dict[str, object]) -> None:
    settings = config(data, tmp_path / "out")
    make = partial(Stub, settings, pause=0.005, log=tmp_path / "log", victim="009-1", killed=tmp_path / "killed")
    execute(settings, driver=driver_of(settings, 2, None), make=make)
    assert (tmp_path / "killed").exists()
    check(settings, alone)
    answered = lines(tmp_path / "log")
    assert sorted(answered) == sorted(written(settings.out))  # what was finished was not done again


def test_a_job_that_kills_its_worker_every_time_is_given_up(data: Path, tmp_path: Path) -> None:
    settings = config(data, tmp_path / "out", limit=9)
    execute(settings, driver=driver_of(settings, 2, None), make=partial(Deadly, settings))
    records = {r.item: r for r in read_records(settings.out).values()}
    assert len(records) == len(written(settings.out)) == 9
    dead = [item for item, record in records.items() if record.error and "its worker died 3 times" in record.error]
    assert dead == ["002-2"] and "by signal 9" in str(records["002-2"].error)


def test_what_a_worker_raises_reaches_the_caller(data: Path, tmp_path: Path) -> None:
    settings = config(data, tmp_path / "out", limit=9)
    make = partial(Stub, settings, victim="001-1", killed=tmp_path / "no folder" / "killed")
    with pytest.raises(pv.PDropError, match="FileNotFoundError"):
        execute(settings, driver=driver_of(settings, 2, None), make=make)


class Deadly(Stub):
    """Dies of one item, always."""

    def __call__(self, job: Job) -> Iterator[Any]:
        for item in job.items:
            if item.id == "002-2":
                os.kill(os.getpid(), 9)
            yield from super().__call__(Job(job.video, (item,)))


def test_strict_stops_at_a_worker_that_keeps_dying(data: Path, tmp_path: Path) -> None:
    settings = config(data, tmp_path / "out", limit=9, strict=True)
    with pytest.raises(pv.PDropError, match="video video0001: its worker died 3 times"):
        execute(settings, driver=driver_of(settings, 2, None), make=partial(Deadly, settings))


def test_shards_together_are_the_whole(data: Path, tmp_path: Path, alone: dict[str, object]) -> None:
    settings = config(data, tmp_path / "out")
    finished = [
        execute(settings, Place(index, 3), make=partial(Stub, settings))["items"]["finished"] for index in range(3)
    ]
    assert finished == [18, 33, 48]  # of 16 videos: 6, 5 and 5
    check(settings, alone)


def test_a_run_goes_on_with_another_number_of_workers(data: Path, tmp_path: Path, alone: dict[str, object]) -> None:
    settings = config(data, tmp_path / "out")

    def cut_short(driver: Driver, after: int) -> Driver:
        def few(jobs: Any, make: Any) -> Iterator[Any]:
            records = driver(jobs, make)
            for _ in range(after):
                yield next(records)

        return few

    make = partial(Stub, settings, log=tmp_path / "log")
    execute(settings, Place(1, 2), make=make, driver=cut_short(serial, 7))
    execute(settings, make=make, driver=cut_short(driver_of(settings, 2, None), 9))
    execute(settings, Place(2, 5), make=make)
    execute(settings, make=make)
    check(settings, alone)


def test_torchrun_by_its_environment(data: Path, tmp_path: Path, alone: dict[str, object]) -> None:
    settings = config(data, tmp_path / "out")
    for rank in (1, 0):
        place = torchrun_place({"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)})
        assert place == Place(rank, 2, rank)
        execute(settings, place, make=partial(Stub, settings))
    check(settings, alone)
    assert torchrun_place({"RANK": "0"}) is None
    with pytest.raises(pv.ConfigError, match="RANK is 2 and WORLD_SIZE 2"):
        torchrun_place({"RANK": "2", "WORLD_SIZE": "2"})


@pytest.mark.parametrize("text", ["2/2", "a/b", "1", "-1/2", "0/0"])
def test_shards_that_are_none(text: str) -> None:
    with pytest.raises(pv.ConfigError, match="expected i/n"):
        place_of(text)


def test_two_processes_can_not_do_the_same_share(data: Path, tmp_path: Path) -> None:
    settings = config(data, tmp_path / "out")

    def meddling(jobs: Any, make: Any) -> Iterator[Any]:
        with pytest.raises(pv.ConfigError, match="another process is at work on share 0of1"):
            execute(settings, make=make)
        yield from serial(jobs, make)

    execute(settings, driver=meddling, make=partial(Stub, settings))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster of two CPUs, whose workers get this folder's modules by value."""
    ray = pytest.importorskip("ray")
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}
    )
    ray.cloudpickle.register_pickle_by_value(stub)
    yield ray
    ray.cloudpickle.unregister_pickle_by_value(stub)
    ray.shutdown()


def test_two_ray_replicas_one_killed(cluster: Any, data: Path, tmp_path: Path, alone: dict[str, object]) -> None:
    settings = config(data, tmp_path / "out")
    make = partial(Stub, settings, pause=0.005, log=tmp_path / "log", victim="009-1", killed=tmp_path / "killed")
    execute(settings, driver=driver_of(settings, 2, RayOptions(replicas=2)), make=make)
    assert (tmp_path / "killed").exists()
    check(settings, alone)


@pytest.mark.slow
def test_a_ray_replica_of_the_built_in_model_killed(cluster: Any, tmp_path: Path) -> None:
    data = make_videomme(tmp_path / "data", 6, clips=3)

    def settings(out: str) -> RunConfig:
        return RunConfig(
            task="videomme", data=data, out=tmp_path / out, frames=8, device="cpu", memory=64, max_new_tokens=4
        )

    execute(settings("alone"))
    make = partial(Mortal, settings("ray"), "003-2", tmp_path / "killed")
    execute(settings("ray"), driver=driver_of(settings("ray"), 2, RayOptions(replicas=2)), make=make)
    assert (tmp_path / "killed").exists()
    assert len(written(tmp_path / "ray")) == len(set(written(tmp_path / "ray"))) == 18
    said = [
        {r.item: (r.response, r.kept, r.error) for r in read_records(tmp_path / out).values()}
        for out in ("alone", "ray")
    ]
    assert said[0] == said[1] and len({response for response, _, _ in said[0].values()}) > 3
    assert result(tmp_path / "ray") == result(tmp_path / "alone")


def test_ray_without_room_says_so(cluster: Any, data: Path, tmp_path: Path) -> None:
    settings = config(data, tmp_path / "out")
    options = RayOptions(replicas=1, gpus=1.0, timeout=0.5)
    with pytest.raises(pv.ConfigError, match=r"in 0\.5 s: each asks for 1 CPUs and 1 GPUs; the cluster has 2 CPUs"):
        execute(settings, driver=driver_of(settings, 1, options), make=partial(Stub, settings))


def test_ray_hands_on_what_a_worker_raises(cluster: Any, data: Path, tmp_path: Path) -> None:
    settings = config(data, tmp_path / "out", limit=3)
    make = partial(Stub, settings, victim="001-1", killed=tmp_path / "no folder" / "killed")
    with pytest.raises(pv.PDropError, match="FileNotFoundError"):
        execute(settings, driver=driver_of(settings, 1, RayOptions()), make=make)


def test_jobs_are_videos_and_shards_do_not_depend_on_what_is_done() -> None:
    items = [Item(f"{v}-{n}", f"v{v}", Path("x"), "?") for n in range(2) for v in range(5)]
    jobs = jobs_of(items)
    assert [(job.video, [i.id for i in job.items]) for job in jobs[:2]] == [
        ("v0", ["0-0", "0-1"]),
        ("v1", ["1-0", "1-1"]),
    ]
    assert [job.video for job in jobs_of(items, (1, 2))] == ["v1", "v3"]
    done = {item_key("c", item): failed(item, "t", "c", "no") for item in (items[0], items[1], items[6])}
    assert [(job.video, len(job.items)) for job in pending(jobs, "c", done)] == [
        ("v0", 1),
        ("v2", 2),
        ("v3", 2),
        ("v4", 2),
    ]
    assert pending(jobs, "c", done, retry=True) == jobs
    assert pending(jobs, "another", done) == jobs


def test_no_work_needs_no_worker() -> None:
    assert list(local([], lambda index: pytest.fail("made"), 2, lambda job, why: iter(()))) == []
