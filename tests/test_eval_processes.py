"""Real processes over one folder: children end with their parent, and two shares go on when one is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from stub import ITEMS, Stub, check, config, lines, undisturbed, written
from videomme import make_videomme

from eval.drivers.jobs import jobs_of
from eval.runner.execute import execute
from eval.tasks import task_named

ROOT = Path(__file__).parent.parent
SCRIPT = """
import sys
from functools import partial
from pathlib import Path
from stub import Stub
from eval.runner.config import RunConfig
from eval.runner.execute import execute
from eval.run import driver_of, place_here
if __name__ == "__main__":
    data, out, log = map(Path, sys.argv[1:4])
    workers, shard = int(sys.argv[4]), sys.argv[5] if sys.argv[5:] else None
    settings = RunConfig(task="videomme", data=data, out=out, fps=1)
    make = partial(Stub, settings, pause=0.05, log=log)
    execute(settings, place_here(shard), driver=driver_of(settings, workers, None), make=make)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videomme(tmp_path_factory.mktemp("data") / "videomme", ITEMS // 3)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return undisturbed(data, tmp_path_factory.mktemp("alone"))


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def begin(folder: Path, data: Path, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, folder / "script.py", data, folder / "out", folder / "log", *arguments]
    return subprocess.Popen(command, env=environment(**more), stderr=subprocess.DEVNULL)


def kill_at(process: subprocess.Popen[bytes], done: Callable[[], bool]) -> None:
    while not done():
        assert process.poll() is None  # it was at work
        time.sleep(0.005)
    process.kill()
    process.wait()


@pytest.mark.slow
def test_local_workers_end_with_their_parent(data: Path, tmp_path: Path, alone: dict[str, object]) -> None:
    settings = config(data, tmp_path / "out")
    kill_at(begin(tmp_path, data, "2"), lambda: len(written(settings.out)) >= 5)
    execute(settings, make=partial(Stub, settings))  # the orphans, if there were any, would write on
    check(settings, alone)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shard", "torchrun"])
def test_two_processes_share_a_run_and_one_is_killed(
    kind: str, data: Path, tmp_path: Path, alone: dict[str, object]
) -> None:
    settings, log = config(data, tmp_path / "out"), tmp_path / "log"

    def share(index: int) -> subprocess.Popen[bytes]:
        if kind == "shard":
            return begin(tmp_path, data, "1", f"{index}/2")
        return begin(tmp_path, data, "1", RANK=str(index), WORLD_SIZE="2", LOCAL_RANK=str(index))

    of_second = {item.id for job in jobs_of(task_named("videomme", data).items(), (1, 2)) for item in job.items}
    first, second = share(0), share(1)
    kill_at(second, lambda: len(of_second & set(written(settings.out))) >= 5)
    assert first.wait() == 0
    before = of_second & set(written(settings.out))
    assert 5 <= len(before) < len(of_second)
    assert share(1).wait() == 0
    check(settings, alone)
    again = len(lines(log)) - ITEMS
    assert 0 <= again <= 1  # of what was finished nothing, of what was being written down when it was killed one
