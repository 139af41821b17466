"""Rows about what is remembered, and about questions to it."""

from __future__ import annotations

import torch

import pdrop_video as pv
from pdrop_video.memory.evictors import EVICTORS
from pdrop_video.memory.storages import STORAGES
from pdrop_video.stream.limits import Sizes
from pdrop_video.stream.looking import DECODES, NEVER

from ..runner.config import STEPWISE
from ..runner.equal import Way
from .base import ALL, RATIOS, Rows, Settings

BUDGETS = (64, 128, 256, 512, 1024, 2048)
"""Tokens a layer, stored in full, whose bytes the rows of `memory` may take."""
TOKENS_A_FRAME = 8
TOKENS_A_CHUNK = 64
PROMPT = 3
"""Of the built-in model: visual tokens of a frame and of a chunk of eight, and text in front of the video."""
HIDDEN = {"half": [0.5, 0.25, 0.125], "quarter": [0.25, 0.0625, 0.02]}
"""What a question leaves for itself, stage by stage, in the rows of `decode`."""


def in_bytes_of(way: Way, tokens: int, memory: Settings) -> Settings | None:
    """A memory that takes the bytes of so many tokens a layer in full, 16 bits a number; None if it can't.

    Counted in 16 bits whatever the type of the run, and given as tokens, so that a run in float32 remembers what one
    in bfloat16 does. A memory whose positions are closed at every chunk holds keys twice, as they came and as they are
    now. Where a storage leaves the newest as they come, they are the prompt, what came last (a chunk, or half of the
    budget), and a quarter of the rest, as it is where `Memory` is given bytes.
    """
    made = pv.Memory(tokens=None, **memory)
    full, stored = (Sizes.of(storage, way.decoder, torch.bfloat16) for storage in (pv.Memory().stored, made.stored))
    came = sum(stored.moved if made.positions == "compact" else stored.token)
    most = tokens * sum(full.token) - sum(stored.outside)
    if stored.recent is None:
        return {"tokens": most // came, **memory}
    incoming = min(TOKENS_A_CHUNK, tokens // 2)
    recent = min(stored.recent, (tokens - incoming) // 4)
    left = most - (PROMPT + incoming + recent) * came
    if left <= 0:  # what it learns of a layer takes it all
        return None
    held = PROMPT + incoming + recent + left // sum(stored.settled)
    return {"tokens": held, **memory, "storage": f"{made.storage}:recent={recent}"}


def memory(way: Way) -> Rows:
    """Every evictor and every storage at equal bytes, against all tokens, the last four frames, and fewer frames."""
    rows: Rows = {"full": {"pyramid": ALL}, "last 4 frames": {"pyramid": ALL, "last_frames": 4}}
    kinds: Rows = {evictor: {"evictor": evictor} for evictor in EVICTORS}
    kinds |= {f"{storage} storage": {"storage": storage} for storage in STORAGES if storage != "full"}
    for tokens in BUDGETS:
        rows[f"fewer frames, {tokens}"] = {"pyramid": ALL, "fps": None, "frames": tokens // TOKENS_A_FRAME}
        # half of the budget at once, so that the other half is the past, whatever the storage
        pushed = {} if tokens >= 2 * TOKENS_A_CHUNK else {"chunk": tokens // 2 // TOKENS_A_FRAME}
        for name, kind in kinds.items():
            given = in_bytes_of(way, tokens, kind)
            if given is not None:
                rows[f"{name}, {tokens}"] = {"pyramid": ALL, **pushed, "memory": given}
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


def decode(way: Way) -> Rows:
    """Looking again while an answer of two steps is written, over what the first question's pyramid hides.

    Wants a set of `eval.synthetic.make --steps`.
    """
    full: Settings = {"pyramid": ALL, "task": STEPWISE}
    rows: Rows = {"full": full}
    for name, ratios in HIDDEN.items():
        hidden: Settings = {**full, "ask_pyramid": {"ratios": ratios}}
        rows[f"hidden for good, {name}"] = {**hidden, "decode": NEVER}
        for method in DECODES:
            rows[f"{method}, {name}"] = {**hidden, "decode": method}
    for method, looking in DECODES.items():
        if not looking.uses_hidden:  # nothing hidden: it chooses by itself
            rows[f"{method} alone"] = {**full, "decode": method}
    return rows
