"""What training with dropping came to: accuracy of each checkpoint at shares of the FLOPs, and the time of a step.

    python -m eval.synthetic.dropped --work DIR
    python -m eval.tables.dropped --work DIR --data SET --out eval/results

Every checkpoint of `eval.synthetic.dropped`, and the untouched start, answers the questions of a set through streams
with all tokens and under PyramidDrop's shape at 50, 25 and 15 % of the decoder's FLOPs of one prefill. At each share
the others are compared with `without_steps`, by paired tests clustered by video. Before that, the time of a training
step is taken in turns, by number of grids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import typer
from rich.console import Console
from scipy import stats

import pdrop_video as pv

from ..bench.common import in_turns
from ..compare import verdict, write
from ..run import driver_of
from ..runner.config import configured
from ..runner.doors import clear_errors, out_folder
from ..runner.execute import execute
from ..stats.pairs import category_table, match, pair_table, run_table
from ..stats.record import Run as Answered
from ..stats.record import read_run
from ..synthetic.bank import labels_of
from ..synthetic.dropped import opened
from ..synthetic.dropping_run import MEASURED, WITHOUT, Run, spending
from ..synthetic.language_stage import clips_for
from ..synthetic.lessons import BLIND, Teacher
from ..synthetic.world import sample_clip
from .base import ALL, Settings, written

REFERENCE = f"{WITHOUT}_steps"
START = "start"
GRIDS = (8, 24, 40, 128)
"""Grids of the lessons that are timed."""
REPEATS = 3
WIDTH = 256
"""Of the built-in model."""


def checkpoints(work: Path) -> dict[str, Path]:
    """Model folders by name, the reference first, then the start.

    Raises
    ------
    ConfigError
        If the training is not done.
    """
    done = work / "dropped.json"
    if not done.is_file():
        raise pv.ConfigError(f"{work} holds no dropped.json; finish python -m eval.synthetic.dropped --work {work}.")
    names = list(json.loads(done.read_text())["checkpoints"])
    start = Path(json.loads((work / "asked.json").read_text())["asked"]["start"])
    return {REFERENCE: work / REFERENCE, START: start, **{n: work / n for n in names if n != REFERENCE}}


def rows(folders: Mapping[str, Path], scorer: str) -> dict[str, dict[str, Settings]]:
    """Settings of `eval.run` by share and checkpoint."""
    config: Any = pv.load(str(folders[REFERENCE])).model.config
    given: dict[str, dict[str, Settings]] = {}
    for share in MEASURED:
        pyramid = ALL if share == 1 else {**written(spending(config, share, scorer)), "scorer": scorer}
        given[f"{share:.0%}"] = {name: {"model": str(path), "pyramid": pyramid} for name, path in folders.items()}
    return given


def step_times(runs: list[Run], tokenizer: Any, repeats: int = REPEATS) -> pd.DataFrame:
    """Processor seconds of a training step by each run's schedules, in turns, and times faster than `without`.

    Whole steps: forward, backward and the optimiser's, on words as in training. `random` takes its schedules as the
    first steps of a training do, another in each turn.
    """
    labels = np.concatenate([labels_of(sample_clip("train", 1, n, seconds=8, dense=True)) for n in range(100)])
    source = torch.Generator().manual_seed(0)
    teacher = Teacher(torch.randn(len(labels), 16, WIDTH, generator=source).bfloat16(), labels, tokenizer, "train")
    table = []
    for grids in GRIDS:
        lesson = teacher.lesson(np.random.default_rng(grids), clips_for(grids, "words"), grids, True, blindness=BLIND)
        turns = dict.fromkeys((run.name for run in runs), 0)

        def step(run: Run, lesson: Any = lesson, turns: dict[str, int] = turns) -> None:
            turns[run.name] += 1
            run.learn(lesson, "words", run.draw(np.random.default_rng([0, 6, turns[run.name]])))

        times = in_turns({run.name: partial(step, run) for run in runs}, repeats).attrs["cpu"]
        row: dict[str, float | int] = {"grids": grids, "clips": len(lesson.ids), "rows": lesson.ids.shape[1]}
        row |= {f"{name}_s": float(times[name].median()) for name in times}
        row |= {f"{n}_times_faster": float((times[WITHOUT] / times[n]).median()) for n in times if n != WITHOUT}
        table.append(row)
    return pd.DataFrame(table)


def compared(done: Mapping[str, list[Answered]], margin: float) -> tuple[pd.DataFrame, list[str]]:
    """At each share the paired tests against its first run, and what each of them shows."""
    pairs = []
    for share, runs in done.items():
        pairs.append(pair_table(match(runs), margin).assign(share=share))
    table = pd.concat(pairs, ignore_index=True)
    return table, [verdict(row, 0.95) for row in table.to_dict("records")]


def by_share(done: Mapping[str, list[Answered]]) -> pd.DataFrame:
    """Accuracy in per cent with its error by videos: a row a checkpoint, a column a share of the FLOPs."""
    columns = {}
    for share, runs in done.items():
        table = run_table(match(runs))
        names = [name.removesuffix(f" {share}") for name in table.run]
        cells = [f"{100 * a:.1f} ± {100 * e:.1f}" for a, e in zip(table.accuracy, table.standard_error, strict=True)]
        columns[share] = pd.Series(cells, index=names)
    return pd.DataFrame(columns).rename_axis("checkpoint").reset_index()


def draw(done: Mapping[str, list[Answered]], path: Path) -> None:
    """A line a checkpoint, side by side at each share so that their bars can be told apart."""
    matplotlib.use("agg")  # a picture needs no screen
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    tables = {share: run_table(match(runs)) for share, runs in done.items()}
    names = [name.removesuffix(f" {next(iter(done))}") for name in next(iter(tables.values())).run]
    reach = float(stats.t.ppf(0.975, max(int(next(iter(tables.values())).videos.iloc[0]) - 1, 1)))
    for i, (name, mark) in enumerate(zip(names, "osD^v<>P*X", strict=False)):
        right = [100 * table.accuracy.iloc[i] for table in tables.values()]
        error = [100 * reach * table.standard_error.iloc[i] for table in tables.values()]
        places = np.arange(len(tables)) + 0.06 * (i - (len(names) - 1) / 2)
        look = {"color": "0.5", "linestyle": ":"} if name == START else {"linewidth": 1}
        axes.errorbar(places, right, yerr=error, marker=mark, markersize=5, capsize=2, label=name, **look)
    axes.set_xticks(range(len(tables)), list(tables))
    axes.set_xlabel("FLOPs of the decoder, of all tokens'")
    axes.set_ylabel("accuracy, %")
    axes.set_title("bars are 95% intervals by videos", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def main(
    work: Annotated[Path, typer.Option(help="Folder of eval.synthetic.dropped.")],
    data: Annotated[Path, typer.Option(help="A set in Video-MME's layout, as eval.synthetic.make writes it.")],
    out: Annotated[Path, typer.Option(help="Gets CSV, Markdown, JSON and PNG in a folder of --name.")] = Path(
        "eval/results"
    ),
    name: Annotated[str, typer.Option(help="Of the table.")] = "dropped",
    runs: Annotated[Path | None, typer.Option(help="Keeps the runs, row by row; in --work if left out.")] = None,
    answer: Annotated[str, typer.Option(help="likelihood, or generate.")] = "likelihood",
    limit: Annotated[int | None, typer.Option(help="Only the first so many questions.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps decoded frames.")] = None,
    margin: Annotated[float, typer.Option(help="Largest loss that counts as none.")] = 0.03,
    dtype: Annotated[str, typer.Option(help="As eval.run's. float32 is the faster one on most CPUs.")] = "auto",
    repeats: Annotated[int, typer.Option(min=0, help="Timed turns of a training step; 0 times none.")] = REPEATS,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
) -> None:
    """Measure the checkpoints of a training with dropping at 100, 50, 25 and 15 % of the FLOPs."""
    with clear_errors():
        out_folder(out)
        torch.set_num_threads(threads)
        folders = checkpoints(work)
        asked = json.loads((work / "asked.json").read_text())["asked"]
        common = {"task": "videomme", "data": data, "fps": 2.0, "chunk": 8, "answer": answer}
        common |= {"limit": limit, "cache": cache or work / "frames", "dtype": dtype}
        kept, done = runs or work / "runs", dict[str, list[Answered]]()
        for share, given in rows(folders, asked["scorer"]).items():
            for row, settings in given.items():
                Console(stderr=True).print(f"{row} at {share}", highlight=False)
                config = configured(None, {**common, **settings, "out": kept / f"{row} {share}"})
                execute(config, None, driver_of(config, 1, None))
                done.setdefault(share, []).append(read_run(config.out))
        everything = match([run for each in done.values() for run in each])
        pairs, said = compared(done, margin)
        tables = {"runs": run_table(everything), "pairs": pairs, "categories": category_table(everything)}
        trained = json.loads((work / "dropped.json").read_text())
        figures = {"task": everything.task, "said": said, "asked": asked, "training": trained}
        write(out / name, everything, tables, said, figures, 0.95)
        draw(done, out / name / "shares.png")
        wide = by_share(done).to_markdown(index=False)
        parts = [f"# Trained with dropping: accuracy by share of the FLOPs, %\n\n{wide}\n\n![The same](shares.png)"]
        if repeats:
            learners, tokenizer, _ = opened(Path(asked["start"]), 0, 0, asked["scorer"], 0.0)
            times = step_times(learners, tokenizer, repeats)
            times.to_csv(out / name / "step_times.csv", index=False)
            parts.append(f"## A training step\n\n{times.to_markdown(index=False, floatfmt='.3g')}")
        (out / name / "shares.md").write_text("\n\n".join(parts) + "\n")
        Console().print("\n\n".join(parts), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
