"""From runs of the runner itself to the tables of `eval.compare` and `eval.paraphrase`: nothing is made up between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from scipy.special import softmax
from typer.testing import CliRunner
from videomme import make_videomme

import pdrop_video as pv
from eval.compare import compare
from eval.paraphrase import app
from eval.runner.config import configured
from eval.runner.execute import execute
from eval.runner.paraphrases import TEMPLATES, reworded
from eval.stats.record import Record, read_run
from eval.tasks import task_named

comparing = typer.Typer()
comparing.command()(compare)
VIDEOS = 4
RUNS = {
    "full": {"pyramid": "none"},
    "pruned": {"pyramid": "0.25,0.1"},
    "please": {"pyramid": "none", "paraphrase": "please"},
    "tell": {"pyramid": "none", "paraphrase": "tell"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videomme(tmp_path_factory.mktemp("data") / "videomme", VIDEOS, clips=VIDEOS)


def executed(data: Path, out: Path, **more: Any) -> dict[str, Record]:
    execute(configured(None, {"task": "videomme", "data": data, "out": out, "fps": 2, "memory": "none", **more}))
    return {record.item: record for record in read_run(out).records}


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Record]]]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: (folder / name, executed(data, folder / name, answer="likelihood", **how)) for name, how in RUNS.items()
    }


@pytest.fixture(scope="module")
def lm() -> pv.VideoLM:
    return pv.load(device="cpu")


def watched(lm: pv.VideoLM, path: Path) -> pv.VideoStream:
    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
    with pv.open_video(path, fps=2, chunk=8) as video:
        for chunk in video:
            stream.push(chunk)
    return stream


def test_the_model_is_asked_in_other_words(data: Path, tmp_path: Path, runs, lm: pv.VideoLM) -> None:
    task = task_named("videomme", data)
    said = executed(data, tmp_path, pyramid="none", paraphrase="please", max_new_tokens=4)
    for item in task.items():
        stream, words = watched(lm, item.path), TEMPLATES["please"].format(question=item.question)
        record = runs["please"][1][item.id]
        assert record.turns[0].likelihoods == stream.likelihood(words, [option[3:] for option in item.options])
        assert record.question == item.question  # the official files keep the benchmark's words
        prompt = task.ask(item, ()).text.replace(item.question, words)
        assert said[item.id].response == stream.ask(prompt, 4).text


def test_a_prompt_without_its_question_is_no_paraphrase() -> None:
    assert reworded("Why? Because.\nWhy?\nA. x", "Why?", lambda _: "Say why.") == "Why? Because.\nSay why.\nA. x"
    for prompt, question in (("Is it done?", "Why?"), ("Is it done?", "")):
        with pytest.raises(pv.ConfigError, match="is not in its prompt 'Is it done"):
            reworded(prompt, question, str.upper)


def test_other_words_are_another_run(data: Path, tmp_path: Path) -> None:
    common = {"task": "videomme", "data": data, "out": tmp_path, "fps": 2}
    words = tmp_path / "words.jsonl"
    digests = {configured(None, {**common, "paraphrase": rule}).digest for rule in (None, "please", "tell")}
    for text in ("Say why.", "Tell me why."):
        words.write_text(json.dumps({"question": "Why?", "paraphrase": text}) + "\n")
        digests.add(configured(None, {**common, "paraphrase": str(words)}).digest)
    assert len(digests) == 5  # the file counts by what it says, not by its name
    same = tmp_path / "same.jsonl"
    same.write_bytes(words.read_bytes())
    assert configured(None, {**common, "paraphrase": str(same)}).digest in digests
    with pytest.raises(pv.ConfigError, match="there is no rule or file 'plaese'"):
        configured(None, {**common, "paraphrase": "plaese"})


def test_noise_of_real_runs(tmp_path: Path, runs) -> None:
    arguments = ["runs", str(runs["full"][0]), "--pruned", str(runs["pruned"][0]), "--out", str(tmp_path), "--json"]
    for name in ("please", "tell"):
        arguments += ["--reworded", str(runs[name][0])]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = {row["run"]: row for row in json.loads(result.output.splitlines()[-1])["rows"]}
    first = runs["full"][1]
    for name, (_, records) in runs.items():
        bits, moved = [], []
        for item, record in records.items():
            p, q = (softmax(r.turns[0].likelihoods) for r in (first[item], record))
            m = (p + q) / 2
            bits.append(sum(a * np.log2(a / b) for x in (p, q) for a, b in zip(x, m, strict=True)) / 2)
            moved.append(first[item].response != record.response)
        assert rows[name]["items"] == 3 * VIDEOS and rows[name]["videos"] == VIDEOS
        assert rows[name]["divergence_bits"] == pytest.approx(np.mean(bits), abs=1e-9)
        assert rows[name]["changed"] == pytest.approx(np.mean(moved))
        assert rows[name]["accuracy"] == pytest.approx(np.mean([record.score for record in records.values()]))
    assert rows["pruned"]["divergence_bits"] > 0 and rows["please"]["divergence_bits"] > 0
    assert json.loads((tmp_path / "noise.json").read_text())["rows"][0]["run"] == "full"


def test_real_runs_side_by_side(tmp_path: Path, runs) -> None:
    folders = [str(folder) for folder, _ in runs.values()]
    result = CliRunner().invoke(comparing, [*folders, "--margin", "0.1", "--power", "--out", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output.splitlines()[-1])
    assert (figures["items"], figures["videos"], figures["task"]) == (3 * VIDEOS, VIDEOS, "videomme")
    for row in figures["runs"]:
        folder, records = runs[row["run"]]
        summary = json.loads((folder / "summary.json").read_text())
        assert row["accuracy"] == pytest.approx(np.mean([record.score for record in records.values()]))
        assert row["accuracy"] == pytest.approx(summary["accuracy"]["strict_all"]["mean"])
        assert row["tflops"] == pytest.approx(np.mean([record.flops for record in records.values()]) / 1e12)
    full, pruned, *_ = figures["runs"]
    assert pruned["tflops"] < full["tflops"] and pruned["cache_mib"] < full["cache_mib"]
    assert {row["category"] for row in figures["categories"]} >= {"duration", "task_type"}
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
