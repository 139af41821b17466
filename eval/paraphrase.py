"""Is what dropping changes more than what rewording changes? `python -m eval.paraphrase --help`.

`runs` reads finished runs of eval.run that were made with `--answer likelihood`; `synthetic` watches synthetic videos
itself, with the built-in model or any other. Prints, writes and words what `eval.stats.noise` and `eval.stats.beyond`
find: a permutation test against all rewordings together, and paired tests against each, by the size of its edit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers import AutoTokenizer

import pdrop_video as pv
from pdrop_video.common.checks import shown, whole
from pdrop_video.models.loading import BUILTIN

from .runner.doors import clear_errors, encodable, out_folder
from .runner.paraphrases import edit_percent, paraphraser
from .stats.beyond import beyond_table, said_beyond
from .stats.noise import Reading, noise_table, said
from .stats.pairs import left_out, match
from .stats.record import Record, read_run, writable
from .synthetic.reworded import Readings, read
from .synthetic.score import EVERY

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The noise floor by rewording of questions.")

Out = Annotated[Path | None, typer.Option(help="Folder for CSV, Markdown and JSON.")]
AsJson = Annotated[bool, typer.Option("--json", help="End with one JSON object on the last line.")]
Seed = Annotated[int, typer.Option(help="Of the permutation test.")]


@app.command()
def runs(
    full: Annotated[Path, typer.Argument(help="The run with all tokens, in the benchmark's own words.")],
    pruned: Annotated[list[Path], typer.Option(help="A run that drops tokens; may be repeated.")],
    reworded: Annotated[list[Path], typer.Option(help="The full run with --paraphrase RULE; may be repeated.")],
    again: Annotated[
        Path | None, typer.Option(help="The full run a second time, in another folder: the control.")
    ] = None,
    out: Out = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Compare finished runs that were made with --answer likelihood."""
    with clear_errors(2):
        encodable("RUN", [full, *pruned, *reworded, *([] if again is None else [again])])
        _checked(out, seed)
        done = [read_run(folder) for folder in (full, *pruned, *reworded, *([] if again is None else [again]))]
        matched = match(done)
        readings = [
            Reading([_likelihoods(name, record) for record in records], matched.scores(i))
            for i, (name, records) in enumerate(zip(matched.names, matched.records, strict=True))
        ]
        split = 1 + len(pruned), 1 + len(pruned) + len(reworded)
        named = list(zip(matched.names, readings, strict=True))
        floor = matched.names[slice(*split)]
        questions = [record.question for record in matched.records[0]]
        edits, remarks = _edits(dict(zip(floor, (run.header for run in done[slice(*split)]), strict=True)), questions)
        control = None if again is None else readings[-1]
        compared = readings[0], dict(named[1 : split[0]]), dict(named[slice(*split)]), matched.videos
        table = noise_table(*compared, seed, control)
        report(table, beyond_table(*compared, edits), [*left_out(matched), *remarks], out, as_json)


def _edits(headers: Mapping[str, Mapping[str, Any]], questions: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """The mean edit of each reworded run's questions, in per cent of their tokens, and why one is not known."""
    found: dict[str, float] = {}
    remarks: list[str] = []
    for name, header in headers.items():
        try:
            rule = header.get("paraphrase") or header.get("configuration", {}).get("paraphrase")
            if rule is None:
                raise pv.ConfigError("its header names no paraphrase")
            model = header.get("model", "built-in")
            tokens = AutoTokenizer.from_pretrained(
                BUILTIN if model == "built-in" else model, revision=header.get("revision"), trust_remote_code=False
            )
            pairs = [(question, paraphraser(rule)(question)) for question in questions]
            ids = [[tokens(text, add_special_tokens=False)["input_ids"] for text in pair] for pair in pairs]
            found[name] = fmean(edit_percent(*pair) for pair in ids)
        except (pv.ConfigError, OSError, ValueError) as error:
            found[name] = math.nan
            remarks.append(f"The size of the edit of {name} is not known: {str(error).rstrip('.')}.")
    return found, remarks


@app.command()
def synthetic(
    ratios: Annotated[
        list[str], typer.Option(help="Kept share per stage of a pruned model, e.g. .5,.25,.125; may be repeated.")
    ],
    model: Annotated[str | None, typer.Option(help="Folder or hub name; the built-in model if left out.")] = None,
    questions: Annotated[int, typer.Option(min=1, help="How many questions.")] = 200,
    wordings: Annotated[int, typer.Option(min=1, help="Other wordings a question.")] = 2,
    split: Annotated[str, typer.Option(help="Of the videos and wordings: test or dev.")] = "test",
    videos: Annotated[int, typer.Option("--video-seed", help="Seed of the videos; any number.")] = 1,
    out: Out = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Watch synthetic videos with the full model and pruned ones, and ask each question in several wordings."""
    with clear_errors(2):
        if split not in ("test", "dev"):
            raise pv.ConfigError(f"--split is {shown(split)}; expected test or dev.")
        encodable("--model", model)
        _checked(out, seed)
        whole("--video-seed", videos, 0)
        pruned = {shares: pv.Pyramid(ratios=_shares(shares)) for shares in ratios}
        lm = pv.load(model)
        console, found = Console(stderr=True), Readings()
        for number, found in enumerate(read(lm, pruned, videos, questions, split, wordings), 1):
            if number % EVERY == 0:
                console.print(f"{len(found.videos)}/{questions} questions, {number} videos", highlight=False)
        reworded = {name: found.of(name) for name in found.edits}
        compared = found.of("full"), {name: found.of(name) for name in pruned}, reworded, found.videos
        edits = {name: fmean(sizes) for name, sizes in found.edits.items()}
        report(noise_table(*compared, seed, found.of("again")), beyond_table(*compared, edits), [], out, as_json)


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as error:
        raise pv.ConfigError(f"--ratios is {shown(text)}; expected numbers such as .5,.25,.125.") from error


def _checked(out: Path | None, seed: int) -> None:
    """What both commands write and draw with."""
    whole("--seed", seed, 0)
    if out is not None:
        out_folder(out)


def _likelihoods(name: str, record: Record) -> tuple[float, ...]:
    """The option likelihoods of an item's last question."""
    found = record.turns[-1].likelihoods if record.turns else None
    if found is None:
        raise pv.ConfigError(
            f"item {record.item} of {name} has no likelihoods of its options; expected runs of --answer likelihood."
        )
    return found


def report(table: pd.DataFrame, beyond: pd.DataFrame, remarks: Sequence[str], out: Path | None, as_json: bool) -> None:
    """Print the tables and what they say; write `noise.csv`, `beyond.csv`, `noise.md` and `noise.json`."""
    sentences = [*remarks, *said(table), *said_beyond(beyond)]
    title = f"{table['items'].iloc[0]:,} items on {table.videos.iloc[0]:,} videos"
    readable = {title: _moved(table), "dropping against each rewording, paired by video": _paired(beyond)}
    console = Console()
    for name, cells in readable.items():
        made = Table(*cells.columns, title=name)
        for row in cells.itertuples(index=False):
            made.add_row(*map(escape, row))
        console.print(made)
    for sentence in sentences:
        console.print(escape(sentence), highlight=False, soft_wrap=True)
    frames = {"rows": table, "beyond": beyond}
    figures = {**{k: json.loads(f.to_json(orient="records")) for k, f in frames.items()}, "said": sentences}
    if out is not None:
        writable(out)
        table.to_csv(out / "noise.csv", index=False)
        beyond.to_csv(out / "beyond.csv", index=False)
        parts = [cells.to_markdown(index=False, disable_numparse=True) for cells in readable.values()]
        parts.append("\n".join(f"- {sentence}" for sentence in sentences))
        (out / "noise.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        (out / "noise.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps(figures), flush=True)


def _moved(table: pd.DataFrame) -> pd.DataFrame:
    """How far each reading is from the full model, as people read it."""
    return pd.DataFrame(
        {
            "run": table.run,
            "kind": table.kind,
            "divergence, bits": [
                f"{d:.4f} ± {e:.4f}" for d, e in zip(table.divergence_bits, table.divergence_error, strict=True)
            ],
            "answers changed": [
                f"{100 * c:.1f} % ± {100 * e:.1f}" for c, e in zip(table.changed, table.changed_error, strict=True)
            ],
            "accuracy": [
                f"{100 * a:.1f} % ± {100 * e:.1f}" for a, e in zip(table.accuracy, table.accuracy_error, strict=True)
            ],
            "p": ["" if pd.isna(p) else f"{p:.2g}" for p in table.p_value],
        }
    )


def _paired(beyond: pd.DataFrame) -> pd.DataFrame:
    """The paired tests, as people read them."""

    def number(values: pd.Series, form: str) -> list[str]:
        return ["" if pd.isna(value) else form.format(value) for value in values]

    return pd.DataFrame(
        {
            "run": beyond.run,
            "against": beyond.against,
            "edit": number(beyond.edit_percent, "{:.0f} %"),
            "measure": beyond.measure,
            "more, bits": [
                f"{d:+.4f} ± {e:.4f}" for d, e in zip(beyond.difference_bits, beyond.standard_error, strict=True)
            ],
            "t": number(beyond.t, "{:.2f}"),
            "p after Holm": number(beyond.p_holm, "{:.2g}"),
            "d": number(beyond.cohens_d, "{:.2f}"),
            "at most, bits": number(beyond.bound_bits, "{:+.4f}"),
            "changed alone": [f"{a} : {b}" for a, b in zip(beyond.only_pruned, beyond.only_reworded, strict=True)],
        }
    )


if __name__ == "__main__":
    app()
