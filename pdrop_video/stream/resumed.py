"""A stream's state out of a saved file, each part of it checked before anything goes on with it.

Knows what a header and its tensors must be. Refuses to know files.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import count, takewhile
from typing import Any

import torch
from torch import Tensor

from ..common.checks import real, whole
from ..costs.decoder import DecoderShape
from ..memory import Archive, Shift, StreamCache, TokenTable
from ..memory.pack import unpack
from ..memory.table import time_dtype
from ..models import Place
from ..video import FrameChunk
from .events import note_of
from .ingest import Ingestor
from .state import Heard, Seen, StreamState

_COUNTS = ("rows", "chunks", "steps", "first_step", "frames", "visual_tokens", "sound_tokens", "skipped")
_TUPLES = ("span", "told", "noted", "answered")
PLAIN = (*_COUNTS, *_TUPLES)
"""Fields of a state that stand in the header as they are."""
_COLUMNS = ("keys", "values", "learned_keys", "learned_values")
_PARTS = (*_COLUMNS, *(f"far_{name}" for name in _COLUMNS), "entered", "conv", "recurrent")
_MOST, _SIDE = 2**53, 2**12
"""No count or position, and no row or column of a picture, comes so far."""


def state_of(header: dict[str, Any], tensors: dict[str, Tensor], ingest: Ingestor) -> StreamState:
    """The state that a file's header and tensors describe, in a cache of `ingest`.

    Raises
    ------
    StreamError, ConfigError, KeyError, ValueError, TypeError
        If they describe none; `session.intact` makes one kind of it.
    """
    cache, device = ingest.empty_cache(), ingest.probe.device
    for name in [name for name in tensors if name.endswith(".seconds")]:  # of a version without gates
        tensors.setdefault(name.removesuffix("seconds") + "until", tensors[name])
    _set_clocks(header, tensors, device)
    archived = {name: tensor for name, tensor in tensors.items() if name.startswith("archive.")}
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
    like = ingest.begin().cache if any(kind.name == "state" for kind in cache.kinds) else cache
    for i, (kind, layer) in enumerate(zip(cache.kinds, cache.layers, strict=True)):
        held, (kv_heads, *widths) = len(cache.tables[i]), shape.column(i)
        place = ingest.loop.decoder.device(i) or device
        if not kind.holds:
            if held:
                raise ValueError(f"layer {i} carries a state, and {held} columns")
            layer.restore(_stored(tensors, i, place), like.layers[i])
        elif held:
            layer.restore(_stored(tensors, i, place), (1, kv_heads, held, *widths), ingest.model.dtype)
            if kind.window is not None:
                table = cache.tables[i]
                layer.positions = table.index[None] if ingest.loop.decoder.counts else table.position.T
    cache.stand()
    if cache.archive is not None:
        cache.archive = _archive(cache, archived, header, ingest)
    cache.shifts = [Shift(**_numbers("a shift", shift, least=None)) for shift in header["shifts"]]
    if any(name.startswith("query.") for name in tensors):
        cache.queries = {i: tensors[f"query.{i}"] for i in ingest.loop.rank_at}
        first, *_ = cache.queries.values()
        for i, query in cache.queries.items():
            _expect("queries", [query], (shape.heads, first.shape[1], shape.column(i)[1]))
    if "usual" in tensors:  # of a version that kept it for one layer alone
        state.usual = {ingest.loop.ranks_at[0]: tensors["usual"]}
    state.usual |= {int(name[6:]): usual for name, usual in tensors.items() if name.startswith("usual.")}
    for usual in state.usual.values():
        _expect("what is usual", [usual], tuple(usual.shape))
    for name, tensor in tensors.items():
        if name.startswith("carried."):
            _, slot, key = name.split(".", 2)
            state.carried.setdefault(slot, {})[key] = tensor
    if (seconds := header["waiting_seconds"]) is not None:
        waiting = FrameChunk(tensors["waiting"], tuple(seconds))
        until = tuple(real("waiting_until", each) for each in header.get("waiting_until") or seconds)
        if len(until) != len(waiting):
            raise ValueError(f"{len(waiting)} frames wait up to {len(until)} moments")
        worth, saliency = (
            _map(name, tensors.get(f"waiting_{name}"), waiting, dtype)
            for name, dtype in (("worth", torch.bool), ("saliency", torch.float32))
        )
        state.waiting = Seen(waiting.frames, waiting.seconds, until, worth, saliency)
    state.notes = tuple(note_of(each) for each in header.get("notes", ()))
    if (heard := header.get("heard")) is not None:
        state.heard = _heard(heard, tensors["heard"])
    return state


def _heard(given: dict[str, Any], samples: Tensor) -> Heard:
    """How far a video was heard."""
    if samples.dtype != torch.float32 or samples.ndim != 1:
        raise ValueError(f"sound that waits is {samples.dtype} {tuple(samples.shape)}")
    height, width = (whole("size", side, 1, _SIDE) for side in given["size"])
    return Heard(
        samples.cpu(), real("begun", given["begun"]), whole("taken", given["taken"], 0, _MOST), (height, width)
    )


def _map(name: str, of: Tensor | None, waiting: FrameChunk, dtype: torch.dtype) -> Tensor | None:
    """A map of waiting frames [frames, rows, columns]."""
    if of is not None and (of.dtype != dtype or of.ndim != 3 or len(of) != len(waiting)):
        raise ValueError(f"{name} of what waits is {of.dtype} {tuple(of.shape)}")
    return of


def part_name(name: str, layer: int, number: int) -> str:
    """What one of the tensors is called that a layer's keys, values or keys as they came are stored in."""
    return f"{name}.{layer}.{number}" if number else f"{name}.{layer}"


def _stored(tensors: dict[str, Tensor], layer: int, device: torch.device) -> dict[str, tuple[Tensor, ...]]:
    """What a layer stored, by name, on the device on which it computes."""
    stored: dict[str, tuple[Tensor, ...]] = {}
    for name in _PARTS:
        names = takewhile(tensors.__contains__, (part_name(name, layer, number) for number in count()))
        if parts := tuple(tensors[each].to(device) for each in names):
            stored[name] = parts
    return stored


def _set_clocks(header: dict[str, Any], tensors: dict[str, Tensor], device: torch.device) -> None:
    """Seconds as this device's tables count them, from those of another one, or of a version that had float32."""
    dtype, span = time_dtype(device), header["state"]["span"]
    since = 0.0 if dtype == torch.float64 or span is None else span[0]
    for name, tensor in tensors.items():
        if (
            name.endswith((".seconds", ".until")) and tensor.is_floating_point()
        ):  # what is of another kind is refused later on
            tensors[name] = (tensor.double() + (header.get("since", 0.0) - since)).to(dtype)


def _plain_values(given: dict[str, Any], vocabulary: int) -> dict[str, Any]:
    """Those fields of a state that are no tensors, each of its own kind."""
    # a version without gates left nothing out, one without ears heard none, one without notes took none
    earlier: dict[str, Any] = {"skipped": 0, "sound_tokens": 0, "noted": ()}
    given = earlier | given
    plain: dict[str, Any] = {name: whole(name, given[name], 0, _MOST) for name in _COUNTS}
    span, told, noted, answered = (given[name] for name in _TUPLES)
    if span is not None:
        first, last = span
        plain["span"] = real("span", first), real("span", last)
    # whether they can be taken in, the stream asks as it opens
    plain["told"], plain["noted"] = tuple(map(str, told)), tuple(map(str, noted))
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


def _archive(cache: StreamCache, tensors: dict[str, Tensor], header: dict[str, Any], ingest: Ingestor) -> Archive:
    """What was archived, where the cache's empty archive keeps it."""
    shape = DecoderShape.of(ingest.model.config)
    assert cache.archive is not None
    forms = {i: getattr(layer, "form", None) for i, layer in enumerate(cache.layers)}
    archive = unpack(cache.archive, tensors, header["archived"], forms)
    for block in archive.blocks:
        for i, piece in block.pieces.items():
            _check_table(piece.table, header["state"], ingest.loop.axes)
            whole("a layer of the archive", i, 0, shape.layers - 1)
            kv_heads, width, _ = shape.column(i)
            _expect("archived keys", [piece.keys, piece.values], (kv_heads, len(piece.table), width))
            steps, sums = block.steps[i], block.sums[i]
            if steps.dtype != torch.int64 or tuple(sums.shape) != (*steps.shape, kv_heads * width + 1):
                raise ValueError(f"sums of the archive are {tuple(sums.shape)} for {tuple(steps.shape)} steps")
    return archive


def _check_table(table: TokenTable, counts: dict[str, Any], axes: int) -> None:
    """Refuse columns of other types or lengths than they should have, and places out of reach."""
    for field in fields(TokenTable):
        column = getattr(table, field.name)
        kind = dict.fromkeys(("seconds", "until", "score"), column.is_floating_point())
        kind["visual"] = column.dtype == torch.bool
        shape = (len(table), axes) if field.name in ("position", "entered", "now") else (len(table),)
        if tuple(column.shape) != shape or not kind.get(field.name, column.dtype == torch.int64):
            raise ValueError(f"{field.name} of a table is {column.dtype} {tuple(column.shape)}")
    ends = {"index": counts["rows"], "chunk": counts["chunks"] + 1, "step": counts["steps"] + 1}
    for name, end in (ends | {"row": _SIDE, "column": _SIDE}).items():
        column = getattr(table, name)
        least = -_SIDE if name == "column" else -1  # standby tokens' are below -1
        if len(table) and not (int(column.min()) >= least and int(column.max()) < end):
            raise ValueError(f"{name} of a table leaves {least} to {end}")


def _expect(name: str, tensors: list[Tensor], shape: tuple[int, ...]) -> None:
    """Refuse tensors of another shape, or of several types."""
    for tensor in tensors:
        if tuple(tensor.shape) != shape or tensor.dtype != tensors[0].dtype or not tensor.is_floating_point():
            raise ValueError(f"{name} are {tensor.dtype} {tuple(tensor.shape)} and not {shape}")
