"""What the benchmarks share: random models of real shapes, times taken in turns, and one way to hand out figures.

Knows clocks, tables and files. Refuses to know what is measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import pandas as pd
import torch
import typer
from rich.console import Console
from rich.table import Table

from .randoms import TINY as TINY
from .randoms import measure_in as measure_in
from .randoms import random_lm as random_lm
from .randoms import random_model as random_model
from .randoms import usual_type as usual_type

Out = Annotated[Path | None, typer.Option("--out", help="Folder for the table (CSV) and the chart (PNG).")]
AsJson = Annotated[bool, typer.Option("--json", help="End with one JSON object on the last line.")]


def seconds(run: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    begun = time.perf_counter()
    run()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - begun


def in_turns(runs: Mapping[str, Callable[[], Any]], repeats: int, warming: int = 1) -> pd.DataFrame:
    """Time every run once a turn, so that what disturbs the machine disturbs them alike.

    Parameters
    ----------
    runs : mapping of str to callable
    repeats : int
        Timed turns. Every other turn goes through the runs backwards.
    warming : int
        Turns before them that warm up; none for runs that take long and were warmed in another way.

    Returns
    -------
    DataFrame
        Seconds; a column for each run, a row for each turn. ``(times.a / times.b).median()`` is a paired ratio. The
        same in seconds of this process's processors, all threads together, is in ``times.attrs["cpu"]``: what others
        do on the machine disturbs it less.
    """
    turns, busy = [], []
    for turn in range(warming + repeats):
        order = list(runs) if turn % 2 else list(runs)[::-1]
        taken, used = {}, {}
        for name in order:
            begun = time.process_time()
            taken[name] = seconds(runs[name])
            used[name] = time.process_time() - begun
        turns.append([taken[name] for name in runs])
        busy.append([used[name] for name in runs])
    times = pd.DataFrame(turns[warming:], columns=list(runs))
    times.attrs["cpu"] = pd.DataFrame(busy[warming:], columns=list(runs))
    return times


def report(
    name: str,
    table: pd.DataFrame,
    draw: Callable[[pd.DataFrame], Any],
    out: Path | None,
    as_json: bool,
    figures: Mapping[str, Any] | None = None,
    measured: str = "random models",
) -> None:
    """Print a table; write ``name.csv`` and ``name.png`` where `out` is given; end with JSON where `as_json`.

    Parameters
    ----------
    name : str
        Of the benchmark.
    table : DataFrame
    draw : callable
        Gets the table and returns the matplotlib axes that it drew on; pandas' ``table.plot`` does.
    out : Path or None
        A folder, made if need be.
    as_json : bool
    figures : mapping, optional
        Stands in the JSON object beside ``rows``, the table's rows.
    measured : str
        What was, for the table's heading.
    """
    shown = Table(*map(str, table.columns), title=f"{name}, {measured} in {usual_type()}")
    for row in table.itertuples(index=False):
        shown.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    Console(width=1000).print(shown)  # as wide as the table needs: a line that a terminal wraps keeps its figures
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        table.to_csv(out / f"{name}.csv", index=False)
        matplotlib.use("agg")  # a chart needs no screen
        draw(table).figure.savefig(out / f"{name}.png", dpi=150, bbox_inches="tight")
    if as_json:
        rows = json.loads(table.to_json(orient="records"))  # plain numbers, null for what is missing
        print(
            json.dumps({"dtype": str(usual_type()).removeprefix("torch."), **(figures or {}), "rows": rows}), flush=True
        )
