"""Compare runs of one task: `python -m eval.compare FULL PRUNED [...] --margin 0.03 --out tables`.

The first run is the reference. Prints costs, paired tests and categories side by side and writes them as CSV, Markdown
and JSON, with a chart of accuracy against FLOPs. Knows how tables are shown and worded; what stands in them is made in
`eval.stats.pairs`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import typer
from matplotlib import ticker
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scipy import stats

import pdrop_video as pv
from pdrop_video.common.checks import real
from pdrop_video.video.decode import counted

from .runner.doors import clear_errors, encodable, out_folder
from .stats.official import official_table
from .stats.pairs import Matched, category_table, left_out, match, pair_table, power_table, run_table
from .stats.record import Run, writable
from .stats.verdicts import read_judged
from .tasks import TASKS, task_named

POINTS = (0.01, 0.02, 0.03, 0.05)
"""Differences in accuracy that `--power` plans for, beside the margin."""

_SHARES = {"accuracy", "accuracy_of_answered", "standard_error", "official_reading", "figure", "discordance", "margin"}
_SIGNED = {"difference", "difference_error", "low", "high", "bound"}


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_A RUN_B...", help="Output folders of eval.run.")],
    margin: Annotated[
        float | None,
        typer.Option(help="Largest loss against the first run that is accepted, as 0.03; decide it beforehand."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for CSV, Markdown, JSON and the chart.")] = None,
    power: Annotated[bool, typer.Option("--power", help="Also say how many items would show a difference.")] = False,
    confidence: Annotated[float, typer.Option(min=0.51, max=0.999, help="Level of intervals and bounds.")] = 0.95,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object on the last line.")] = False,
) -> None:
    """Compare runs of one task, item by item, against the first run named."""
    with clear_errors(2):
        if len(runs) < 2:
            raise pv.ConfigError(f"{len(runs)} run was named; expected two or more, the reference first.")
        encodable("RUN", runs)
        if margin is not None:
            real("--margin", margin, 0, 1, above=True)
        real("--confidence", confidence, 0.51, 0.999)
        if out is not None:
            out_folder(out)
        done = [read_judged(folder) for folder in runs]
        matched = match(done)
        tables = {
            "runs": run_table(matched),
            "pairs": pair_table(matched, margin, confidence),
            "categories": category_table(matched),
        }
        official = official_of(matched, done, confidence)
        if official is not None:
            tables["official"] = official
        if power:
            wanted = sorted({*POINTS, *([] if margin is None else [margin])})
            tables["power"] = power_table(tables["pairs"], wanted)
        said = [*left_out(matched), *(verdict(row, confidence) for row in tables["pairs"].to_dict("records"))]
        figures = {
            "task": matched.task,
            "reference": matched.names[0],
            "items": len(matched.items),
            "videos": len(set(matched.videos)),
            "confidence": confidence,
            "left_out": matched.left_out,
            "said": said,
            **{name: json.loads(table.to_json(orient="records")) for name, table in tables.items()},
        }
        if out is not None:
            write(out, matched, tables, said, figures, confidence)
    console = Console()
    for name, table in shown(tables).items():
        console.print(_rich(name, table))
    for sentence in said:
        console.print(escape(sentence), highlight=False, soft_wrap=True)
    if out is not None:
        console.print(f"written to {escape(str(out))}", highlight=False)
    if as_json:
        print(json.dumps(figures), flush=True)


def official_of(matched: Matched, runs: Sequence[Run], confidence: float) -> pd.DataFrame | None:
    """The benchmark's official figures side by side; None where the runs, or the benchmark, have none."""
    headers = [run.header for run in runs]
    as_published = all(
        header.get("configuration", {}).get("answer", "generate") == "generate" and not header.get("paraphrase")
        for header in headers
    )
    if matched.task not in TASKS or not as_published:
        return None
    formula = task_named(matched.task, Path(headers[0].get("data", "."))).formula()
    if formula.figure is None:
        return None
    return official_table(matched.names, matched.records, formula, confidence)


def verdict(row: dict[str, Any], confidence: float) -> str:
    """What one pair of runs shows, in words that claim no more."""
    points = f"{100 * row['difference']:+.1f} points"
    interval = f"{confidence:.0%} interval {100 * row['low']:+.1f} to {100 * row['high']:+.1f} by videos"
    test = f"right alone {row['only_reference']} : {row['only_run']}, McNemar p = {_p(row['p_mcnemar'])}"
    if row["p_holm"] != row["p_mcnemar"]:
        test += f", {_p(row['p_holm'])} after Holm"
    by_items, by_videos = row["p_holm"] < 1 - confidence, row["low"] > 0 or row["high"] < 0
    if by_items and by_videos:
        shows = f"{row['run']} is {'better' if row['difference'] > 0 else 'worse'}."
    elif by_items or by_videos:
        shows = "The test by items and the interval by videos disagree: no difference is claimed."
    else:
        shows = "No difference was shown, which does not mean that there is none."
    if "margin" in row:
        bound = f"{confidence:.0%} bound {100 * row['bound']:+.1f}"
        shown = "shown" if row["non_inferior"] else "not shown"
        shows += f" Not worse by {100 * row['margin']:g} points or more: {shown} ({bound})."
    return f"{row['run']} against {row['against']}: {points} ({interval}; {test}). {shows}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"


def shown(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables as people read them: runs beside each other, shares in per cent, errors behind a sign."""
    pretty = {"runs": _formatted(tables["runs"]).set_index("run").T.reset_index(names="")}
    pretty["pairs"] = _formatted(tables["pairs"]).set_index("run").T.reset_index(names="")
    categories = tables["categories"]
    for field, table in () if categories.empty else categories.groupby("category", sort=False):
        reference = table["run"].iloc[0]
        cells = table.assign(cell=[_accuracy(row, row.run == reference) for row in table.itertuples()])
        wide = cells.pivot_table(index=["value", "items"], columns="run", values="cell", aggfunc="first", sort=False)
        pretty[str(field)] = wide.reset_index().rename(columns={"value": str(field)})
    if "official" in tables:
        table = tables["official"][~tables["official"].category.str.contains(", ")]  # within durations: in the files
        for field, of in table.groupby("category", sort=False):
            pretty[f"official: {field}"] = _official(of, str(field))
    if "power" in tables:
        pretty["power"] = _formatted(tables["power"])
    return pretty


def _official(table: pd.DataFrame, field: str) -> pd.DataFrame:
    """Official figures of one kind: the reference's with its error, then differences with their intervals."""
    reference, marks = table["run"].iloc[0], {True: " (the official figure)", False: ""}
    cells = table.assign(
        cell=[
            f"{100 * row.figure:.1f}{_plus_minus(row.standard_error)}"
            if row.run == reference
            else f"{100 * row.figure:.1f} ({100 * row.difference:+.1f}{_from_to(row)})"
            for row in table.itertuples()
        ],
        value=[row.value + marks[bool(row.is_official)] for row in table.itertuples()],
    )
    wide = cells.pivot_table(index="value", columns="run", values="cell", aggfunc="first", sort=False)
    return wide.reset_index().rename(columns={"value": field})


def _from_to(row: Any) -> str:
    return "" if pd.isna(row.low) else f", {100 * row.low:+.1f} to {100 * row.high:+.1f}"


def _accuracy(row: Any, is_reference: bool) -> str:
    """A run's accuracy in per cent: with its error for the reference, else with the difference and its error."""
    if is_reference:
        return f"{100 * row.accuracy:.1f}{_plus_minus(row.standard_error)}"
    return f"{100 * row.accuracy:.1f} ({100 * row.difference:+.1f}{_plus_minus(row.difference_error)})"


def _plus_minus(error: float) -> str:
    return "" if pd.isna(error) else f" ± {100 * error:.1f}"  # one video tells nothing of the spread


def _formatted(table: pd.DataFrame) -> pd.DataFrame:
    cells = {str(name): [_cell(str(name), value) for value in table[name]] for name in table.columns}
    return pd.DataFrame({name.replace("_", " "): column for name, column in cells.items()})


def _cell(name: str, value: Any) -> str:
    if pd.isna(value):
        return ""
    if name in _SHARES:
        return f"{100 * value:.1f} %"
    if name in _SIGNED:
        return f"{100 * value:+.1f} points"
    if name.startswith("p_"):
        return _p(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def _rich(title: str, table: pd.DataFrame) -> Table:
    made = Table(*(escape(str(name)) for name in table.columns), title=escape(title), title_justify="left")
    for row in table.itertuples(index=False):
        made.add_row(*(escape(str(value)) for value in row))
    return made


def write(
    out: Path,
    matched: Matched,
    tables: dict[str, pd.DataFrame],
    said: list[str],
    figures: dict[str, Any],
    confidence: float,
) -> None:
    """Write `compare.json`, `compare.md`, `compare.png` and a CSV file for each table."""
    writable(out)
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv", index=False)
    (out / "compare.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    items, videos = counted(len(matched.items), "item"), counted(len(set(matched.videos)), "video")
    parts = [f"# {matched.task}: {items} on {videos}", *(f"- {sentence}" for sentence in said)]
    for name, table in shown(tables).items():
        parts.append(f"## {name}\n\n{table.to_markdown(index=False, disable_numparse=True)}")
    notes = (
        "± is one standard error, clustered by video. Behind the reference's column, brackets hold the paired "
        "difference. Intervals are Student's, with one degree of freedom less than videos, and no narrower than "
        "Tango's of independent items. Categories are not tested: among many rows some differ by chance."
    )
    (out / "compare.md").write_text("\n\n".join([*parts, notes]) + "\n", encoding="utf-8")
    chart(tables["runs"], matched.task, confidence, out / "compare.png")


_NAMES = 24
"""Of runs, beneath each other beside the chart."""


def chart(table: pd.DataFrame, task: str, confidence: float, path: Path) -> None:
    """Accuracy against FLOPs, one mark a run, with intervals clustered by video."""
    matplotlib.use("agg")  # a chart needs no screen
    columns = -(-len(table) // _NAMES)  # of names, each as wide as the longest
    wide = max(7.0, 4 + columns * (0.5 + 0.065 * int(table.run.str.len().max())))
    figure, axes = plt.subplots(figsize=(wide, 4.5), layout="constrained")
    for row, marker in zip(table.itertuples(), cycle("osD^vP*X<")):  # 9 marks on 10 colours: 90 runs differ
        error = 100 * row.standard_error * stats.t.ppf((1 + confidence) / 2, max(row.videos - 1, 1))
        axes.errorbar(
            row.tflops, 100 * row.accuracy, yerr=error, fmt=marker, markersize=7, capsize=3, linewidth=1, label=row.run
        )
    if table.tflops.min() > 0 and table.tflops.max() > 5 * table.tflops.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_xlabel("TFLOPs an item, watching and answering (analytic)")
    axes.set_ylabel("accuracy, %")
    axes.set_title(
        f"{task}: {table['items'].iloc[0]:,} items, bars are {confidence:.0%} intervals by videos", fontsize=10
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8, ncols=columns)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    typer.run(compare)
