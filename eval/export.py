"""A run's figures for others: `python -m eval.export RUN --lmms results.json --card README.md`.

lmms-eval's results, the `model-index` of a model card on the hub, and the hub's `.eval_results`. Knows these three
forms and summaries. Refuses to know how a run is made.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from huggingface_hub import EvalResult
from huggingface_hub.repocard import metadata_load, metadata_save
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from rich.console import Console

import pdrop_video as pv

from .runner.doors import clear_errors, encodable
from .runner.execute import write
from .stats.verdicts import JUDGED
from .tasks.sources import source_of

_out = Console()
SUMMARY = "summary.json"
KIND = "video-text-to-text"
"""The hub's name for what is measured here."""
_READINGS = {
    "strict_all": ("accuracy", "accuracy, all questions"),
    "strict_answered": ("accuracy_answered", "accuracy, answered questions"),
    "official_all": ("official_accuracy", "accuracy by the benchmark's reading, all questions"),
    "official_answered": ("official_accuracy_answered", "accuracy by the benchmark's reading, answered questions"),
}


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure.

    Attributes
    ----------
    key : str
        Its short name.
    name : str
        What it is.
    value : float
    error : float or None
        Its standard error, clustered by video, where that is known.
    """

    key: str
    name: str
    value: float
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that is finished.

    Attributes
    ----------
    summary : dict
        As eval.run wrote it.
    metrics : list of Metric
        The benchmark's own figure first.
    """

    summary: dict[str, Any]
    metrics: list[Metric]

    @property
    def header(self) -> dict[str, Any]:
        """What the run was made with."""
        header: dict[str, Any] = self.summary["header"]
        return header

    @property
    def repo(self) -> str:
        """The benchmark's data set on the hub, or the task's name where it has none."""
        try:
            return source_of(self.header["task"]).repo
        except pv.ConfigError:
            return str(self.header["task"])


def read_finished(folder: Path) -> Finished:
    """Read a finished run's figures, those of its judge included.

    Raises
    ------
    ConfigError
        If there is no summary, it is damaged, or items are missing: a table would show a part as the whole.
    """
    summary = _json(folder / SUMMARY, "expected the --out folder of a run of eval.run")
    try:
        items, metrics = summary["items"], _metrics(summary)
    except (KeyError, TypeError, AttributeError) as error:
        raise pv.ConfigError(f"{folder / SUMMARY} is damaged; run the same command of eval.run again.") from error
    if items["finished"] < items["expected"]:
        raise pv.ConfigError(
            f"{items['finished']} of {items['expected']} items of {folder} are finished; finish the run first: others "
            "would read its figures as those of the whole benchmark."
        )
    if (folder / JUDGED).exists():
        said = _json(folder / JUDGED, "judge the run again")
        if said.get("accuracy"):
            metrics.append(_metric("judge_accuracy", f"accuracy by {said['judge']}", said["accuracy"]))
            metrics.append(Metric("judge_score", f"mean score by {said['judge']}, 0 to 5", said["score"]))
    if not metrics:
        raise pv.ConfigError(
            f"{folder} has no figure: nothing of it is scored. A judge scores open answers: eval.judge."
        )
    return Finished(summary, metrics)


def _json(path: Path, expected: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise pv.ConfigError(f"{path} can't be read ({error.strerror}); {expected}.") from error
    except ValueError as error:
        raise pv.ConfigError(f"{path} is damaged; {expected}.") from error
    if not isinstance(content, dict):
        raise pv.ConfigError(f"{path} is damaged; {expected}.")
    return content


def _metrics(summary: dict[str, Any]) -> list[Metric]:
    found = []
    official = summary.get("official")
    if official and official.get("overall"):
        found.append(_metric("official", f"{official['figure']}, the benchmark's own figure", official["overall"]))
    found += [_metric(*said, summary["accuracy"][n]) for n, said in _READINGS.items() if summary["accuracy"].get(n)]
    for name, value in {**summary["figures"], **summary["details"]}.items():
        found.append(_metric(re.sub(r"\W+", "_", name.lower()).strip("_"), name, value))
    return found


def _metric(key: str, name: str, value: Any) -> Metric:
    """A figure that stands as a number, or with its error."""
    if isinstance(value, dict):
        return Metric(key, name, float(value["mean"]), value.get("standard_error"))
    return Metric(key, name, float(value))


def lmms(run: Finished, date: str) -> dict[str, Any]:
    """The form of lmms-eval's `*_results.json`; figures are fractions, as there."""
    header, items, task = run.header, run.summary["items"], run.header["task"]
    results: dict[str, Any] = {"alias": task}
    for metric in run.metrics:
        results[f"{metric.key},none"] = metric.value
        results[f"{metric.key}_stderr,none"] = "N/A" if metric.error is None else metric.error
    model = header["model"]
    arguments = {"pretrained": model, "revision": header.get("revision")}
    return {
        "results": {task: {**results, "samples": items["finished"]}},
        "group_subtasks": {task: []},
        "configs": {task: {"task": task, "dataset_path": run.repo, "metadata": {"version": header["version"]}}},
        "versions": {task: header["version"]},
        "n-shot": {task: 0},
        "higher_is_better": {task: {metric.key: True for metric in run.metrics}},
        "n-samples": {task: {"original": items["expected"], "effective": items["finished"]}},
        "config": {
            "model": "pdrop_video",
            "model_args": ",".join(f"{name}={value}" for name, value in arguments.items() if value is not None),
            "device": header["device"],
            "limit": None,
            "random_seed": header["seed"],
            "recipe": header["recipe"],
            "settings": header["configuration"],
            "errors": items["errors"],
        },
        "git_hash": header["git_commit"],
        "date": date,
        "model_source": "pdrop_video",
        "model_name": model,
        "model_name_sanitized": re.sub(r"[\"<>:/\|\\?\*\[\]]+", "__", model),
    }


def eval_results(run: Finished) -> list[EvalResult]:
    """What a model card says; figures are fractions."""
    return [
        EvalResult(
            task_type=KIND,
            dataset_type=run.repo,
            dataset_name=run.header["task"],
            metric_type=metric.key,
            metric_name=metric.name,
            metric_value=metric.value,
            metric_args=None if metric.error is None else {"standard_error": metric.error},
        )
        for metric in run.metrics
    ]


def card(run: Finished, path: Path) -> None:
    """Write a model card's metadata; of a card that is there, its words and all other results stay.

    Raises
    ------
    ConfigError
        If what is there has no metadata that can be read.
    """
    new = eval_results(run)
    names = {(result.dataset_type, result.dataset_name, result.metric_type) for result in new}
    name: str = run.header["model"]
    others: list[EvalResult] = []
    there: dict[str, Any] = {}
    if path.exists():
        try:
            there = metadata_load(path) or {}
            if there.get("model-index"):
                name, others = model_index_to_eval_results(there["model-index"])
        except (ValueError, KeyError, TypeError, OSError, yaml.YAMLError) as error:
            raise pv.ConfigError(
                f"{path} is no model card ({' '.join(str(error).split())}); choose another."
            ) from error
    kept = [r for r in others if (r.dataset_type, r.dataset_name, r.metric_type) not in names]
    metadata_save(path, {**there, "model-index": eval_results_to_model_index(name, [*kept, *new])})


def hub_results(run: Finished, date: str) -> list[dict[str, Any]]:
    """The form of `.eval_results/*.yaml` in a model's repository: the first figure, in per cent."""
    first = run.metrics[0]
    error = "" if first.error is None else f", standard error {100 * first.error:.2f} by videos"
    recipe = json.dumps(run.header["recipe"], sort_keys=True)
    return [
        {
            "dataset": {"id": run.repo, "task_id": run.header["task"]},
            "value": round(100 * first.value, 4),
            "date": date,
            "notes": f"{first.name}{error}; pdrop-video {run.header['version']}, recipe {recipe}",
        }
    ]


def main(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Output folder of eval.run, finished.")],
    lmms_file: Annotated[Path | None, typer.Option("--lmms", help="Write lmms-eval's results JSON.")] = None,
    card_file: Annotated[
        Path | None, typer.Option("--card", help="Write a model card's model-index; other parts of the card stay.")
    ] = None,
    results_file: Annotated[
        Path | None, typer.Option("--eval-results", help="Write a YAML file for .eval_results/ of a model on the hub.")
    ] = None,
) -> None:
    """Write a finished run's figures in the forms that leaderboards read."""
    with clear_errors():
        given = {"--lmms": lmms_file, "--card": card_file, "--eval-results": results_file}
        for name, value in {"RUN": run, **given}.items():
            encodable(name, value)
        if not any(given.values()):
            raise pv.ConfigError(f"nothing is to be written; give one of {', '.join(given)}.")
        finished = read_finished(run)
        made = time.gmtime((run / SUMMARY).stat().st_mtime)
        try:
            if lmms_file is not None:
                content = lmms(finished, time.strftime("%Y%m%d_%H%M%S", made))
                write(lmms_file, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
            if card_file is not None:
                card(finished, card_file)
            if results_file is not None:
                content_yaml = hub_results(finished, time.strftime("%Y-%m-%dT%H:%M:%SZ", made))
                write(results_file, yaml.safe_dump(content_yaml, sort_keys=False, allow_unicode=True))
        except OSError as error:
            raise pv.ConfigError(f"{error.filename} can't be written ({error.strerror}); choose another.") from error
        for value in filter(None, given.values()):
            _out.print(f"written to {value}", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    typer.run(main)
