"""What the layers of a stream's cache may hold, by its memory and its model's positions. Knows no rows and no text."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from ..costs.decoder import DecoderShape
from ..errors import ConfigError
from ..memory import Archive, Limits, Memory, Window
from ..memory.storages import Storage, column_bytes
from ..pyramid import LayerLoop

_RESERVE = 1024
"""Positions of a model's trained range that memory leaves free, for a question and its answer; at most a quarter."""


def fixed_rope(model: Any) -> str | None:
    """The name of a RoPE whose angles depend on the length, so that no key can be moved by a rotation."""
    rope = (getattr(model.config.get_text_config(), "rope_parameters", None) or {}).get("rope_type", "default")
    return rope if rope in ("dynamic", "longrope") else None


def layer_bytes(storage: Storage, shape: DecoderShape, dtype: torch.dtype) -> tuple[int, int]:
    """Bytes of one token's keys, and of its values, in one layer, as they are stored."""
    keys, values = (column_bytes(storage(of), shape.kv_heads, shape.head_dim, dtype) for of in ("keys", "values"))
    return keys, values


def steps_at_once(steps: int, fits: Callable[[int, float], bool]) -> int:
    """How many steps of a chunk run together; ``fits(steps, share)`` says if so many take at most that share of room.

    A chunk that would push everything else out goes in pieces that leave half of the room to the past.
    """
    return steps if fits(steps, 1.0) else max(n for n in range(1, steps) if n == 1 or fits(n, 0.5))


def limits_of(
    loop: LayerLoop, memory: Memory, token_bytes: int, moved_bytes: int, trained: int, rope: str | None
) -> Limits:
    """The budget of each layer, and the window of positions.

    Parameters
    ----------
    loop : LayerLoop
    memory : Memory
    token_bytes, moved_bytes : int
        Of one token in one layer, before and after its positions were moved.
    trained : int
        Positions that the model was trained on.
    rope : str or None
        As `fixed_rope` has it.

    Raises
    ------
    ConfigError
        If positions are to be moved that can't be.
    """
    shares = loop.schedule.per_layer_shares()
    tokens = memory.budgets(shares, token_bytes)
    if memory.positions == "original":
        return Limits(tokens, tokens)
    if rope:
        if memory.positions == "compact" and tokens is not None:
            raise ConfigError(f'positions="compact" can\'t move keys under {rope!r} RoPE; use "original".')
        return Limits(tokens, tokens)
    limit = trained - min(_RESERVE, trained // 4)
    moved = memory.budgets(shares, moved_bytes) if memory.bytes is not None else tokens
    if loop.axes == 1:  # every token has a position of its own: no more of them than positions
        tokens, moved = (of and tuple(min(n, limit) for n in of) for of in (tokens, moved))
    window = Window(limit, loop.turn, always=memory.positions == "compact")
    return Limits(tokens, moved, window)


def archive_of(loop: LayerLoop, memory: Memory, rope: str | None) -> Archive | None:
    """An empty archive, if there is to be one.

    Raises
    ------
    ConfigError
        If its folder can't be made, or keys can't be told apart from their rotation.
    """
    size, folder = memory.archive, memory.archive_folder
    if size is None:
        return None
    if rope:
        raise ConfigError(f"an archive finds frames by un-rotated keys, which {rope!r} RoPE does not have; drop it.")
    if folder is not None:
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"archive_folder={folder!r} can't be made: {error}; choose another.") from error
    return Archive(size, loop.turn, folder)
