"""StreamingEval's protocol (arXiv 2603.21493): a memory of so many bytes, one frame a second, and latency scored.

`budget` says which settings of eval.run that is for a model; `score` says what finished runs come to. Knows configs
and tables; the formulas are in `eval.stats.streaming`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers import AutoConfig, AutoModelForImageTextToText

import pdrop_video as pv
from pdrop_video.common.checks import real
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.models.loading import BUILTIN

from .runner.doors import clear_errors, encodable
from .stats.pairs import run_names
from .stats.record import Run
from .stats.streaming import Streamed, Weights, token_budget
from .stats.verdicts import read_judged

app = typer.Typer(no_args_is_help=True, add_completion=False, help="StreamingEval: fixed memory, latency scored.")
_out = Console()


@app.command()
def budget(
    megabytes: Annotated[float, typer.Argument(metavar="MB", help="What a memory may hold, in millions of bytes.")],
    model: Annotated[str | None, typer.Option(help="Folder or hub name; left out: the built-in model.")] = None,
    number: Annotated[int, typer.Option(min=1, max=8, help="Bytes of a number: 2 for bfloat16.")] = 2,
) -> None:
    """Say which settings of eval.run are the protocol with a memory of so many megabytes."""
    with clear_errors():
        encodable("--model", model)
        real("MB", megabytes, 0, above=True)
        tokens = tokens_of(model, megabytes, number)
        if tokens < 1:
            raise pv.ConfigError(f"{megabytes:g} MB hold no token of this model; give it more.")
        _out.print(f"{tokens:,} tokens of {model or 'the built-in model'} in {megabytes:g} MB", highlight=False)
        _out.print(f"--fps 1 --chunk 1 --memory {tokens}", highlight=False)


def tokens_of(model: str | None, megabytes: float, number: int = 2) -> int:
    """How many tokens of a model a memory of so many megabytes holds by the protocol."""
    shape = DecoderShape.of(_config(model))
    columns = shape.columns or ((shape.kv_heads, shape.head_dim, shape.head_dim),) * shape.layers
    return token_budget(1e6 * megabytes, shape.hidden, columns, number)


def parameters_of(model: str | None) -> int:
    """How many parameters a model has, without loading any."""
    try:
        with torch.device("meta"):
            made = AutoModelForImageTextToText.from_config(_config(model))
    except ValueError as error:
        raise pv.ConfigError(f"the parameters of {model} can't be counted here; give --parameters.") from error
    return sum(parameter.numel() for parameter in made.parameters())


def _config(model: str | None) -> Any:
    try:
        return AutoConfig.from_pretrained(BUILTIN if model is None else model)
    except (OSError, ValueError) as error:
        raise pv.ModelError(
            f"the configuration of {model} can't be read; is it a folder or a name of the hub?"
        ) from error


@app.command()
def score(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Output folders of eval.run.")],
    megabytes: Annotated[
        float | None, typer.Option(help="What the memory was to hold; said where a run held more.")
    ] = None,
    parameters: Annotated[int | None, typer.Option(min=3, help="Of the model; left out: counted.")] = None,
    weights: Annotated[
        str, typer.Option(help="Of frames a second, accuracy, time to the first token, and memory; they add up to 1.")
    ] = "0.25,0.25,0.25,0.25",
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object on the last line.")] = False,
) -> None:
    """Say how right, fast, soon and small finished runs were, and their StreamingScore."""
    with clear_errors(2):
        encodable("RUN", runs)
        chosen = _weights(weights)
        done = [read_judged(folder) for folder in runs]
        names = run_names(done)
        found = [scored(run, parameters, chosen) for run in done]
        remarks = [
            said for name, run, of in zip(names, done, found, strict=True) for said in broken(name, run, of, megabytes)
        ]
    table = Table(title="StreamingEval", title_justify="left")
    for head in ("run", "accuracy", "first token", "whole answer", "frames a second", "memory", "StreamingScore"):
        table.add_column(head, justify="left" if head == "run" else "right")
    for name, of in zip(names, found, strict=True):
        table.add_row(
            escape(name),
            f"{of['accuracy']:.1%}",
            f"{of['ttft']:.3f} s",
            f"{of['latency']:.3f} s",
            f"{of['max_fps']:.2f}",
            f"{of['memory_bytes'] / 1e6:,.2f} MB",
            f"{of['score']:.4g}",
        )
    _out.print(table)
    for sentence in (
        *remarks,
        "Frames a second count all of watching, from pixels to what is remembered: the language model too. No weights "
        "and units of StreamingScore are published; here memory is in GB and accuracy a fraction. Compare runs on one "
        "machine only.",
    ):
        _out.print(escape(sentence), soft_wrap=True, highlight=False)
    if as_json:
        print(json.dumps({name: of for name, of in zip(names, found, strict=True)}), flush=True)


def _weights(text: str) -> Weights:
    try:
        return Weights(*(float(part) for part in text.split(",")))
    except (ValueError, TypeError) as error:
        if isinstance(error, pv.ConfigError):
            raise
        raise pv.ConfigError(f"--weights is {text!r}; expected four numbers, as 0.25,0.25,0.25,0.25.") from error


def scored(run: Run, parameters: int | None, weights: Weights) -> dict[str, Any]:
    """A run's figures and its score, JSON-ready."""
    streamed = Streamed.of(run.records)
    model = run.header.get("model", "built-in")
    count = parameters if parameters is not None else parameters_of(None if model == "built-in" else model)
    return {**asdict(streamed), "parameters": count, "score": streamed.score(count, weights)}


def broken(name: str, run: Run, found: dict[str, Any], megabytes: float | None) -> list[str]:
    """Where a run did not keep to the protocol, a sentence each."""
    config, said = run.header.get("configuration", {}), []
    if config.get("fps") != 1 or config.get("chunk") != 1:
        rate = f"{config.get('frames')} frames in all" if config.get("fps") is None else f"{config['fps']:g} a second"
        said.append(
            f"{name} was not given one frame at a time, one a second, but {rate}, {config.get('chunk')} at once."
        )
    if not (config.get("memory") or {}).get("tokens") and config.get("last_frames") is None:
        said.append(f"{name} had no fixed memory.")
    if megabytes is not None and found["memory_bytes"] > 1e6 * megabytes:
        said.append(f"{name} held {found['memory_bytes'] / 1e6:,.2f} MB, more than the {megabytes:g} MB it was to.")
    return said


if __name__ == "__main__":
    app()
