"""The league's four commands: what gates let on, what rows are planned for, what is missing, and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import pdrop_video as pv
from pdrop_video.parts import PARTS, located, opened
from pdrop_video.stream.sight import sight_of

from ..runner.config import configured
from ..runner.doors import clear_errors, encodable, out_folder
from ..runner.equal import Way
from ..runner.header import git_commit
from ..stats.record import writable
from ..tables.entries import Entry
from ..tables.league import BEHIND, FPS, IN_TOWER, league_flops
from ..tables.league_memory import league_bytes, league_decode
from .aims import aims_of, beside, settled
from .gates import lets_on, measured
from .identity import looked_at, same, set_of
from .page import page
from .picture import draw
from .running import Field, collected, placed, run, wanted, with_parts
from .sharing import Shared
from .standings import TABLES, read, sentences, standings, verdict

RESULTS = Path("eval/results/league")
PAGE = Path("docs/league.md")
GATES, AIMS = "gates.csv", "aims.csv"
ABOUT = "about.json"
CHUNK = 8

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
_err, _out = Console(stderr=True), Console()

Data = Annotated[Path, typer.Option(help="A set in Video-MME's layout, as eval.synthetic.make writes it.")]
Model = Annotated[str | None, typer.Option(help="Folder or hub name; the built-in model if left out.")]
Dtype = Annotated[str, typer.Option(help="As eval.run's.")]
Gates = Annotated[Path, typer.Option(help="What `gates` measured.")]
Behind = Annotated[str, typer.Option(help="The gate that rows stand behind where the tower costs too much.")]
Parts = Annotated[
    list[str] | None, typer.Option(help="A trained part that does not ship, as NAME=FILE; may be repeated.")
]
Workers = Annotated[int, typer.Option(min=1, help="Processes, each with a model of its own.")]


@app.command()
def gates(
    data: Annotated[Path, typer.Option(help="A set of the dev split, like the one that the league will run on.")],
    out: Annotated[Path, typer.Option(help="Gets gates.csv.")] = RESULTS,
    model: Model = None,
    dtype: Dtype = "auto",
) -> None:
    """Measure what each gate lets on, which decides what stands in front of the rows of each share."""
    with clear_errors():
        common = _common("videomme", data, model, dtype, None)
        configured(None, {**common, "out": out_folder(out)})
        table = measured(Shared(), common)
        table.to_csv(writable(out) / GATES, index=False)
    _out.print(table.to_string(index=False, float_format="{:.3f}".format), highlight=False)


@app.command()
def aims(
    data: Annotated[Path, typer.Option(help="A set of the dev split, like the one of the league; a question a video.")],
    runs: Annotated[Path, typer.Option(help="Keeps the runs, row by row.")],
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only rows whose name holds this; those that aims.csv has beside them stay. May be repeated."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Gets aims.csv.")] = RESULTS,
    gates: Gates = RESULTS / GATES,
    behind: Behind = BEHIND,
    model: Model = None,
    dtype: Dtype = "auto",
    part: Parts = None,
    workers: Workers = 1,
) -> None:
    """Measure what each row spends, and plan it again until it spends its share."""
    with clear_errors():
        common = _common("videomme", data, model, dtype, None)
        out_folder(runs, "--runs")
        lm, known = looked_at(configured(None, {**common, "out": out_folder(out)}))
        same(runs, {"model": known, "aims": set_of(common)})
        way, found = Way.of(lm), lets_on(gates, behind)
        through = _through(way, lm, model, part or ())

        def plan(planned: Mapping[str, float]) -> list[Entry]:
            return wanted(_there(league_flops(way, found, through, planned), model, part or ()), only or (), ())

        whole = plan({})[0]

        def spend(rows: Sequence[Entry]) -> dict[str, float]:
            field = Field("aims", [whole, *rows], common, runs)
            run(field, workers, lambda line: _err.print(line, highlight=False))
            table, _ = collected(field)
            return dict(zip([row.name for row in field.entries], table.spent, strict=True))

        table = settled(plan, spend)
        if only:
            mine = [any(each in str(name) for each in only) for name in table.row]  # the default's stay as they are
            table = beside(out / AIMS, table[mine])
        table.to_csv(writable(out) / AIMS, index=False)
    _out.print(table.to_string(index=False, float_format="{:.4f}".format), highlight=False)


@app.command("run")
def run_command(
    data: Data,
    runs: Annotated[Path, typer.Option(help="Keeps the runs, row by row; another set or model needs another folder.")],
    bytes_data: Annotated[
        Path | None, typer.Option(help="The set for equal bytes, where it is another one, such as longer videos.")
    ] = None,
    steps_data: Annotated[
        Path | None, typer.Option(help="A set of eval.synthetic.make --steps, for what looks again while answering.")
    ] = None,
    table: Annotated[list[str] | None, typer.Option(help="Only flops, bytes or decode; may be repeated.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only rows whose name holds this, beside all tokens and the default; may be repeated."),
    ] = None,
    share: Annotated[list[float] | None, typer.Option(help="Only this share of the FLOPs; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many questions.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Gets the tables: eval/results/league; of a part of the league, results/ in --runs."),
    ] = None,
    gates: Gates = RESULTS / GATES,
    aims: Annotated[
        Path | None,
        typer.Option(help="What `aims` measured; with the built-in model that of the page, with another nothing."),
    ] = None,
    behind: Behind = BEHIND,
    model: Model = None,
    dtype: Dtype = "auto",
    part: Parts = None,
    made: Annotated[str, typer.Option(help="How the set was made, for the page.")] = "",
    workers: Workers = 1,
) -> None:
    """Do the rows that are missing, and write the tables."""
    with clear_errors():
        for name, given in {
            "--only": list(only or ()),
            "--part": list(part or ()),
            "--made": made,
            "--behind": behind,
        }.items():
            encodable(name, given)
        if wrong := [each for each in table or () if each not in TABLES]:
            raise pv.ConfigError(f"there is no table {wrong[0]!r}; choose some of {', '.join(TABLES)}.")
        if share and not all(each in (None, "flops") for each in table or ("flops",)):
            raise pv.ConfigError("--share is of the table flops alone; name --table flops with it, or neither.")
        some = bool(only or share or limit or table)
        target = out or (runs / "results" if some else RESULTS)
        out_folder(target)
        out_folder(runs, "--runs")
        sets = {"flops": data, "bytes": bytes_data or data, "decode": steps_data}
        chosen = [name for name in TABLES if not table or name in table]
        if share:
            chosen = ["flops"]
        common = {
            name: _common("videomme", folder, model, dtype, limit)
            for name, folder in sets.items()
            if folder is not None
        }
        if "decode" in chosen and steps_data is None:
            _err.print("decode is left out: it wants --steps-data, a set of eval.synthetic.make --steps.")
            chosen.remove("decode")
        for name in chosen:
            configured(None, {**common[name], "out": runs})  # before the model is loaded
        lm, known = looked_at(configured(None, {**common[chosen[0]], "out": runs}))
        way = Way.of(lm)
        entries = {
            "flops": lambda: league_flops(
                way, lets_on(gates, behind), _through(way, lm, model, part or ()), _aims(aims, model)
            ),
            "bytes": lambda: league_bytes(way),
            "decode": league_decode,
        }
        fields = [
            Field(name, _there(wanted(entries[name](), only or (), share or ()), model, part or ()), common[name], runs)
            for name in chosen
        ]
        same(runs, {"model": known, **{f.table: set_of(common[f.table]) for f in fields}})
        for field in fields:
            run(field, workers, lambda line: _err.print(line, highlight=False))
        _written(target, fields, {"model": model or "the built-in model", "weights": known, "dtype": dtype}, made)
    _out.print(f"written to {target}", soft_wrap=True, highlight=False)


@app.command()
def write(
    results: Annotated[Path, typer.Option(help="What `run` wrote.")] = RESULTS,
    to: Annotated[Path, typer.Option("--page", help="The page.")] = PAGE,
    as_json: Annotated[bool, typer.Option("--json", help="End with the verdict as JSON on the last line.")] = False,
) -> None:
    """Write the page, its picture and the verdict, from the tables alone."""
    with clear_errors():
        made = written(results, to)
        for name, text in made["files"].items():
            path = Path(name)
            writable(path.parent)
            path.write_text(text, encoding="utf-8")
        draw(made["tables"], results / "league.png")
    for line in made["said"]:
        _out.print(line, highlight=False, soft_wrap=True, markup=False)
    if as_json:
        print(json.dumps(made["verdict"]), flush=True)


def written(results: Path, to: Path) -> dict[str, Any]:
    """What `write` writes: files by their paths, the verdict, its sentences, and the tables for the picture.

    Raises
    ------
    ConfigError
        If the folder holds no table.
    """
    tables = {name: found for name in TABLES if (found := read(results, name)) is not None}
    if not tables:
        raise pv.ConfigError(f"{results} holds no table of the league; `python -m eval.league run` writes them.")
    stand = {name: standings(table) for name, table in tables.items()}
    said = {name: verdict(tables[name], stand[name]) for name in tables}
    lines = {name: sentences(name, said[name]) for name in tables}
    about = json.loads((results / ABOUT).read_text(encoding="utf-8")) if (results / ABOUT).exists() else {}
    text = page(stand, lines, about, tables, results, to)
    files = {str(to): text, str(results / "verdict.json"): json.dumps(said, indent=1) + "\n"}
    files |= {str(results / f"{name}_standings.csv"): found.to_csv(index=False) for name, found in stand.items()}
    return {
        "files": files,
        "verdict": said,
        "said": [line for each in lines.values() for line in each],
        "tables": stand,
    }


def _common(task: str, data: Path | None, model: str | None, dtype: str, limit: int | None) -> dict[str, Any]:
    given = {"task": task, "data": data, "model": model, "dtype": dtype, "limit": limit}
    return {**given, "fps": FPS, "chunk": CHUNK, "answer": "likelihood"}


def _through(way: Way, lm: pv.VideoLM, model: str | None, parts: Sequence[str]) -> dict[str, Way]:
    """The ways through parts that reach into the tower; a sentence for each that is not there."""
    found = {}
    for name in IN_TOWER:
        try:
            files = located(placed((name,), parts), PARTS, builtin=model is None)
            sight = sight_of(opened(files, PARTS, lm.model))
        except pv.PDropError as error:
            said = f"{name} is left out at equal FLOPs: {error}"
            _err.print(said, highlight=False, soft_wrap=True, markup=False)
            continue
        assert sight is not None  # by what `IN_TOWER` names
        found[name] = way.through(lm, sight)
    return found


def _aims(path: Path | None, model: str | None) -> dict[str, float]:
    """What rows are planned for: by a file, by that of the page for the built-in model, or by formulas alone."""
    if path is None and (model is not None or not (RESULTS / AIMS).exists()):
        return {}
    return aims_of(path or RESULTS / AIMS)


def _there(entries: Sequence[Entry], model: str | None, parts: Sequence[str]) -> list[Entry]:
    """Rows whose trained parts are there; a sentence for each of the others."""
    left = []
    for entry in entries:
        placed, why = with_parts(entry, model, parts)
        if why:
            _err.print(why, highlight=False, soft_wrap=True, markup=False)
        else:
            left.append(placed)
    return left


def _written(target: Path, fields: Sequence[Field], model: dict[str, str], made: str) -> None:
    """The tables of these fields, and what is to be known of them."""
    path = writable(target) / ABOUT
    about = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    about |= {**model, "fps": FPS, "chunk": CHUNK, "version": pv.__version__, "commit": git_commit()}
    for field in fields:
        rows, items = collected(field)
        rows.to_csv(target / f"{field.table}.csv", index=False)
        items.to_csv(target / f"{field.table}_items.csv", index=False)
        about.setdefault("sets", {})[field.table] = {"made": made, "items": len(items), "videos": items.video.nunique()}
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
