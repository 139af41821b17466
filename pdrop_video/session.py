"""A stream in a file: everything that it remembers, written whole or not at all, and refused by another model.

What is not a tensor stands in the file's header. Knows a stream's state, never a model's weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import saved
from .checks import path as checked_path
from .checks import real, shown, text, whole
from .errors import ModelError, PDropError, StreamError
from .flops import DecoderShape
from .memory import EVICTORS, Archive, Memory, Shift, TokenTable
from .memory.pack import pack, unpack
from .models import Place
from .pyramid import ALLOCATORS, SCORERS, LayerLoop, Pyramid
from .registry import name_of
from .state import StreamState
from .video import FrameChunk

if TYPE_CHECKING:
    from .ingest import Ingestor
    from .lm import VideoLM
    from .stream import VideoStream

_FORMAT = 2
_COUNTS = ("rows", "chunks", "steps", "first_step", "frames", "visual_tokens")
_TUPLES = ("span", "told", "answered")
_PLAIN = (*_COUNTS, *_TUPLES)
_MOST, _SIDE = 2**53, 2**12
"""No count or position, and no row or column of a picture, comes so far."""


def save(stream: VideoStream, path: str | os.PathLike[str]) -> None:
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


def _packed(stream: VideoStream) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Copies of all tensors, on the host, and the header."""
    state, schedule = stream._state, stream.loop.schedule
    tensors: dict[str, Tensor] = {}
    tables: dict[int, int] = {}  # layers that hold the same tokens share a table; it is written once
    for i, layer in enumerate(state.cache.layers):
        if layer.get_seq_length():
            tensors[f"keys.{i}"], tensors[f"values.{i}"] = layer.keys, layer.values
            if layer.entered is not None:
                tensors[f"entered.{i}"] = layer.entered
        table = state.cache.tables[i]
        if id(table) not in tables:
            tables[id(table)] = len(tables)
            for field in fields(table):
                tensors[f"table.{tables[id(table)]}.{field.name}"] = getattr(table, field.name)
    for i, query in enumerate(state.cache.queries or []):
        tensors[f"query.{i}"] = query
    if state.usual is not None:
        tensors["usual"] = state.usual
    if state.waiting is not None:
        tensors["waiting"] = state.waiting.frames
    header = {
        "format": _FORMAT,
        "fingerprint": fingerprint(stream.lm),
        "pyramid": {
            "layers": schedule.layers,
            "ratios": schedule.ratios,
            "scorer": name_of(SCORERS, stream.loop.scorer),
            "allocator": name_of(ALLOCATORS, stream.loop.allocator),
        },
        "memory": {
            "tokens": stream.memory.tokens,
            "bytes": stream.memory.bytes,
            "shape": stream.memory.shape,
            "evictor": name_of(EVICTORS, state.cache.evictor),
            "positions": stream.memory.positions,
            "archive": stream.memory.archive,
            "archive_folder": stream.memory.archive_folder,
        },
        "system": stream.system,
        "standing_question": stream.standing_question,
        "table_of_layer": [tables[id(table)] for table in state.cache.tables],
        "waiting_seconds": None if state.waiting is None else state.waiting.seconds,
        "push_seconds": state.push_seconds,
        "place": asdict(state.place),
        "shifts": [asdict(shift) for shift in state.cache.shifts],
        "state": {name: getattr(state, name) for name in _PLAIN},
    }
    copies = {key: tensor.to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}
    if state.cache.archive is not None:  # on the host already
        archived, header["archived"] = pack(state.cache.archive)
        copies |= archived
    return copies, header


def read(lm: VideoLM, path: str | os.PathLike[str]) -> dict[str, Any]:
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
        return {
            "loop": LayerLoop(lm.model.get_decoder(), Pyramid(**header["pyramid"])),
            "memory": Memory(**header["memory"]),
            "standing_question": header["standing_question"],
            "system": header["system"],
            "restore": partial(_state, header, tensors),
        }


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


def fingerprint(lm: VideoLM) -> dict[str, Any]:
    """What a saved stream depends on: family, sizes, RoPE, tokenizer's prompt, dtype and a digest of the weights.

    The digest covers a corner of every parameter, so that a fine-tuned model is told from its base at little cost.
    """
    text = lm.model.config.get_text_config()
    digest = hashlib.sha256()
    for name, parameter in sorted(lm.model.named_parameters()):
        corner = parameter.detach().flatten()[:8].to("cpu", torch.float64)
        digest.update(name.encode() + str(tuple(parameter.shape)).encode() + corner.numpy().tobytes())
    return {
        "family": lm.model.config.model_type,
        "layers": lm.num_layers,
        "rope": json.loads(json.dumps(getattr(text, "rope_parameters", None))),
        "dtype": str(lm.model.dtype).removeprefix("torch."),
        "prompt": [lm.prompt.before(), lm.prompt.after("")],
        "weights": digest.hexdigest()[:16],
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


def _state(header: dict[str, Any], tensors: dict[str, Tensor], ingest: Ingestor) -> StreamState:
    cache = ingest.empty_cache()
    if cache.archive is not None:
        cache.archive = _archive(cache.archive, tensors, header, ingest)
    device = ingest.probe.device
    # copies, so that nothing which the stream remembers lies in the file
    tensors = {name: t.to(device, copy=True) for name, t in tensors.items() if not name.startswith("archive.")}
    shape = DecoderShape.of(ingest.model.config)
    plain = _plain_values(header["state"], shape.vocabulary)
    state = StreamState(
        cache=cache,
        place=Place(**_numbers("place", header["place"], optional=("start",))),
        push_seconds=real("push_seconds", header["push_seconds"], 0),
        **plain,
    )
    numbers = [whole("table_of_layer", number, 0) for number in header["table_of_layer"]]
    if len(numbers) != shape.layers or len(header["shifts"]) != shape.layers:
        raise ValueError(f"tables of {len(numbers)} layers and shifts of {len(header['shifts'])} for {shape.layers}")
    tables = {n: TokenTable(*(tensors[f"table.{n}.{f.name}"] for f in fields(TokenTable))) for n in set(numbers)}
    for table in tables.values():
        _check_table(table, plain, ingest.loop.axes)
    cache.tables = [tables[number] for number in numbers]
    for i, layer in enumerate(cache.layers):
        if not (held := len(cache.tables[i])):
            continue
        keys, values, entered = tensors[f"keys.{i}"], tensors[f"values.{i}"], tensors.get(f"entered.{i}")
        there = [keys, values, *([] if entered is None else [entered])]
        _expect(f"keys of layer {i}", there, (1, shape.kv_heads, held, shape.head_dim))
        layer.restore(keys, values, entered)
    cache.shifts = [Shift(**_numbers("a shift", shift, least=None)) for shift in header["shifts"]]
    if any(name.startswith("query.") for name in tensors):
        cache.queries = [tensors[f"query.{i}"] for i in range(shape.layers)]
        for query in cache.queries:
            _expect("queries", [query], (shape.heads, cache.queries[0].shape[1], shape.head_dim))
    if (usual := tensors.get("usual")) is not None:
        _expect("what is usual", [usual], tuple(usual.shape))
        state.usual = usual
    if (seconds := header["waiting_seconds"]) is not None:
        state.waiting = FrameChunk(tensors["waiting"], tuple(seconds))
    return state


def _plain_values(given: dict[str, Any], vocabulary: int) -> dict[str, Any]:
    """Those fields of a state that are no tensors, each of its own kind."""
    plain: dict[str, Any] = {name: whole(name, given[name], 0, _MOST) for name in _COUNTS}
    span, told, answered = (given[name] for name in _TUPLES)
    if span is not None:
        first, last = span
        plain["span"] = real("span", first), real("span", last)
    plain["told"] = tuple(text("told", each) for each in told)
    plain["answered"] = (
        None if answered is None else tuple(whole("answered", each, 0, vocabulary - 1) for each in answered)
    )
    return plain


def _numbers(
    name: str, given: dict[str, Any], *, optional: tuple[str, ...] = (), least: int | None = 0
) -> dict[str, Any]:
    """Numbers by name: whole but for `since`, which are seconds."""
    for key, value in given.items():
        if key == "since":
            real(name, value)
        elif value is not None or key not in optional:
            whole(f"{key} of {name}", value, -_MOST if least is None else least, _MOST)
    return given


def _archive(empty: Archive, tensors: dict[str, Tensor], header: dict[str, Any], ingest: Ingestor) -> Archive:
    """What was archived, in the storage of `empty`."""
    shape = DecoderShape.of(ingest.model.config)
    archive = unpack(empty, tensors, header["archived"])
    for block in archive.blocks:
        for i, piece in block.pieces.items():
            _check_table(piece.table, header["state"], ingest.loop.axes)
            whole("a layer of the archive", i, 0, shape.layers - 1)
            _expect("archived keys", [piece.keys, piece.values], (shape.kv_heads, len(piece.table), shape.head_dim))
            steps, sums = block.steps[i], block.sums[i]
            if steps.dtype != torch.int64 or tuple(sums.shape) != (*steps.shape, shape.kv_heads * shape.head_dim + 1):
                raise ValueError(f"sums of the archive are {tuple(sums.shape)} for {tuple(steps.shape)} steps")
    return archive


def _check_table(table: TokenTable, counts: dict[str, Any], axes: int) -> None:
    """Refuse columns of other types or lengths than they should have, and places out of reach."""
    for field in fields(TokenTable):
        column = getattr(table, field.name)
        kind = {"seconds": column.is_floating_point(), "score": column.is_floating_point()}
        kind["visual"] = column.dtype == torch.bool
        shape = (len(table), axes) if field.name in ("position", "entered", "now") else (len(table),)
        if tuple(column.shape) != shape or not kind.get(field.name, column.dtype == torch.int64):
            raise ValueError(f"{field.name} of a table is {column.dtype} {tuple(column.shape)}")
    ends = {"index": counts["rows"], "chunk": counts["chunks"] + 1, "step": counts["steps"] + 1}
    for name, end in (ends | {"row": _SIDE, "column": _SIDE}).items():
        column = getattr(table, name)
        if len(table) and not (int(column.min()) >= -1 and int(column.max()) < end):
            raise ValueError(f"{name} of a table leaves -1 to {end}")


def _expect(name: str, tensors: list[Tensor], shape: tuple[int, ...]) -> None:
    """Refuse tensors of another shape, or of several types."""
    for tensor in tensors:
        if tuple(tensor.shape) != shape or tensor.dtype != tensors[0].dtype or not tensor.is_floating_point():
            raise ValueError(f"{name} are {tensor.dtype} {tuple(tensor.shape)} and not {shape}")


def _plain(error: OSError) -> str:
    return f"{error.strerror} ({shown(error.filename)})" if error.strerror and error.filename else str(error)
