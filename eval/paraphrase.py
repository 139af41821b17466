"""Is what dropping changes more than what rewording changes? `python -m eval.paraphrase --help`.

`runs` reads finished runs of eval.run that were made with `--answer likelihood`; `synthetic` watches synthetic videos
itself, with the built-in model or any other. Prints, writes and words what `eval.stats.noise` finds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import pdrop_video as pv
from eval.runner.doors import clear_errors, encodable, out_folder
from eval.stats.noise import Reading, noise_table, said
from eval.stats.pairs import left_out, match
from eval.stats.record import Record, read_run, writable
from eval.synthetic.reworded import Readings, read
from eval.synthetic.score import EVERY
from pdrop_video.common.checks import shown, whole

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The noise floor by rewording of questions.")

Out = Annotated[Path | None, typer.Option(help="Folder for CSV, Markdown and JSON.")]
AsJson = Annotated[bool, typer.Option("--json", help="End with one JSON object on the last line.")]
Seed = Annotated[int, typer.Option(help="Of the permutation test.")]


@app.command()
def runs(
    full: Annotated[Path, typer.Argument(help="The run with all tokens, in the benchmark's own words.")],
    pruned: Annotated[list[Path], typer.Option(help="A run that drops tokens; may be repeated.")],
    reworded: Annotated[list[Path], typer.Option(help="The full run with --paraphrase RULE; may be repeated.")],
    out: Out = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Compare finished runs that were made with --answer likelihood."""
    with clear_errors(2):
        encodable("RUN", [full, *pruned, *reworded])
        _checked(out, seed)
        matched = match([read_run(folder) for folder in (full, *pruned, *reworded)])
        readings = {
            name: Reading([_likelihoods(name, record) for record in records], matched.scores(i))
            for i, (name, records) in enumerate(zip(matched.names, matched.records, strict=True))
        }
        first, *others = matched.names
        table = noise_table(
            readings[first],
            {name: readings[name] for name in others[: len(pruned)]},
            {name: readings[name] for name in others[len(pruned) :]},
            matched.videos,
            seed,
        )
        report(table, left_out(matched), out, as_json)


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
        reworded = {name: found.of(name) for name in found.scores if name not in {"full", *pruned}}
        table = noise_table(found.of("full"), {name: found.of(name) for name in pruned}, reworded, found.videos, seed)
        report(table, [], out, as_json)


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


def report(table: pd.DataFrame, remarks: Sequence[str], out: Path | None, as_json: bool) -> None:
    """Print the table and what it says; write `noise.csv`, `noise.md` and `noise.json`."""
    sentences = [*remarks, *said(table)]
    shown = pd.DataFrame(
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
    console = Console()
    made = Table(*shown.columns, title=f"{table['items'].iloc[0]:,} items on {table.videos.iloc[0]:,} videos")
    for row in shown.itertuples(index=False):
        made.add_row(*map(escape, row))
    console.print(made)
    for sentence in sentences:
        console.print(escape(sentence), highlight=False, soft_wrap=True)
    figures = {"rows": json.loads(table.to_json(orient="records")), "said": sentences}
    if out is not None:
        writable(out)
        table.to_csv(out / "noise.csv", index=False)
        listed = "\n".join(f"- {sentence}" for sentence in sentences)
        text = f"{shown.to_markdown(index=False, disable_numparse=True)}\n\n{listed}\n"
        (out / "noise.md").write_text(text, encoding="utf-8")
        (out / "noise.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    app()
