"""`pdrop-video train-part`: train a part beside a frozen model. Parses and prints; the training is the library's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import pdrop_video as pv

from ..errors import ConfigError
from ..training import TRAINERS, Plan, read_lines, train
from .arguments import Device, Dtype, Model
from .console import clear_errors
from .fetching import announced
from .options import check_choice

EXAMPLES = """
[bold]Examples[/bold]

  pdrop-video train-part learnpruner --data lines.jsonl --out parts/ --work work/

  pdrop-video train-part learnpruner --model Qwen/Qwen2.5-VL-7B-Instruct --data lines.jsonl --set keep=0.1
"""
ALL = "all"


def train_part(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help=f"{', '.join(TRAINERS)}; or all.")],
    data: Annotated[
        list[Path],
        typer.Option(help='JSON lines such as {"video": "a.mp4", "question": "Who?", "answer": "a dog"}; repeatable.'),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the parts' files.")] = Path("parts"),
    work: Annotated[
        Path, typer.Option(help="Folder of checkpoints and labels: the same command again goes on.")
    ] = Path("parts-work"),
    model: Model = None,
    steps: Annotated[int | None, typer.Option(help="Steps; left out: the part's own, some minutes.", min=1)] = None,
    batch: Annotated[int, typer.Option(help="Lines of a step, about one video.", min=1)] = 6,
    rate: Annotated[float | None, typer.Option(help="Learning rate; left out: the part's own.")] = None,
    frames: Annotated[int, typer.Option(help="Most frames of a video.", min=1)] = 128,
    held_out: Annotated[int, typer.Option(help="Most held-out lines.", min=1)] = 60,
    seed: Annotated[int, typer.Option(help="Of weights, order and noise.", min=0)] = 0,
    set: Annotated[list[str] | None, typer.Option(help="A setting of the part's own training, as keep=0.1.")] = None,
    device: Device = None,
    dtype: Dtype = "auto",
) -> None:
    """Train one part or several for a model, which stays as it is."""
    with clear_errors():
        for name in names:
            check_choice("NAME", name, *TRAINERS, ALL)
        chosen = list(TRAINERS) if ALL in names else list(dict.fromkeys(names))
        given = {name: _settings(name, set or []) for name in chosen}
        plans = {}
        for name in chosen:
            of = TRAINERS[name]
            how = dict(batch=batch, seed=seed, frames=frames, held=held_out)
            plans[name] = Plan(steps=steps or of.steps, rate=of.rate if rate is None else rate, **how)
        lines = [line for path in data for line in read_lines(path)]
        lm = pv.load(announced(model).fetch(), device=device, dtype=dtype)
        for name in chosen:
            train(TRAINERS[name](lm, **given[name]), lines, out, work, plans[name], typer.echo)


def _settings(name: str, given: list[str]) -> dict[str, Any]:
    """What ``--set`` says, for a trainer that has such settings."""
    usual, found = TRAINERS[name].defaults, {}
    for each in given:
        key, _, value = each.partition("=")
        if key not in usual:
            raise ConfigError(f"--set {each}: {name} has the settings {', '.join(usual) or 'none'}.")
        try:
            found[key] = type(usual[key])(json.loads(value)) if not isinstance(usual[key], str) else value
        except (ValueError, TypeError) as error:
            raise ConfigError(f"--set {each}: expected a value like {usual[key]!r}.") from error
    return found
