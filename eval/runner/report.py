"""A summary as people read it: a table on the terminal and a page of Markdown."""

from __future__ import annotations

from typing import Any, TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Rows: TypeAlias = list[tuple[str, ...]]
Titled: TypeAlias = tuple[str, tuple[str, ...], Rows]


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the tables."""
    for title, head, rows in tables(summary):
        table = Table(*map(escape, head), title=escape(title), title_justify="left")
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
    for line in remarks(summary):
        console.print(escape(line), soft_wrap=True, highlight=False)


def markdown(summary: dict[str, Any]) -> str:
    """The same as a page."""
    header = summary["header"]
    parts = [f"# {header['task']} with {header['model']}\n"]
    for title, head, rows in tables(summary):
        parts.append(f"## {title}\n")
        lines = [head, ("---",) * len(head), *rows]
        parts.append("".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in lines))
    parts.append("".join(f"- {line}\n" for line in remarks(summary)))
    return "\n".join(parts)


def tables(summary: dict[str, Any]) -> list[Titled]:
    """Title, head and rows of every table."""
    head = ("accuracy", "95 % interval", "error", "items", "videos")
    found: list[Titled] = [("Accuracy", ("reading", *head), _accuracies(summary))]
    own, official = {**summary["figures"], **summary["details"]}, summary["official"] or {"figure": None}
    if own:
        marks = {official["figure"]: " (the official figure)"}
        rows = [_row(name + marks.get(name, ""), of) for name, of in own.items()]
        found.append(("The benchmark's own figures", ("figure", "value", *head[1:]), rows))
    for name, values in summary["categories"].items():
        rows = [_row(value, mean) for value, mean in values.items()]
        found.append((f"By {name}, strict reading", (name, *head), rows))
        if (of := official.get("categories", {}).get(name, {})) and of != values:
            rows = [_row(value, mean) for value, mean in of.items()]
            found.append((f"By {name}, official reading, {official['counts']}", (name, *head), rows))
    found.append(("Cost of one item, on average", ("", "value"), _costs(summary)))
    return found


def remarks(summary: dict[str, Any]) -> list[str]:
    """What a reader must know to use the figures."""
    items, header = summary["items"], summary["header"]
    said = [
        f"{items['finished']} of {items['expected']} items finished, on {items['videos']} videos; {items['errors']} "
        f"errors, {items['unanswered']} without a readable answer ({items['unanswered_official']} by the official "
        "reading). Errors are standard errors, clustered by video; intervals are Student's, with one degree of freedom "
        "less than videos."
    ]
    if items["damaged"]:
        said.append(
            f"{items['damaged']} items were asked about a video that could not be read whole; `warnings` of their "
            "records say what is missing."
        )
    if summary["official"] is None:
        said.append("No figure here is the benchmark's official one.")
    if summary["answers_read_by"] == "likelihood":
        said.append("Answers were read by the length-normalised likelihood of the options' texts, not by generation.")
    config = header["configuration"]
    if "gate" in config:
        said.append(f"Frames were encoded as the gate {config['gate']} let them through; all count as watched.")
    if "reducer" in config:
        said.append(f"Visual tokens entered the language model as the reducer {config['reducer']} let them through.")
    if config["question_aware"]:
        said.append("Each question ranked tokens while its video was watched: one ingestion a question.")
    if config["last_frames"] is not None:
        said.append(f"Recency baseline: each question saw the last {config['last_frames']} frames only.")
    if header["note"]:
        said.append(header["note"])
    said.append("FLOPs are analytic, of the language model; the vision tower is not counted.")
    return said


def _accuracies(summary: dict[str, Any]) -> Rows:
    names = {
        "strict_all": "strict, all questions",
        "strict_answered": "strict, answered ones",
        "official_all": "official reading, all questions",
        "official_answered": "official reading, answered ones",
    }
    if summary["official"] is not None and summary["official"]["figure"] in names:
        names[summary["official"]["figure"]] += " (the official figure)"
    accuracies = summary["accuracy"]
    return [_row(said, accuracies[name]) for name, said in names.items() if accuracies[name]]


def _row(name: str, mean: dict[str, Any]) -> tuple[str, ...]:
    error = "unknown" if mean["standard_error"] is None else f"{mean['standard_error']:.1%}"
    interval = "unknown" if mean["low"] is None else f"{100 * mean['low']:.1f} to {100 * mean['high']:.1f}"
    return name, f"{mean['mean']:.1%}", interval, error, f"{mean['items']:,}", f"{mean['videos']:,}"


def _costs(summary: dict[str, Any]) -> Rows:
    cost, time = summary["cost"], summary["time"]
    rows = []
    if cost:
        rows += [
            ("frames", f"{cost['frames']:,.1f}"),
            ("visual tokens", f"{cost['visual_tokens']:,.0f}"),
            ("remembered by stage", " -> ".join(f"{kept:,.0f}" for kept in cost["kept_by_stage"])),
            ("cache", f"{cost['cache_bytes_mean'] / 2**20:,.2f} MiB (most {cost['cache_bytes_max'] / 2**20:,.2f})"),
            ("language model", f"{cost['tflops']:,.4g} TFLOPs"),
        ]
        if cost["whole_tflops"] is not None:
            rows.append(("frames to answer", f"{cost['whole_tflops']:,.4g} TFLOPs"))
        if cost["archive_bytes_max"]:
            rows.append(("archive on the host", f"most {cost['archive_bytes_max'] / 2**20:,.2f} MiB"))
        rows += [(f"{part.replace('_', ' ')}", f"{seconds:,.3f} s") for part, seconds in cost["seconds"].items()]
    parts = ", ".join(f"{part} {time[part]:,.1f} s" for part in ("decode", "model", "runner"))
    return [*rows, ("whole run", f"{parts}: the runner takes {time['runner_share']:.2%}")]
