"""`eval.run --batch`: several videos at once on one model, computed together; the records are those of one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import pytest
from test_eval_run import QUICK, VIDEOS, data  # noqa: F401 - a fixture
from test_turnstile import until

import pdrop_video as pv
from eval.drivers import threads
from eval.drivers.jobs import Job
from eval.run import driver_of
from eval.runner.config import RunConfig, configured
from eval.runner.execute import execute
from eval.runner.worker import StreamWorker
from eval.stats.record import Record, read_run
from pdrop_video.engine import Engine

pytestmark = pytest.mark.usefixtures("watchdog")


def settings(data: Path, out: Path, **more: Any) -> RunConfig:  # noqa: F811
    return configured(None, {"task": "videomme", "data": data, "out": out, "dtype": "float64", **QUICK, **more})


@pytest.mark.parametrize("answer", ["generate", "likelihood"])
def test_records_are_those_of_one_by_one(
    data: Path,  # noqa: F811
    tmp_path: Path,
    answer: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most, take, packing, begun = 0, Engine._take, Engine.packing, False

    def counted(engine: Engine, gate: Any) -> None:
        nonlocal most
        take(engine, gate)
        most = max(most, len(engine._members))

    def all_have_come(engine: Engine) -> Any:
        """The first forward of a video begins once the others stand in line, however short a thread's work is."""
        nonlocal begun
        if not begun and current_thread() is not main_thread():  # which loads the model, and tries it
            begun = True
            until(lambda: engine.waiting == VIDEOS - 1)
        return packing(engine)

    monkeypatch.setattr(Engine, "_take", counted)
    monkeypatch.setattr(Engine, "packing", all_have_come)
    records = {}
    for batch in (1, VIDEOS):
        config = settings(data, tmp_path / str(batch), answer=answer, batch=batch, pyramid="0.5,0.25")
        execute(config, driver=driver_of(config, 1, None))
        records[batch] = {record.item: record for record in read_run(config.out).records}
    assert most == VIDEOS
    assert records[1].keys() == records[VIDEOS].keys()
    for item, alone in records[1].items():
        together = records[VIDEOS][item]
        assert together.response == alone.response
        assert (together.kept, together.cache_bytes, together.flops) == (alone.kept, alone.cache_bytes, alone.flops)
        for mine, other in zip(together.turns, alone.turns, strict=True):
            assert mine.likelihoods == pytest.approx(other.likelihoods, abs=1e-6)


def test_a_run_can_go_on_with_another_batch(data: Path, tmp_path: Path) -> None:  # noqa: F811
    """It is not a setting that names results."""
    config = settings(data, tmp_path, limit=3)
    execute(config, driver=driver_of(config, 1, None))
    more = settings(data, tmp_path, batch=2)
    assert more.digest == config.digest
    execute(more, driver=driver_of(more, 1, None))
    assert len(read_run(tmp_path).records) == 3 * VIDEOS


class Failing(StreamWorker):
    def __init__(self) -> None:
        self.job = 0

    def twin(self) -> Failing:
        return self

    def __call__(self, job: Job) -> Iterator[Record]:
        raise pv.ModelError(f"not with {job.video}")


def test_what_a_worker_raises_ends_the_run() -> None:
    jobs = [Job(str(i), ()) for i in range(4)]
    with pytest.raises(pv.ModelError, match="not with"):
        list(threads(jobs, lambda index: Failing(), 3))


def test_batch_and_more_processes_are_refused(data: Path, tmp_path: Path) -> None:  # noqa: F811
    from typer.testing import CliRunner

    import eval.run

    app = eval.run.typer.Typer()
    app.command()(eval.run.main)
    given = ["videomme", "--data", str(data), "--out", str(tmp_path), "--frames", "8", "--batch", "2", "--workers", "2"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code != 0
    assert "use one of them" in result.output
