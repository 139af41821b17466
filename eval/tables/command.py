"""The command that runs a table's rows one by one and writes them side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import pdrop_video as pv
from pdrop_video.common.checks import real, shown

from ..compare import verdict, write
from ..run import driver_of
from ..runner.config import configured
from ..runner.doors import clear_errors, encodable, out_folder
from ..runner.equal import Way
from ..runner.execute import execute
from ..stats.pairs import category_table, match, pair_table, run_table
from ..stats.record import read_run
from .base import Rows, Settings
from .front import front, reduce
from .inside import chunks, depth, joint, stage
from .remembering import asking, decode, memory

TABLES: Mapping[str, Callable[[Way], Rows]] = {
    "depth": depth,
    "joint": joint,
    "stage": stage,
    "memory": memory,
    "asking": asking,
    "decode": decode,
    "chunks": chunks,
    "front": front,
    "reduce": reduce,
}


def run(name: str, common: Settings, runs: Path, out: Path, workers: int, only: Sequence[str], margin: float) -> None:
    """Do what is left of a table's runs, and write the table.

    Parameters
    ----------
    name : str
        One of `TABLES`.
    common : dict
        Settings of `eval.run` that all rows share.
    runs, out : Path
        Where runs are kept, and where the table goes, in a folder of its name.
    workers : int
        Processes.
    only : sequence of str
        Only rows whose name holds one of these, and the first; all if there are none.
    margin : float
        Largest loss against the first row that counts as none.
    """
    lm = pv.load(common.get("model"))
    rows = TABLES[name](Way.of(lm))
    first = next(iter(rows))
    chosen = {
        row: given for row, given in rows.items() if not only or row == first or any(part in row for part in only)
    }
    done = []
    for number, (row, given) in enumerate(chosen.items(), 1):
        Console(stderr=True).print(f"{name}: {row} ({number} of {len(chosen)})", highlight=False)
        settings = configured(None, {**common, **given, "out": runs / row})
        execute(settings, None, driver_of(settings, workers, None))
        done.append(read_run(settings.out))
    matched = match(done)
    tables = {
        "runs": run_table(matched),
        "pairs": pair_table(matched, margin),
        "categories": category_table(matched),
    }
    said = [verdict(pair, 0.95) for pair in tables["pairs"].to_dict("records")]
    write(out / name, matched, tables, said, {"task": matched.task, "said": said}, 0.95)


def main(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(TABLES)}.")],
    data: Annotated[Path, typer.Option(help="A set in Video-MME's layout, as eval.synthetic.make writes it.")],
    out: Annotated[Path, typer.Option(help="Gets CSV, Markdown, JSON and PNG in a folder of the table's name.")] = Path(
        "eval/results"
    ),
    runs: Annotated[Path, typer.Option(help="Keeps the runs, row by row.")] = Path("runs"),
    model: Annotated[str | None, typer.Option(help="Folder or hub name; the built-in model if left out.")] = None,
    fps: Annotated[float, typer.Option(help="Frames a second.")] = 2.0,
    chunk: Annotated[int, typer.Option(help="Frames a push.")] = 8,
    answer: Annotated[str, typer.Option(help="likelihood, or generate.")] = "likelihood",
    only: Annotated[
        list[str] | None, typer.Option(help="Only rows whose name holds this, beside the first; may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many questions.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps decoded frames.")] = None,
    margin: Annotated[float, typer.Option(help="Largest loss that counts as none.")] = 0.03,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    dtype: Annotated[str, typer.Option(help="As eval.run's. float32 is the faster one on most CPUs.")] = "auto",
) -> None:
    """Run methods side by side and write the table."""
    with clear_errors():
        if name not in TABLES:
            raise pv.ConfigError(f"there is no table {shown(name)}; choose one of {', '.join(TABLES)}.")
        real("--margin", margin, 0, 1, above=True)
        encodable("--only", list(only or ()))
        out_folder(out)
        out_folder(runs, "--runs")
        common = {"task": "videomme", "data": data, "model": model, "fps": fps, "chunk": chunk, "answer": answer}
        common |= {"limit": limit, "cache": cache, "dtype": dtype}
        configured(None, {**common, "out": runs})  # before the model is loaded
        run(name, common, runs, out, workers, only or (), margin)
