"""Train with dropping and without it, from one start: what PyramidDrop's training costs, and what it gains.

    python -m eval.synthetic.dropped --work DIR [--minutes 10] [--reset 4]

Three runs of the language part see the same lessons of still and moving cameras (`mixed_stage`) in the same order, each
lesson in turns, so that what disturbs the machine disturbs them alike:

| run | drops |
|---|---|
| `without` | nothing |
| `dropping` | by PyramidDrop's default schedule: half of the visual tokens at each of three boundaries |
| `random` | at each step by another schedule: PyramidDrop's shape at 15, 20, ..., 100 % of the FLOPs, each as likely |

All of them rank as streams do (`dropping`). The learning rate rises for 20 steps, stays, and falls to nothing over the
last fifth: each run is ended twice, at the steps of `without` ("steps"), and at its seconds ("time"), that is after as
many more steps as its own took less time in the turns. Seconds are the processor's, which are the wall clock's where
nothing else runs. So there are five checkpoints in DIR, `without_steps`, `dropping_steps`, `dropping_time`,
`random_steps` and `random_time`, and `eval.tables.dropped` measures them.

`--reset K` gives the last K layers of the start new weights at first. The start knows its lessons, so what is learned
from it is only how to see less; behind new layers the runs show who learns faster.

A stopped run goes on where it was when it is started again with the same options. The design is ours; the paper
compares whole trainings of real models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

import pdrop_video as pv

from .dropping import scorer_for
from .dropping_run import WITHOUT, Draw, Run, Turns, seconds_a_step, spending
from .log import Log
from .mixed_stage import Teachers
from .model import build_model, save_model
from .train_moving import banks_of, earlier_version, teachers_of

SHARES = tuple(percent / 100 for percent in range(15, 101, 5))
"""Of the FLOPs, that `random` draws from."""
FIRST = 10
"""Steps whose time says how many `--minutes` are."""
COOLED = 0.2
"""Part of the steps over which the learning rate falls."""


def draws(config: Any, scorer: str) -> Mapping[str, Draw]:
    """What each run drops at a step, by a generator that is the step's own."""
    whole, usual = pv.Pyramid(stages=1), pv.Pyramid(scorer=scorer)
    scorer_for(usual)
    several = [spending(config, share, scorer) for share in SHARES]
    return {
        WITHOUT: lambda rng: whole,
        "dropping": lambda rng: usual,
        "random": lambda rng: several[int(rng.integers(len(several)))],
    }


def opened(
    start: Path, reset: int, seed: int, scorer: str, lr: float
) -> tuple[list[Run], PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration]:
    """The runs at their start, the tokenizer, and the start itself.

    Raises
    ------
    ConfigError
        If there is no model in `start`, or it has fewer layers than are to be new.
    """
    if not (start / "config.json").is_file():
        raise pv.ConfigError(f"{start} holds no config.json; expected a folder of the built-in model's kind.")

    tokenizer: Any = AutoTokenizer.from_pretrained(start, local_files_only=True)
    untouched, fresh = earlier_version(start), build_model(tokenizer, seed).bfloat16()
    layers = len(untouched.model.language_model.layers)
    if not 0 <= reset <= layers:
        raise pv.ConfigError(f"--reset is {reset}; expected 0 to {layers}, the layers of {start}.")
    runs = []
    for name, draw in draws(untouched.config, scorer).items():
        own = earlier_version(start)
        for i in range(layers - reset, layers):
            new = fresh.model.language_model.layers[i].state_dict()
            own.model.language_model.layers[i].load_state_dict(new)
        runs.append(Run(name, own, draw, lr))
    return runs, tokenizer, untouched


def teachers(
    bank: Path, work: Path, clips: int, still: int, tokenizer: PreTrainedTokenizerFast, tower: Any, threads: int
) -> dict[str, Teachers]:
    """Teachers of each world that there are clips of, on the start's features of a bank as `train_moving` fills it."""
    return teachers_of(banks_of(bank, clips, still, threads), still, work / "features.pt", tower, tokenizer)


def ended(run: Run, turns: Turns, end: int, name: str, out: Path) -> dict[str, Any]:
    """One run from where the turns left it to its end; its model in `out/name`, and what it came to."""
    noted = out / name / "trained.json"
    if noted.exists():
        return dict(json.loads(noted.read_text()))
    took = turns.alone(run, end, name)
    figures = {"run": run.name, "steps": end, "seconds": took, "dev": turns.dev_accuracy(run.model)}
    save_model(run.model, out / name)
    noted.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def planned(turns: Turns, runs: Sequence[Run], steps: int | None, minutes: float, asked: Mapping[str, Any]) -> int:
    """Steps of `without`: as said, or as many as take so many minutes, which is found out once and kept.

    Raises
    ------
    ConfigError
        If the folder holds runs that were asked for otherwise.
    """
    kept, asked = turns.work / "asked.json", {**asked, "steps": steps, "minutes": None if steps else minutes}
    if kept.exists():
        before = json.loads(kept.read_text())
        if before["asked"] != asked:
            other = ", ".join(f"{name} {before['asked'].get(name)}" for name in asked)
            raise pv.ConfigError(f"{turns.work} holds runs with {other}; say the same, or take another --work.")
        return int(before["steps"])
    found = steps
    if not found:
        turns.together(runs, FIRST)
        found = max(2 * FIRST, round(60 * minutes / seconds_a_step(runs)[WITHOUT]))
    kept.write_text(json.dumps({"steps": found, "asked": asked}) + "\n")
    return found


def train(runs: Sequence[Run], turns: Turns, steps: int, cooled: float = COOLED) -> dict[str, Any]:
    """All runs in turns up to where `without` begins to end, and then each to its ends.

    Parameters
    ----------
    runs : sequence of Run
        At their start.
    turns : Turns
        Its folder gets a model folder for each end, and `dropped.json`.
    steps : int
        Of `without`.
    cooled : float
        Part of the steps over which the learning rate falls.

    Returns
    -------
    dict
        What is in `dropped.json`: `seconds_a_step` of each run, `times_faster` than `without`, and `checkpoints`, of
        each the run, its steps and seconds, and the dev accuracy by share of the FLOPs.
    """
    turns.cooling = max(1, round(cooled * steps))
    turns.together(runs, steps - turns.cooling)
    taken = seconds_a_step(runs)
    found = {}
    for run in runs:
        found[f"{run.name}_steps"] = ended(run, turns, steps, f"{run.name}_steps", turns.work)
        if run.name != WITHOUT:
            longer = max(steps, int(steps * taken[WITHOUT] / taken[run.name]))
            found[f"{run.name}_time"] = ended(run, turns, longer, f"{run.name}_time", turns.work)
    times = {name: taken[WITHOUT] / each for name, each in taken.items()}
    said = {"steps": steps, "seconds_a_step": taken, "times_faster": times, "checkpoints": found}
    (turns.work / "dropped.json").write_text(json.dumps(said, indent=1) + "\n")
    return said


def main(
    work: Annotated[Path, typer.Option(help="Folder for features, checkpoints, models and the log.")],
    start: Annotated[Path, typer.Option(help="Model folder that all runs begin with.")] = Path("pdrop_video/builtin"),
    bank: Annotated[
        Path | None,
        typer.Option(help="Work folder of eval.synthetic.train_moving with its banks; --work if left out."),
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="Clips of 8 grids in the training bank.")] = 3200,
    still: Annotated[int, typer.Option(min=0, help="How many of them are of still cameras.")] = 1200,
    steps: Annotated[int | None, typer.Option(min=5, help="Steps of the run without dropping.")] = None,
    minutes: Annotated[float, typer.Option(help="In place of --steps: processor time of that run.")] = 10.0,
    reset: Annotated[int, typer.Option(min=0, help="So many of the last layers begin anew.")] = 0,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; 2e-4, or 1e-3 with --reset.")] = None,
    scorer: Annotated[str, typer.Option(help="What ranks; it must look at no question.")] = "contrast",
    seed: Annotated[int, typer.Option(help="Of lessons, drawn schedules and new layers.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
) -> None:
    """Train with dropping, without it, and with random ratios, at equal steps and at equal time."""
    torch.set_num_threads(threads)
    work.mkdir(parents=True, exist_ok=True)
    log = Log(work / "training_log.csv")
    rate = lr or (1e-3 if reset else 2e-4)
    runs, tokenizer, untouched = opened(start, reset, seed, scorer, rate)
    taught = teachers(bank or work, work, clips, min(still, clips), tokenizer, untouched, threads)
    turns = Turns(taught, work, log, seed, scorer)
    asked: dict[str, Any] = {"start": str(start), "clips": clips, "still": still, "reset": reset}
    asked |= {"lr": rate, "scorer": scorer, "seed": seed}
    found = train(runs, turns, planned(turns, runs, steps, minutes, asked))
    untouched.set_attn_implementation("bf16_softmax")
    print(json.dumps(found | {"start": turns.dev_accuracy(untouched)}), flush=True)


if __name__ == "__main__":
    typer.run(main)
