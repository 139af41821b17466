"""Rows about what is remembered, and about questions to it."""

from __future__ import annotations

import torch

import pdrop_video as pv
from eval.runner.config import STEPWISE
from eval.runner.equal import Way
from pdrop_video.memory.evictors import EVICTORS
from pdrop_video.memory.storages import STORAGES, storage_named
from pdrop_video.stream.limits import Sizes
from pdrop_video.stream.looking import DECODES

from .base import ALL, RATIOS, Rows, Settings

BUDGETS = (64, 128, 256, 512, 1024, 2048)
"""Tokens a layer, stored in full, whose bytes the rows of `memory` may take."""
TOKENS_A_FRAME = 8
"""Of the built-in model."""
HIDDEN = {"half": [0.5, 0.25, 0.125], "quarter": [0.25, 0.0625, 0.02]}
"""What a question leaves for itself, stage by stage, in the rows of `decode`."""


def tokens_in_bytes_of(way: Way, tokens: int, memory: Settings) -> int:
    """How many tokens a layer a memory holds in the bytes that so many take in full, 16 bits a number.

    Counted in 16 bits whatever the type of the run, so that a run in float32 remembers what one in bfloat16 does: the
    newest tokens as they come, where a storage leaves them so, and what it learns of a layer. A memory whose positions
    are closed at every chunk holds keys twice, as they came and as they are now.
    """
    made = pv.Memory(tokens=None, **memory)
    full, stored = (Sizes.of(storage_named(storage), way.decoder, torch.bfloat16) for storage in ("full", made.storage))
    came = sum(stored.moved if made.positions == "compact" else stored.token)
    settled = came if stored.recent is None else sum(stored.settled)
    most = tokens * sum(full.token) - sum(stored.outside)

    def taken(held: int) -> int:
        recent = 0 if stored.recent is None else min(stored.recent, held // 4)
        return recent * came + (held - recent) * settled

    held = max(most // came, 0)
    while taken(held + 1) <= most:
        held += 1
    return held


def memory(way: Way) -> Rows:
    """Every evictor and every storage at equal bytes, against all tokens, the last four frames, and fewer frames."""
    rows: Rows = {"full": {"pyramid": ALL}, "last 4 frames": {"pyramid": ALL, "last_frames": 4}}
    kinds: Rows = {evictor: {"evictor": evictor} for evictor in EVICTORS}
    kinds |= {f"{storage} storage": {"storage": storage} for storage in STORAGES if storage != "full"}
    for tokens in BUDGETS:
        rows[f"fewer frames, {tokens}"] = {"pyramid": ALL, "fps": None, "frames": tokens // TOKENS_A_FRAME}
        for name, kind in kinds.items():
            held = tokens_in_bytes_of(way, tokens, kind)
            if held:  # what a storage learns may take more than a small budget
                rows[f"{name}, {tokens}"] = {"pyramid": ALL, "memory": {"tokens": held, **kind}}
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
        rows[f"hidden for good, {name}"] = hidden
        for method in DECODES:
            rows[f"{method}, {name}"] = {**hidden, "decode": method}
    for method, looking in DECODES.items():
        if not looking.uses_hidden:  # nothing hidden: it chooses by itself
            rows[f"{method} alone"] = {**full, "decode": method}
    return rows
