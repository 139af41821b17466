"""A run's figures in the forms of lmms-eval and the hub: the same figures, and the hub's own code reads them back."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results
from servers import answering
from stub import Stub, config
from test_eval_judge import by_question, make_run
from typer.testing import CliRunner, Result
from videomme import make_videomme

from eval.export import eval_results, lmms, main, read_finished
from eval.judge import Judge, judged
from eval.runner.execute import execute

app = typer.Typer()
app.command()(main)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = make_videomme(tmp_path_factory.mktemp("data") / "videomme", 16)
    settings = config(data, tmp_path_factory.mktemp("runs") / "run")
    execute(settings, make=partial(Stub, settings))
    return settings.out


def told(*words: Any) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_lmms_eval_s_results(run: Path, tmp_path: Path) -> None:
    """The names that lmms-eval's own results have, and the run's figures under them."""
    done = told(run, "--lmms", tmp_path / "results.json")
    assert done.exit_code == 0, done.output
    said, summary = json.loads((tmp_path / "results.json").read_text()), json.loads((run / "summary.json").read_text())
    for part in ("results", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "group_subtasks"):
        assert list(said[part]) == ["videomme"]
    assert said["n-samples"]["videomme"] == {"original": 48, "effective": 48}
    results = said["results"]["videomme"]
    for name, key in (
        ("strict_all", "accuracy"),
        ("strict_answered", "accuracy_answered"),
        ("official_all", "official_accuracy"),
        ("official_answered", "official_accuracy_answered"),
    ):
        assert results[f"{key},none"] == summary["accuracy"][name]["mean"]
        assert results[f"{key}_stderr,none"] == summary["accuracy"][name]["standard_error"]
    assert set(said["higher_is_better"]["videomme"]) == {
        key.removesuffix(",none") for key in results if key.endswith(",none") and "_stderr" not in key
    }
    assert said["model_name"] == "built-in" and said["config"]["errors"] == summary["items"]["errors"] > 0
    assert said["configs"]["videomme"]["dataset_path"] == "lmms-lab/Video-MME"


def same(read: list[EvalResult], run: Path) -> bool:
    metrics = read_finished(run).metrics
    return [(r.metric_type, r.metric_value, r.metric_args) for r in read] == [
        (m.key, m.value, None if m.error is None else {"standard_error": m.error}) for m in metrics
    ]


def test_the_hub_reads_a_card_back(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    assert told(run, "--card", path).exit_code == 0
    card = ModelCard.load(path)
    assert card.data.eval_results is not None and same(card.data.eval_results, run)
    name, read = model_index_to_eval_results(yaml.safe_load(path.read_text().split("---")[1])["model-index"])
    assert name == "built-in" and read == eval_results(read_finished(run))
    assert {(r.task_type, r.dataset_type, r.dataset_name) for r in read} == {
        ("video-text-to-text", "lmms-lab/Video-MME", "videomme")
    }


def test_a_card_that_is_there_keeps_the_rest(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    other = EvalResult("text-generation", "x/y", "y", "perplexity", 3.5)
    old = EvalResult("video-text-to-text", "lmms-lab/Video-MME", "videomme", "accuracy", 0.0)
    data = ModelCardData(license="mit", model_name="mine", eval_results=[other, old])
    path.write_text(f"---\n{data.to_yaml()}\n---\n\n# Mine\n\nWords that stay.\n")
    assert told(run, "--card", path).exit_code == 0
    card = ModelCard.load(path)
    assert card.data.license == "mit" and card.data.model_name == "mine" and "Words that stay." in card.text
    first, *rest = card.data.eval_results or []
    assert (first.dataset_type, first.metric_value) == ("x/y", 3.5)
    assert same(rest, run)
    path.write_text("---\nmodel-index: 3\n---\n")
    done = told(run, "--card", path)
    assert done.exit_code == 1 and "is no model card" in done.output


def test_the_hub_reads_eval_results_back(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "video.yaml"
    assert told(run, "--eval-results", path).exit_code == 0
    (entry,) = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    first = read_finished(run).metrics[0]
    assert (entry.dataset_id, entry.task_id) == ("lmms-lab/Video-MME", "videomme")
    assert entry.value == pytest.approx(100 * first.value, abs=1e-4)
    assert first.name in entry.notes


def test_figures_with_and_without_errors(tmp_path: Path, run: Path) -> None:
    """A benchmark's own figures, as numbers or with their errors, its official one first."""
    summary = json.loads((run / "summary.json").read_text())
    mean = {"mean": 0.5, "standard_error": 0.1, "low": 0.3, "high": 0.7, "items": 4, "videos": 2}
    summary["figures"] = {"M-Avg": mean, "plain": 0.25}
    summary["official"] = {"figure": "M-Avg", "overall": mean}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    results = lmms(read_finished(tmp_path), "d")["results"]["videomme"]
    assert next(key for key in results if key != "alias") == "official,none"
    assert results["official,none"] == results["m_avg,none"] == 0.5
    assert results["official_stderr,none"] == 0.1
    assert (results["plain,none"], results["plain_stderr,none"]) == (0.25, "N/A")


def test_a_judge_s_figures(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    header = {"task": "rvs-ego", "model": "m", "configuration": {"answer": "generate"}, "version": "1", "device": "cpu"}
    summary = {"header": header, "items": {"expected": 5, "finished": 5}, "accuracy": {}, "figures": {}, "details": {}}
    (folder / "summary.json").write_text(json.dumps(summary))
    done = told(folder, "--card", tmp_path / "card.md")
    assert done.exit_code == 1 and "has no figure" in done.output
    with answering(by_question()) as server:
        judged(folder, Judge(server.address, "judge-7b"))
    found = {metric.key: metric for metric in read_finished(folder).metrics}
    assert found["judge_accuracy"].value == pytest.approx(0.6) and "judge-7b" in found["judge_accuracy"].name
    assert found["judge_score"].value == pytest.approx(2.6)


def test_what_can_not_be_written(run: Path, tmp_path: Path) -> None:
    assert "give one of --lmms, --card, --eval-results" in " ".join(told(run).output.split())
    assert "can't be read" in told(tmp_path, "--lmms", tmp_path / "x.json").output
    assert "can't be written" in " ".join(told(run, "--lmms", tmp_path / "none" / "x.json").output.split())
    summary = json.loads((run / "summary.json").read_text())
    summary["items"]["finished"] = 47
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    done = told(tmp_path, "--lmms", tmp_path / "x.json")
    assert done.exit_code == 1 and "47 of 48 items" in " ".join(done.output.split())
    assert not (tmp_path / "x.json").exists()
    (tmp_path / "summary.json").write_text("[]")
    assert "is damaged" in told(tmp_path, "--lmms", tmp_path / "x.json").output
