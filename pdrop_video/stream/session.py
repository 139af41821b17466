"""A stream in a file: everything that it remembers, written whole or not at all, and refused by another model.

What is not a tensor stands in the file's header. Knows a stream's state, never a model's weights.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.checks import path as checked_path
from ..common.checks import shown, text, whole
from ..common.weights import digest
from ..errors import ModelError, PDropError, StreamError
from ..gate import GATES, gate_named
from ..memory import EVICTORS, STORAGES, Memory
from ..memory.pack import pack
from ..pyramid import ALLOCATORS, INSIDES, SCORERS, LayerLoop, Pyramid
from ..reduce import REDUCERS, reducer_named
from ..registry import name_of
from . import saved
from .events import interval, plain
from .proactive import Proactive
from .resumed import PLAIN, part_name, state_of
from .shared import SharedModel
from .watch import Lookout, Summary, Watch

_FORMAT = 2


def save(stream: Proactive, path: str | os.PathLike[str]) -> None:
    """Write a stream; see `VideoStream.save`. While it is being written, the stream may go on."""
    path = checked_path("path", path)
    with stream._access.saving:
        with stream._access.whole():
            tensors, header = _packed(stream)
        try:
            saved.write(path, tensors, header)
        except OSError as error:
            raise StreamError(
                f"no stream can be saved in {shown(str(Path(path).parent))}: {_plain(error)}; choose a file in a "
                "folder with room that can be written. What was saved before is as it was."
            ) from error


def _packed(stream: Proactive) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Copies of all tensors, on the host, and the header."""
    state, schedule, front = stream._state, stream.loop.schedule, stream._ingest.front
    tensors: dict[str, Tensor] = {}
    tables: dict[int, int] = {}  # layers that hold the same tokens share a table; it is written once
    for i, layer in enumerate(state.cache.layers):
        for name, parts in layer.stored().items():
            tensors |= {part_name(name, i, number): part for number, part in enumerate(parts)}
        table = state.cache.tables[i]
        if id(table) not in tables:
            tables[id(table)] = len(tables)
            for field in fields(table):
                tensors[f"table.{tables[id(table)]}.{field.name}"] = getattr(table, field.name)
    for i, query in (state.cache.queries or {}).items():
        tensors[f"query.{i}"] = query
    for i, usual in state.usual.items():
        tensors[f"usual.{i}"] = usual
    for slot, carried in state.carried.items():
        tensors |= {f"carried.{slot}.{name}": tensor for name, tensor in carried.items()}
    if state.waiting is not None:
        tensors["waiting"] = state.waiting.frames
        if state.waiting.worth is not None:
            tensors["waiting_worth"] = state.waiting.worth
        if state.waiting.saliency is not None:
            tensors["waiting_saliency"] = state.waiting.saliency
    heard = None
    if state.heard is not None:
        tensors["heard"] = state.heard.samples
        heard = {"begun": state.heard.begun, "taken": state.heard.taken, "size": state.heard.size}
    header = {
        "format": _FORMAT,
        "fingerprint": fingerprint(stream.lm),
        "pyramid": {
            "layers": schedule.layers,
            "ratios": schedule.ratios,
            **({} if schedule.sound is None else {"sound": schedule.sound}),
            "scorer": name_of(SCORERS, stream.loop.scorer),
            "allocator": name_of(ALLOCATORS, stream.loop.allocator),
            **({} if stream.loop.inner is None else {"inside": name_of(INSIDES, stream.loop.inner.inside)}),
        },
        "memory": {
            "tokens": stream.memory.tokens,
            "bytes": stream.memory.bytes,
            "shape": stream.memory.shape,
            "evictor": name_of(EVICTORS, state.cache.evictor),
            "positions": stream.memory.positions,
            "archive": stream.memory.archive,
            "archive_folder": stream.memory.archive_folder,
            "storage": name_of(STORAGES, state.cache.storage),
        },
        "gate": None if front.gate is None else name_of(GATES, front.gate),
        "reducer": None if front.reducer is None else name_of(REDUCERS, front.reducer),
        **({"parts": {name: part.digest for name, part in front.parts.items()}} if front.parts else {}),
        "system": stream.system,
        "standing_question": stream.standing_question,
        "table_of_layer": [tables[id(table)] for table in state.cache.tables],
        "waiting_seconds": None if state.waiting is None else state.waiting.seconds,
        "waiting_until": None if state.waiting is None else state.waiting.until,
        "heard": heard,
        "push_seconds": state.push_seconds,
        "since": state.since,
        "place": asdict(state.place),
        "shifts": [asdict(shift) for shift in state.cache.shifts],
        "state": {name: getattr(state, name) for name in PLAIN},
        "notes": [plain(note) for note in state.notes],
        "lookout": stream._lookout.saved(),
    }
    copies = {key: tensor.to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}
    if state.cache.archive is not None:  # on the host already
        archived, header["archived"] = pack(state.cache.archive)
        copies |= archived
    return copies, header


def read(lm: SharedModel, path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `VideoStream` takes to go on with a saved stream; see `VideoLM.resume`."""
    path = checked_path("path", path)
    header, tensors = saved.read(path)
    if header.get("format") != _FORMAT:
        raise StreamError(
            f"{shown(path)} is not a stream saved by this version (format {_FORMAT}); save it again with the "
            "version that you resume it with."
        )
    with intact(path):
        with lm.turnstile:
            here = fingerprint(lm)
        _compare(header["fingerprint"], here)
        _compare_parts(header.get("parts", {}), lm)
        return {
            "loop": LayerLoop(lm.model.get_decoder(), Pyramid(**header["pyramid"])),
            "memory": Memory(**header["memory"] | _storage_of(header["memory"], tensors)),
            "standing_question": header["standing_question"],
            "system": header["system"],
            "gate": None if header.get("gate") is None else gate_named(header["gate"]),
            "reducer": None if header.get("reducer") is None else reducer_named(header["reducer"]),
            "restore": partial(state_of, header, tensors),
            "lookout": _lookout_of(header.get("lookout", {"watches": (), "summary": None})),
        }


def _lookout_of(given: dict[str, Any]) -> Lookout:
    """What a stream does by itself, as the header has it."""
    summary = None
    if given["summary"] is not None:
        every, question, lines, longest, mark = map(given["summary"].get, Summary.KEPT)
        counts = whole("lines", lines), whole("max_new_tokens", longest), whole("mark", mark, 0)
        summary = Summary(interval(every), text("question", question), *counts)
    return Lookout(map(Watch.restored, given["watches"]), summary)


def _storage_of(memory: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The storage by the name that it has now: "int8" once was one that stored the newest columns in 8 bits, too."""
    if "storage" not in memory:
        return {"storage": "full"}  # when there was no other
    old = memory["storage"] == "int8" and any(t.dtype == torch.int8 for t in tensors.values())
    return {"storage": "int8_per_token"} if old else {}


@contextmanager
def intact(path: str | os.PathLike[str]) -> Iterator[None]:
    """One kind of error for all that can be wrong with what stands in a file, whoever finds it.

    Raises
    ------
    StreamError
    """
    try:
        yield
    except (ModelError, StreamError, torch.OutOfMemoryError):
        raise
    except PDropError as error:
        raise StreamError(f"the stream saved in {shown(os.fspath(path))} can't go on here: {error}") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise StreamError(
            f"{shown(os.fspath(path))} holds what no stream writes ({type(error).__name__}: {shown(str(error))}); take "
            "a copy of the file, or an older save."
        ) from error


def fingerprint(lm: SharedModel) -> dict[str, Any]:
    """What a saved stream depends on: family, sizes, RoPE, tokenizer's prompt, dtype and a digest of the weights."""
    text = lm.model.config.get_text_config()
    return {
        "family": lm.model.config.model_type,
        "layers": lm.num_layers,
        "rope": json.loads(json.dumps(getattr(text, "rope_parameters", None))),
        "dtype": str(lm.model.dtype).removeprefix("torch."),
        "prompt": [lm.prompt.before(), lm.prompt.after("")],
        "weights": lm.weights or digest(lm.model),
    }


def _compare(saved: dict[str, Any], here: dict[str, Any]) -> None:
    if saved.keys() < {"family", "layers", "weights"}:
        raise KeyError("fingerprint")
    for name, value in saved.items():
        if here.get(name) != value:
            raise ModelError(
                f"the stream was saved by another model: its {name} is {value!r}, this model's is {here.get(name)!r}; "
                "resume it with the model, dtype and tokenizer that it was watched with."
            )


def _compare_parts(saved: dict[str, str], lm: SharedModel) -> None:
    """Refuse to go on without the trained parts that a stream was watched with, or with others of their name."""
    for name, value in saved.items():
        if name not in lm.parts:
            raise ModelError(
                f"the stream was saved with the trained part {name!r}, which is not loaded here; load the model with "
                f'parts=("{name}",), or with the file of the part.'
            )
        if (here := lm.parts[name].digest) != value:
            raise ModelError(
                f"the stream was saved with the trained part {name!r} of other weights ({value}, here {here}); load "
                "the file of the part that it was watched with."
            )


def _plain(error: OSError) -> str:
    return f"{error.strerror} ({shown(error.filename)})" if error.strerror and error.filename else str(error)
