"""Methods side by side on one data set: `python -m eval.tables depth --data DIR --out eval/results`.

Each row of a table is a run of `eval.run videomme` with settings of its own, kept in `--runs` and taken from there when
it is finished; a table that was stopped goes on. All rows are compared with the first on the same items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import floor
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich.console import Console

import pdrop_video as pv
from eval.compare import verdict, write
from eval.run import driver_of
from eval.runner.config import configured
from eval.runner.doors import clear_errors, encodable, out_folder
from eval.runner.equal import Way
from eval.runner.execute import execute
from eval.stats.pairs import category_table, match, pair_table, run_table
from eval.stats.record import read_run
from pdrop_video.common.checks import real, shown
from pdrop_video.gate import GATES
from pdrop_video.memory.evictors import EVICTORS
from pdrop_video.reduce import REDUCERS
from pdrop_video.registry import facts_of
from pdrop_video.search.budget import Costs

Settings: TypeAlias = dict[str, Any]
Rows: TypeAlias = dict[str, Settings]

SHARES = (0.1, 0.15, 0.25, 0.5, 0.75)
"""Of the FLOPs of all visual tokens, that the rows of `depth` spend."""
BUDGETS = (256, 512, 1024, 2048)
"""Tokens a layer that the rows of `memory` may remember."""
RATIOS = [0.5, 0.25, 0.125]
ALL = {"stages": 1}
TOKENS_A_FRAME = 8
"""Of the built-in model."""
LETS_ON: Mapping[float, Mapping[str, float]] = {
    0.5: {},
    0.25: {"surprise:threshold=2.2": 0.309},
    0.15: {"surprise": 0.228},
    0.1: {"surprise:max_gap=30": 0.18},
    0.05: {"surprise:threshold=4,max_gap=60,parts=1": 0.055},
}
"""Of the FLOPs of the whole way what the rows of `reduce` spend, and behind which gates; each with the share of all
visual tokens that it lets on, measured on the dev split (seed 211)."""
MARGIN = 1.08
"""Times that, which schedules leave room for: other videos are let on more of."""


def _one_drop(layer: int, ratio: float) -> pv.Pyramid:
    return pv.Pyramid(layers=(layer,), ratios=(max(0.01, ratio),))


def _written(pyramid: pv.Pyramid) -> Settings:
    given: Settings = {"ratios": [floor(r * 1e4) / 1e4 for r in pyramid.ratios or ()]}
    return given if pyramid.layers is None else {"layers": list(pyramid.layers), **given}


def depth(way: Way) -> Rows:
    """PyramidDrop's schedule against one early drop and against controls, at equal FLOPs."""
    costs = Costs(way.decoder, 1024)
    rows: Rows = {"full": {"pyramid": ALL}}
    for share in SHARES:
        schedules = {"pyramid": costs.paper(pv.Pyramid(), 4, share)}
        for layer in (2, 1):  # FastV's is 2
            schedules[f"one drop at {layer}"] = costs.fitted(partial(_one_drop, layer), share)
        for name, schedule in schedules.items():
            if schedule is None:  # the layers before the first boundary cost more than that
                continue
            given = _written(schedule)
            rows[f"{name} {share:.0%}"] = {"pyramid": given}
            if name == "pyramid":
                for control in ("random", "even", "shuffled"):
                    rows[f"{control} {share:.0%}"] = {"pyramid": {**given, "scorer": control}}
    return rows


def joint(way: Way) -> Rows:
    """Every allocator with scorers that see no question, one that sees the template, and one that sees the question."""
    rows: Rows = {"full": {"pyramid": ALL}}
    for allocator in ("global", "uniform", "joint"):
        for scorer in ("contrast", "novelty", "relevance", "product", "fusion", "last_frame"):
            rows[f"{scorer}, {allocator}"] = {"pyramid": {"ratios": RATIOS, "scorer": scorer, "allocator": allocator}}
        for scorer in ("relevance", "product"):
            given = {"ratios": RATIOS, "scorer": scorer, "allocator": allocator}
            rows[f"{scorer} to the question, {allocator}"] = {"pyramid": given, "question_aware": True}
    return rows


def memory(way: Way) -> Rows:
    """Every evictor at every budget, against all tokens, the last four frames, and fewer frames of equal tokens."""
    rows: Rows = {"full": {"pyramid": ALL}, "last 4 frames": {"pyramid": ALL, "last_frames": 4}}
    for tokens in BUDGETS:
        rows[f"fewer frames, {tokens}"] = {"pyramid": ALL, "fps": None, "frames": tokens // TOKENS_A_FRAME}
        for evictor in EVICTORS:
            rows[f"{evictor}, {tokens}"] = {"pyramid": ALL, "memory": {"tokens": tokens, "evictor": evictor}}
    return rows


def asking(way: Way) -> Rows:
    """What a question does with a memory of 512 tokens: its own pyramid, the archive, where positions stand."""
    base: Settings = {"pyramid": ALL, "memory": {"tokens": 512}}
    rows: Rows = {"as it is": base, "full": {"pyramid": ALL}}
    rows["ask-time pyramid"] = {**base, "ask_pyramid": {"ratios": RATIOS}}
    for steps in (8, 32, 128):
        rows[f"archive, {steps} steps back"] = {
            "pyramid": ALL,
            "memory": {"tokens": 512, "archive": 2**30},
            "retrieve": steps,
        }
    for positions in ("original", "compact"):
        rows[f"positions {positions}"] = {"pyramid": ALL, "memory": {"tokens": 512, "positions": positions}}
    return rows


def chunks(way: Way) -> Rows:
    """Frames a push."""
    rows: Rows = {"full": {"pyramid": ALL}}
    for frames in (2, 4, 8, 16, 32):
        rows[f"{frames} frames a chunk"] = {"pyramid": {"ratios": RATIOS}, "chunk": frames}
    return rows


def front(way: Way) -> Rows:
    """What stands in front of the language model: a gate, a reducer at several shares, and both, against neither."""
    rows: Rows = {"full": {"pyramid": ALL}, "static": {"pyramid": ALL, "gate": "static"}}
    for keep in (0.75, 0.5, 0.25):
        for name, given in (("evs", {}), ("static, evs", {"gate": "static"})):
            rows[f"{name} {keep:.0%}"] = {"pyramid": ALL, **given, "reducer": f"evs:keep={keep}"}
    return rows


def reduce(way: Way) -> Rows:
    """Gates and reducers against pyramids, fewer frames and controls, at equal FLOPs of the whole way, tower included.

    Without a gate nothing costs less than the tower, so for less than half all stand behind the same one, beside fewer
    frames. What a gate lets on depends on the video; the records say what was spent.
    """
    rows: Rows = {"full": {"pyramid": ALL}}
    for gate in (*GATES, "codec:sticky=false", "static:parts=true", "surprise:parts=0.25"):
        rows[f"{gate}, all that it lets on"] = {"pyramid": ALL, "gate": gate}
    for share, gates in LETS_ON.items():
        rows[f"fewer frames {share:.0%}"] = {"pyramid": ALL, "fps": 2 * share}
        if not gates:
            rows |= {f"{name} {share:.0%}": given for name, given in _at_equal_cost(way, share, 1.0).items()}
        for gate, encoded in gates.items():
            for name, given in _at_equal_cost(way, share, MARGIN * encoded).items():
                rows[f"{name}, {gate} {share:.0%}"] = {**given, "gate": gate}
    return rows


def _even_drops(ratio: float) -> pv.Pyramid:
    return pv.Pyramid(ratios=(ratio, ratio**2, ratio**3))


def _at_equal_cost(way: Way, share: float, encoded: float) -> Rows:
    """Schedules and reducers that spend a share of all FLOPs where such a share of the steps is encoded."""
    rows: Rows = {}
    schedules = {
        "pyramid": way.schedule(share, _even_drops, encoded=encoded),
        **{f"one drop at {at}": way.schedule(share, partial(_one_drop, at), encoded=encoded) for at in (2, 1)},
    }
    for name, pyramid in schedules.items():
        if pyramid is not None:
            rows[name] = {"pyramid": _written(pyramid)}
    both = way.schedule(share, _even_drops, encoded=encoded, keep=0.7)
    if both is not None:
        for name in ("event_saliency", "lrcp"):
            rows[f"{name} and pyramid"] = {"pyramid": _written(both), "reducer": f"{name}:keep=0.7"}
    keep = way.keep(share, encoded=encoded)
    if keep is None:
        return rows
    for name, method in REDUCERS.items():
        if getattr(method, "check", None) is not None:  # needs more than frames, such as a text tower
            continue
        says = ("keep",) if hasattr(method, "keep") else ("least", "most")  # how much it leaves
        line = ",".join(f"{parameter}={keep}" for parameter in says if hasattr(method, parameter))
        facts = facts_of(method)
        asks = {"question_aware": True} if facts is not None and facts.needs_question else {}
        rows[name] = {"pyramid": ALL, "reducer": f"{name}:{line}" if line else name, **asks}
    return rows


TABLES: Mapping[str, Callable[[Way], Rows]] = {
    "depth": depth,
    "joint": joint,
    "memory": memory,
    "asking": asking,
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
        common |= {"limit": limit, "cache": cache}
        configured(None, {**common, "out": runs})  # before the model is loaded
        run(name, common, runs, out, workers, only or (), margin)


if __name__ == "__main__":
    typer.run(main)
