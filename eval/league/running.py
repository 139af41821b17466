"""The league's runs: each row is one of `eval.run`, done where it is missing, and then one line of a table.

Knows runs, records and files. Refuses to know what the figures mean.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.costs.stream import stream_flops
from pdrop_video.parts import PARTS, located
from pdrop_video.stream.cost import pushed_flops, shape_of

from ..runner.config import RunConfig, configured
from ..runner.execute import execute
from ..stats.record import Record, read_run
from ..stats.summary import whole_tflops
from ..tables.entries import Entry
from ..tasks import Item, task_named
from .sharing import Shared

OWN = "own.json"
"""Of a row's folder: what its method computes itself."""


@dataclass(frozen=True)
class Field:
    """Rows of one table on one set.

    Attributes
    ----------
    table : str
        "flops", "bytes" or "decode".
    entries : list of Entry
        The first is the whole.
    common : dict
        Settings of `eval.run` that all rows share.
    runs : Path
        Keeps the runs, row by row.
    """

    table: str
    entries: Sequence[Entry]
    common: Mapping[str, Any]
    runs: Path = field(default=Path("runs"))

    def config(self, entry: Entry) -> RunConfig:
        """A row's settings; its folder has its name and, of other settings under that name, another ending."""
        given = configured(None, {**self.common, **entry.settings, "out": self.runs})
        folder = f"{entry.name} {given.digest[:8]}"
        return given.model_copy(update={"out": self.runs / self.table / folder})

    @property
    def items(self) -> list[Item]:
        """The set's items, those beyond `limit` left out."""
        task = self.entries[0].settings.get("task", self.common["task"])
        return task_named(task, self.common["data"]).items()[: self.common.get("limit")]


def with_parts(entry: Entry, model: str | None, given: Sequence[str]) -> tuple[Entry, str]:
    """A row with the places of its trained parts, and why one is not there, in a sentence; empty where all are.

    Parameters
    ----------
    entry : Entry
    model : str or None
        None for the built-in one, with which parts ship.
    given : sequence of str
        Parts as `eval.run --part` takes them, ``name=file``, in place of those that ship.
    """
    if not entry.parts:
        return entry, ""
    places = placed(entry.parts, given)
    try:
        located(places, PARTS, builtin=model is None)
    except pv.PDropError as error:
        return entry, f"{entry.name} is left out: {error}"
    return replace(entry, settings={**entry.settings, "parts": places}), ""


def placed(names: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
    """Parts as `pdrop_video.load` takes them: those that were given as ``name=file`` in place of those that ship."""
    known = {each.partition("=")[0]: each for each in given}
    return tuple(known.get(name, name) for name in names)


def wanted(entries: Sequence[Entry], only: Sequence[str], shares: Sequence[float]) -> list[Entry]:
    """Rows whose name holds one of `only` at these budgets; the whole always, and the default of each budget left."""
    if shares:
        known = sorted({entry.at for entry in entries if isinstance(entry.at, float)})
        if any(share not in known for share in shares):
            raise pv.ConfigError(f"--share is {shares}; choose some of {', '.join(f'{each:g}' for each in known)}.")
    rows = [e for e in entries if not shares or not isinstance(e.at, float) or e.at in shares or e.kind == "whole"]
    chosen = [e for e in rows if not only or any(part in e.name for part in only)]
    budgets = {entry.at for entry in chosen}
    return [e for e in rows if e in chosen or e.kind == "whole" or (e.kind == "default" and e.at in budgets)]


def run(field: Field, workers: int, say: Callable[[str], None]) -> None:
    """Do what is missing.

    Parameters
    ----------
    field : Field
    workers : int
        Processes, each with a model of its own.
    say : callable
        Gets a line for each row.
    """
    entries = list(field.entries)
    if workers == 1:
        shared = Shared()
        for number, entry in enumerate(entries, 1):
            say(f"{field.table}: {entry.name} ({number} of {len(entries)})")
            _do(field, shared, entry)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin) as pool:
        for number, name in enumerate(pool.map(partial(_done, field), entries), 1):
            say(f"{field.table}: {name} ({number} of {len(entries)})")


_shared: Shared | None = None


def _begin() -> None:
    global _shared
    _shared = Shared()


def _done(field: Field, entry: Entry) -> str:
    assert _shared is not None
    _do(field, _shared, entry)
    return entry.name


def _do(field: Field, shared: Shared, entry: Entry) -> None:
    """One row: its run, and what its method computes itself on the set's first video."""
    config = field.config(entry)
    execute(config, make=lambda index: shared.worker(config))
    path = config.out / OWN
    if not path.exists():
        path.write_text(json.dumps(own_flops(shared, config, field.items[0])) + "\n", encoding="utf-8")


def own_flops(shared: Shared, config: RunConfig, item: Item) -> dict[str, float]:
    """FLOPs of a row on one video before any question: all of them, and those that its own method computes.

    Its own are what gate and reducer multiply, the probe behind each piece, and the ranking between layers. What
    evictors multiply is not counted anywhere.
    """
    lm, worker = shared.model(config), shared.worker(config)
    if config.last_frames is not None:
        return {"whole": 0.0, "own": 0.0}
    shape = DecoderShape.of(lm.model.config)
    asked = item.question if config.question_aware else None
    stream = lm.stream(config.recipe_object(), standing_question=asked)
    decoder = plain = front = tower = 0.0
    for chunk in worker.watched(item):
        held, before = stream.cache_tokens, stream._state
        stream.push(chunk)
        frames, height, width = chunk.frames.shape[:3]
        spent = pushed_flops(stream, shape, before, held, (frames, height, width))
        free = replace(shape_of(stream, shape), ranks_at=(), probe=0, asks=False)
        decoder += spent.decoder or 0
        plain += stream_flops(free, stream._state.pieces, held=held).flops
        front += spent.gate + spent.reducer
        tower += spent.tower or 0
    return {"whole": decoder + front + tower, "own": decoder - plain + front}


def collected(field: Field) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What is finished: a line a row, and a line an item.

    A row's `marks` has one character an item, in their order: 1 for right, 0 for wrong, - for not finished. `spent` is
    the FLOPs from frames to answers, of those of the first row on the same items; `own` those of the method itself.

    Raises
    ------
    ConfigError
        If scores are graded, which one character can't say.
    """
    items = field.items
    rows: list[dict[str, Any]] = []
    whole: dict[str, Record] = {}
    base = 0.0
    for entry in field.entries:
        config = field.config(entry)
        if not (config.out / "run.json").exists() or not (config.out / OWN).exists():
            continue
        records = {record.item: record for record in read_run(config.out).records}
        own = json.loads((config.out / OWN).read_text(encoding="utf-8"))
        if entry.kind == "whole":
            whole, base = records, own["whole"]
        done = [record for record in records.values() if record.error is None]
        both = [record for record in done if record.item in whole]
        against = [whole[record.item] for record in both]
        spent, all_of_it = whole_tflops(both), whole_tflops(against)
        rows.append(
            {
                "system": entry.system,
                "slot": entry.slot,
                "at": entry.at,
                "kind": entry.kind,
                "trained": entry.trained,
                "paper": entry.paper,
                "says": entry.says,
                "items": len(done),
                "spent": spent / all_of_it if spent and all_of_it else None,
                "own": own["own"] / base if base else None,
                "kib": sum(record.cache_bytes for record in done) / max(len(done), 1) / 1024,
                "settings": json.dumps(entry.settings, sort_keys=True),
                "marks": "".join(_mark(records.get(item.id)) for item in items),
            }
        )
    return pd.DataFrame(rows), pd.DataFrame([{"item": i.id, "video": i.video, **_plain(i.category)} for i in items])


def _mark(record: Record | None) -> str:
    if record is None or record.error is not None or record.score is None:
        return "-"
    if record.score not in (0, 1):
        raise pv.ConfigError(f"item {record.item} has the score {record.score:g}; the league takes right or wrong.")
    return str(int(record.score))


def _plain(category: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in category.items() if isinstance(value, str)}
