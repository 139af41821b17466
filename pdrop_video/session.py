"""A stream in a file: everything that it remembers, written whole or not at all, and refused by another model.

One safetensors file; what is not a tensor stands in its header as JSON. Knows a stream's state, never a model's
weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .atomic import replacing
from .errors import ModelError, StreamError
from .memory import EVICTORS, Memory, Shift, TokenTable, lasting
from .memory.pack import pack, unpack
from .memory.table import time_dtype
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


def save(stream: VideoStream, path: str | os.PathLike[str]) -> None:
    """Write a stream; see `VideoStream.save`. While it is being written, the stream may go on."""
    with stream._access.saving:
        with stream._access.whole():
            tensors, metadata = _packed(stream)
        try:
            with replacing(Path(path)) as part:
                save_file(tensors, part, metadata)
        except (OSError, SafetensorError) as error:
            raise StreamError(
                f"no stream can be saved in {str(Path(path).parent)!r}: {error}; choose a folder with room that can be "
                "written. What was saved before is as it was."
            ) from error


def _packed(stream: VideoStream) -> tuple[dict[str, Tensor], dict[str, str]]:
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
    for i, usual in state.usual.items():
        tensors[f"usual.{i}"] = usual
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
        "since": state.since,
        "place": asdict(state.place),
        "shifts": [asdict(shift) for shift in state.cache.shifts],
        "state": {name: getattr(state, name) for name in _PLAIN},
    }
    copies = {key: tensor.to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}
    if state.cache.archive is not None:  # on the host already
        archived, header["archived"] = pack(state.cache.archive)
        copies |= archived
    return copies, {"pdrop_video": json.dumps(header)}


def read(lm: VideoLM, path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `VideoStream` takes to go on with a saved stream; see `VideoLM.resume`."""
    try:
        with safe_open(os.fspath(path), framework="pt") as file, lasting():
            header = json.loads((file.metadata() or {}).get("pdrop_video", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()} if header else {}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        raise StreamError(f"no saved stream can be read from {os.fspath(path)!r}: {error}") from error
    if header is None or header.get("format") != _FORMAT:
        raise StreamError(
            f"{os.fspath(path)!r} is not a stream saved by this version (format {_FORMAT}); save it again with the "
            "version that you resume it with."
        )
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
    for name, value in saved.items():
        if here.get(name) != value:
            raise ModelError(
                f"the stream was saved by another model: its {name} is {value!r}, this model's is {here.get(name)!r}; "
                "resume it with the model, dtype and tokenizer that it was watched with."
            )


def _set_clocks(header: dict[str, Any], tensors: dict[str, Tensor], device: torch.device) -> None:
    """Seconds as this device's tables count them, from those of another one, or of a version that had float32."""
    dtype, span = time_dtype(device), header["state"]["span"]
    since = 0.0 if dtype == torch.float64 or span is None else span[0]
    for name, tensor in tensors.items():
        if name.endswith(".seconds"):
            tensors[name] = (tensor.double() + (header.get("since", 0.0) - since)).to(dtype)


def _state(header: dict[str, Any], tensors: dict[str, Tensor], ingest: Ingestor) -> StreamState:
    cache, device = ingest.empty_cache(), ingest.probe.device
    _set_clocks(header, tensors, device)
    if cache.archive is not None:
        cache.archive = unpack(cache.archive, tensors, header["archived"])
    tensors = {name: tensor.to(device) for name, tensor in tensors.items() if not name.startswith("archive.")}
    made: dict[int, TokenTable] = {}
    for i, number in enumerate(header["table_of_layer"]):
        if number not in made:
            made[number] = TokenTable(**{f.name: tensors[f"table.{number}.{f.name}"] for f in fields(TokenTable)})
        cache.tables.append(made[number])
        if f"keys.{i}" in tensors:
            cache.layers[i].restore(tensors[f"keys.{i}"], tensors[f"values.{i}"], tensors.get(f"entered.{i}"))
    cache.shifts = [Shift(**shift) for shift in header["shifts"]]
    if "query.0" in tensors:
        cache.queries = [tensors[f"query.{i}"] for i in range(len(cache.layers))]
    plain = dict(header["state"])
    for name in _TUPLES:
        plain[name] = None if plain[name] is None else tuple(plain[name])
    state = StreamState(cache=cache, place=Place(**header["place"]), push_seconds=header["push_seconds"], **plain)
    if "usual" in tensors:  # of a version that kept it for one layer alone
        state.usual = {ingest.loop.ranks_at[0]: tensors["usual"]}
    state.usual |= {int(name[6:]): usual for name, usual in tensors.items() if name.startswith("usual.")}
    if "waiting" in tensors:
        state.waiting = FrameChunk(tensors["waiting"], tuple(header["waiting_seconds"]))
    return state
