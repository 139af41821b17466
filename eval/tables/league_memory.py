"""The league's rows at equal bytes, and those of what looks again while an answer is written."""

from __future__ import annotations

from typing import Any

import pdrop_video as pv
from pdrop_video.memory.evictors import EVICTORS
from pdrop_video.memory.storages import STORAGES
from pdrop_video.registry import facts_of
from pdrop_video.stream.looking import DECODES, DEFAULT, NEVER

from ..runner.config import STEPWISE
from ..runner.equal import Way
from .base import ALL, Settings
from .entries import Entry, entry_of
from .remembering import HIDDEN, TOKENS_A_CHUNK, TOKENS_A_FRAME, in_bytes_of

BYTES = (64, 128, 256)
"""Tokens a layer, stored in full, whose bytes the rows of `league_bytes` may take."""

BESIDE: dict[str, Settings] = {"standby": {"reducer": "standby"}}
"""What an evictor of trained tokens needs beside it: the reducer that makes them, whose part has the evictor's name."""


def league_bytes(way: Way) -> list[Entry]:
    """Every evictor and every storage in the bytes of `BYTES` tokens a layer, against all tokens and few frames.

    Evictors store in full, storages stand under the default evictor; `Memory(bytes=...)` has both defaults.
    """
    rows = [Entry("all tokens", "nothing", 0, {"pyramid": ALL}, "whole")]
    usual = pv.Memory(bytes=1)
    kinds: list[tuple[str, str, Settings, Any]] = [
        *((name, "evictor", {"evictor": name}, method) for name, method in EVICTORS.items()),
        *((name, "storage", {"storage": name}, method) for name, method in STORAGES.items() if name != "full"),
    ]
    for tokens in BYTES:
        frames = tokens // TOKENS_A_FRAME
        fewer: Settings = {"pyramid": ALL, "fps": None, "frames": frames}
        rows.append(Entry("fewer frames", "frames", tokens, fewer, "control", says="frames at equal distances"))
        last: Settings = {"pyramid": ALL, "last_frames": frames}
        rows.append(Entry("last frames", "frames", tokens, last, "control", says="the newest frames"))
        # half of the budget at once, so that the other half is the past, whatever the storage
        pushed = {} if tokens >= 2 * TOKENS_A_CHUNK else {"chunk": tokens // 2 // TOKENS_A_FRAME}
        for name, slot, kind, method in kinds:
            memory = in_bytes_of(way, tokens, kind)
            if memory is not None:
                given = {"pyramid": ALL, **pushed, **BESIDE.get(name, {}), "memory": memory}
                kind_of = "default" if (name, slot) == (usual.storage, "storage") else "system"
                parts = (name,) if name in BESIDE else ()
                rows.append(entry_of(name, slot, tokens, given, facts_of(method), kind_of, parts))
    return rows


def league_decode() -> list[Entry]:
    """What looks again while an answer of two steps is written; wants a set of `eval.synthetic.make --steps`."""
    full: Settings = {"pyramid": ALL, "task": STEPWISE}
    rows = [Entry("all tokens", "nothing", 0, full, "whole")]
    for at, ratios in HIDDEN.items():
        hidden: Settings = {**full, "ask_pyramid": {"ratios": ratios}}
        says = "what the question's own pyramid leaves, for good"
        for_good: Settings = {**hidden, "decode": NEVER}
        rows.append(Entry("hidden for good", "decode", at, for_good, "control", says=says))
        for name, method in DECODES.items():
            kind = "default" if name == DEFAULT else "system"
            rows.append(entry_of(name, "decode", at, {**hidden, "decode": name}, facts_of(method), kind))
    return rows
