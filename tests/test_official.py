"""Official figures: each benchmark's own, with errors by videos, in the summary and side by side."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import benchmarks
import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from eval.compare import compare
from eval.runner.report import markdown
from eval.stats.intervals import clustered_mean
from eval.stats.official import GROUPS, OF_ALL, OF_ANSWERED, Formula, jackknifed, official_table
from eval.stats.record import Record
from eval.stats.summary import summarise
from eval.tasks import TASKS, task_named
from pdrop_video.common.journal import Journal

app = typer.Typer()
app.command()(compare)


def answered(score: float, video: str, number: int, **more: object) -> Record:
    """A record of a question of two categories."""
    category = {"duration": "short" if video < "v2" else "long", "topic": ["a", "b"] if number % 2 else "a"}
    made = Record(f"{video}-{number}", f"{video}-{number}", video, "t", "c", category, "?", ["x", "y"], "A")
    return replace(made, response="A", official="A", strict="A", official_score=score, score=score, **more)


def mean(records: list[Record]) -> float:
    return sum(record.official_score or 0.0 for record in records) / len(records)


SCORES = {"v1": (1, 0, 1), "v2": (0, 0, 1), "v3": (1, 1, 1), "v4": (0, 1, 0)}
RECORDS = [answered(score, video, n) for video, scores in SCORES.items() for n, score in enumerate(scores)]


def test_the_jackknife_of_a_mean_is_its_clustered_error() -> None:
    figure = jackknifed(lambda records: {"mean": mean(records)}, RECORDS)["mean"]
    known = clustered_mean([r.official_score for r in RECORDS], [r.video for r in RECORDS])
    assert (figure.value, figure.error) == pytest.approx((known.value, known.standard_error))
    assert (figure.items, figure.videos) == (12, 4)
    reach = 3.182446305284263 * known.standard_error  # of three degrees of freedom
    interval = figure.interval()
    assert (interval.low, interval.high) == pytest.approx((known.value - reach, known.value + reach))


def test_a_figure_that_needs_a_video_has_no_error() -> None:
    needs = lambda records: {"all": 1.0} if {r.video for r in records} == set(SCORES) else {}  # noqa: E731
    assert math.isnan(jackknifed(needs, RECORDS)["all"].error)
    same = jackknifed(lambda records: {"one": 1.0}, RECORDS)["one"]
    assert same.error == 0 and math.isnan(same.interval().low)  # no spread was seen: nothing is known of it


def test_many_videos_are_left_out_in_groups() -> None:
    asked: list[int] = []
    rng = np.random.default_rng(0)
    records = [answered(float(rng.random() < 0.3), f"v{n}", n) for n in range(1000)]
    figures = lambda records: asked.append(len(records)) or {"mean": mean(records)}  # noqa: E731
    figure = jackknifed(figures, records)["mean"]
    assert len(asked) == 1 + GROUPS and set(asked) == {1000, 995}
    assert figure.error == pytest.approx(
        clustered_mean([r.score for r in records], range(1000)).standard_error, rel=0.2
    )


def test_only_answered_questions_count_where_the_benchmark_says_so() -> None:
    unread = [replace(r, official=None, official_score=0.0) if r.video == "v2" else r for r in RECORDS]
    header = {"configuration": {"answer": "generate"}}
    none = lambda records: {}  # noqa: E731
    some = summarise(header, unread, Formula(OF_ANSWERED, none, "duration"), 12)["official"]
    assert (some["overall"]["mean"], some["overall"]["items"]) == (pytest.approx(6 / 9), 9)
    assert some["categories"]["duration"]["long"]["mean"] == pytest.approx(4 / 6)
    assert some["categories"]["duration, topic"]["long, b"]["items"] == 2
    every = summarise(header, unread, Formula(OF_ALL, none), 12)["official"]
    assert (every["overall"]["mean"], every["overall"]["items"]) == (pytest.approx(6 / 12), 12)
    assert set(every["categories"]) == {"duration", "topic"}
    no_means = summarise(header, unread, Formula(OF_ALL, none, tables=False), 12)["official"]
    assert (no_means["overall"], no_means["categories"]) == (every["overall"], {})
    by_likelihood = {"configuration": {"answer": "likelihood"}}
    assert summarise(by_likelihood, unread, Formula(OF_ALL, none), 12)["official"] is None
    other_words = {**header, "paraphrase": "please"}
    assert summarise(other_words, unread, Formula(OF_ALL, none), 12)["official"] is None


def test_each_task_names_a_figure_that_it_has(tmp_path: Path) -> None:
    own = {"mlvu": "M-Avg", "mlvu-test": "M-Avg", "ovobench": "total", "videommmu-knowledge": "Δknowledge"}
    own |= {"mvbench": "Avg", "lvbench": "Overall", "videommmu": "Overall", "odvbench": "Overall"}
    own |= {"videomme-v2": "total", "rtvbench": "accuracy", "charades-sta": "mIoU", "timelens-charades": "mIoU"}
    own |= {"omnipro": "overall time F1"}
    for name in TASKS:
        figure = task_named(name, tmp_path).formula().figure
        assert figure == own.get(name, figure) and figure in (None, OF_ALL, OF_ANSWERED, *own.values())


RIGHT = {"0": "C", "1": "B", "2": "E", "3": "A", "4": "A", "5": "A", "6": "B", "7": "B", "8": "D"} | {
    "9_0": "0", "9_1": "2", "9_2": "12", "10_0": "No", "10_1": "Yes", "11_0": "No", "11_1": "Yes",
}  # fmt: skip


def ovo_runs(folder: Path) -> tuple[list[Path], list[list[Record]]]:
    """Two runs of OVO-Bench: one with three answers wrong, one with two more."""
    task = task_named("ovobench", benchmarks.ovobench(folder / "data"))
    folders, records = [], []
    for name, wrong in (("full", {"0": "D", "3": "B"}), ("pruned", {"0": "D", "3": "B", "9_0": "7", "10_0": "Yes"})):
        made = [replace(r, task="ovobench") for r in benchmarks.records_of(task, RIGHT | wrong)]
        out = folder / name
        out.mkdir()
        header = {"task": "ovobench", "config_digest": "c", "configuration": {"answer": "generate"}}
        (out / "run.json").write_text(json.dumps(header))
        with Journal(out / "records.jsonl") as journal:
            for one in made:
                journal.append(one.to_json())
        folders.append(out)
        records.append(made)
    return folders, records


def test_the_official_figure_is_the_benchmark_s_total_and_no_mean_over_answers(tmp_path: Path) -> None:
    task = task_named("ovobench", tmp_path)
    _, (records, _) = ovo_runs(tmp_path)
    config = {"answer": "generate", "question_aware": False, "last_frames": None}
    header = {"task": "ovobench", "model": "m", "note": "", "configuration": config}
    summary = summarise(header, records, task.formula(), 16)
    total = (2 / 3 + 5 / 6 + 1) / 3
    assert summary["official"]["overall"] == summary["figures"]["total"]
    assert summary["figures"]["total"]["mean"] == pytest.approx(total)
    assert summary["official"]["categories"]["task"]["EPM"]["mean"] == 0
    text = markdown(summary)
    assert f"| total (the official figure) | {total:.1%} |" in text and text.count("official figure)") == 1


def test_official_figures_of_two_runs_side_by_side(tmp_path: Path) -> None:
    folders, (full, pruned) = ovo_runs(tmp_path)
    task = task_named("ovobench", tmp_path)
    table = official_table(["full", "pruned"], [full, pruned], task.formula())
    row = table.set_index(["category", "value", "run"]).loc[("figure", "forward", "pruned")]
    assert row.figure == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert row.difference == pytest.approx((2 / 3 + 1 / 2) / 3 - 2 / 3)
    # forward needs both videos: without one of them there is no such figure, and so no error
    assert math.isnan(row.difference_error)
    asi = table.set_index(["category", "value", "run"]).loc[("task", "REC", "pruned")]
    assert asi.difference == pytest.approx(-1 / 3)
    ran = CliRunner().invoke(app, [*map(str, folders), "--out", str(tmp_path / "tables"), "--json"])
    assert ran.exit_code == 0, ran.output
    written = pd.read_csv(tmp_path / "tables" / "official.csv")
    assert written[written.is_official].value.tolist() == ["total", "total"]
    figures = json.loads(ran.stdout.splitlines()[-1])["official"]
    assert [f["figure"] for f in figures if f["is_official"]] == pytest.approx(
        [(2 / 3 + 5 / 6 + 1) / 3, (2 / 3 + 5 / 6 + (2 / 3 + 1 / 2 + 1) / 3) / 3]
    )
    text = (tmp_path / "tables" / "compare.md").read_text()
    assert "total (the official figure)" in text and "## official: task" in text


def test_a_difference_s_error_is_the_paired_one() -> None:
    other = [replace(r, official_score=0.0, official="B") if r.item in ("v1-0", "v3-1") else r for r in RECORDS]
    table = official_table(["a", "b"], [RECORDS, other], Formula(OF_ALL, lambda records: {"m": mean(records)}))
    rows = table[table.run == "b"].set_index(["category", "value"])
    difference = [(b.official_score or 0) - (a.official_score or 0) for a, b in zip(RECORDS, other, strict=True)]
    known = clustered_mean(difference, [r.video for r in RECORDS])
    for name in (("overall", OF_ALL), ("figure", "m")):
        row = rows.loc[name]
        assert (row.difference, row.difference_error) == pytest.approx((known.value, known.standard_error))
        assert row.low == pytest.approx(known.value - 3.182446305284263 * known.standard_error)
    assert rows.loc[("duration", "short")].videos == 1 and math.isnan(rows.loc[("duration", "short")].low)
