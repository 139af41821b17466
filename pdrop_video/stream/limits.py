"""What the layers of a stream's cache may hold, by its memory and its model's positions. Knows no rows and no text."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.cache_utils import Cache

from ..costs.decoder import DecoderShape
from ..errors import ConfigError
from ..memory import STORAGES, UNBOUNDED, Archive, Limits, Memory, Window, lasting
from ..memory.evictors import Evictor
from ..memory.evictors.base import Merger
from ..memory.limits import Tier
from ..memory.states import StateLayer
from ..memory.storages import (
    SIDES,
    Storage,
    asks_in,
    bare_in,
    column_bytes,
    learned_bytes,
    reading_flops,
    recent_in,
)
from ..pyramid import LayerLoop

_RESERVE = 1024
"""Positions of a model's trained range that memory leaves free, for a question and its answer; at most a quarter."""


def fixed_rope(model: Any) -> str | None:
    """The name of a RoPE whose angles depend on the length, so that no key can be moved by a rotation."""
    rope = (getattr(model.config.get_text_config(), "rope_parameters", None) or {}).get("rope_type", "default")
    return rope if rope in ("dynamic", "longrope") else None


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes that a stream's layers take, as they are stored.

    Attributes
    ----------
    token, moved : tuple of int
        Of one token in each layer as it comes, before and after its positions were moved: a layer then holds its keys
        twice.
    settled : tuple of int
        Of one that left the recent window; the same as `token` where all are stored alike.
    outside : tuple of int
        Most bytes of each layer that the budget's evictors have no say in: its window, or its state, or what its
        storage has learned; 0 of the others.
    recent : int or None
        How many of the newest the storage leaves as they come; None where all are stored alike.
    """

    token: tuple[int, ...]
    moved: tuple[int, ...]
    settled: tuple[int, ...]
    outside: tuple[int, ...]
    recent: int | None = None

    @classmethod
    def of(
        cls, storage: Storage, shape: DecoderShape, dtype: torch.dtype, states: tuple[int, ...] | None = None
    ) -> Sizes:
        """Of a decoder; `states` are the bytes of each layer's state, 0 where left out."""
        token, moved, settled, outside = [], [], [], []
        recent = recent_in(storage)
        entering = storage if recent is None else STORAGES["full"]
        for i, state in enumerate(states or (0,) * shape.layers):
            kind, (heads, *widths) = shape.kind(i), shape.column(i)

            def sides(each: Storage, of: Any = column_bytes, heads: int = heads, widths: list[int] = widths) -> Any:
                return [of(each(side), heads, width, dtype) for side, width in zip(SIDES, widths, strict=True)]

            keys, values = sides(entering) if kind.holds else (0, 0)
            token.append(keys + values)
            moved.append(2 * keys + values)
            tiered = recent is not None and kind.ranks
            settled.append(sum(sides(storage)) if tiered else token[-1])
            learned = sum(sides(storage, learned_bytes)) if tiered else 0
            outside.append(state + (kind.window or 0) * moved[-1] + learned)
        return cls(tuple(token), tuple(moved), tuple(settled), tuple(outside), recent)

    def mean(self, kept: tuple[int, ...]) -> int:
        """Of one token that is remembered in one of the layers `kept`, on average."""
        return sum(self.settled[i] for i in kept) // len(kept)

    def budgets(self, memory: Memory, shares: Sequence[float | None]) -> tuple[tuple[int, ...] | None, Tier | None]:
        """Most tokens that each layer may hold while positions stay; and what they take, if not all take the same.

        Parameters
        ----------
        memory : Memory
        shares : sequence of float or None
            As `Memory.budgets` takes them.
        """
        tokens = memory.budgets(shares, self.token, sum(self.outside))
        if self.recent is None:
            return tokens, None
        every = tokens or (UNBOUNDED,) * len(self.token)
        tier = Tier(tuple(min(self.recent, n // 4) for n in every), self.token, self.moved, self.settled)
        if tokens is None or memory.bytes is None:
            return tokens, tier
        tier = replace(tier, bytes=tuple(n * size for n, size in zip(tokens, self.token, strict=True)))
        # the newest are there in any case, each at its full size
        sizes = zip(tokens, tier.recent, self.token, self.settled, strict=True)
        held = (n if n >= UNBOUNDED else new + (n - new) * size // less for n, new, size, less in sizes)
        return tuple(held), tier

    def bound(self, kept: tuple[int, ...], limits: tuple[int, ...], moved: list[bool]) -> int:
        """Of all layers, where those in `kept` hold so many tokens."""
        budget = sum(limits[i] * (self.moved if moved[i] else self.token)[i] for i in kept)
        return budget + sum(self.outside)


def reading_of(storage: Storage, shape: DecoderShape) -> tuple[int, ...]:
    """FLOPs by which each layer of a decoder reads one column; 0 of those that the budget's evictors have no say in."""
    return tuple(reading_flops(storage, *shape.column(i)) if shape.kind(i).ranks else 0 for i in range(shape.layers))


def state_bytes(loop: LayerLoop) -> tuple[int, ...]:
    """Bytes of each layer's state, whatever it has seen: measured on one row."""
    sizes, text = [], loop.text
    for i, kind in enumerate(loop.kinds):
        layer = StateLayer()
        if kind.name == "state":
            device = "cpu" if text.device.type == "meta" else text.device  # weights may come when they are needed
            row = torch.zeros(1, 1, loop.decoder.width, dtype=text.dtype, device=device)
            with lasting():
                loop.decoder.run(i, row, None, None, Cache(layers=[layer] * len(loop.kinds)))
        sizes.append(layer.nbytes)
    return tuple(sizes)


def steps_at_once(steps: int, fits: Callable[[int, float], bool]) -> int:
    """How many steps of a chunk run together; ``fits(steps, share)`` says if so many take at most that share of room.

    A chunk that would push everything else out goes in pieces that leave half of the room to the past.
    """
    return steps if fits(steps, 1.0) else max(n for n in range(1, steps) if n == 1 or fits(n, 0.5))


def limits_of(loop: LayerLoop, memory: Memory, sizes: Sizes, trained: int, rope: str | None) -> Limits:
    """The budget of each layer, and the window of positions.

    Parameters
    ----------
    loop : LayerLoop
    memory : Memory
    sizes : Sizes
        Of its layers.
    trained : int
        Positions that the model was trained on.
    rope : str or None
        As `fixed_rope` has it.

    Raises
    ------
    ConfigError
        If positions are to be moved that can't be, or keys stored without RoPE that can't be had so.
    """
    if rope and bare_in(memory.stored):
        raise ConfigError(
            f"storage {memory.storage!r} keeps keys without RoPE, which {rope!r} RoPE can't be taken from: its angles "
            'depend on the length; use "int8_per_token" or "full".'
        )
    every = zip(loop.kinds, loop.schedule.per_layer_shares(), strict=True)
    shares = [share if kind.ranks else None for kind, share in every]
    tokens, tier = sizes.budgets(memory, shares)
    if tier is not None and (memory.positions == "original" or rope):
        tier = replace(tier, moved=tier.near)
    if memory.positions == "original":
        return Limits(tokens, tokens, tier=tier)
    if rope:
        if memory.positions == "compact" and tokens is not None:
            raise ConfigError(f'positions="compact" can\'t move keys under {rope!r} RoPE; use "original".')
        return Limits(tokens, tokens, tier=tier)
    limit = trained - min(_RESERVE, trained // 4)
    moved = tokens
    if memory.bytes is not None and tier is None:
        moved = memory.budgets(shares, sizes.moved, sum(sizes.outside))
    if loop.axes == 1:  # every token has a position of its own: no more of them than positions
        tokens, moved = (of and tuple(n if n == UNBOUNDED else min(n, limit) for n in of) for of in (tokens, moved))
    window = Window(limit, loop.turn, always=memory.positions == "compact")
    return Limits(tokens, moved, window, tier)


def refuse_latent(loop: LayerLoop, memory: Memory, evictor: Evictor) -> None:
    """Refuse an evictor, or a storage, that looks at keys where layers hold latents.

    Raises
    ------
    ConfigError
    """
    if loop.decoder.latent and (evictor.uses_query or isinstance(evictor, Merger)):
        raise ConfigError(
            f"the evictor {type(evictor).__name__} forgets by keys, and this model holds latents alone; choose one "
            'that goes by tokens, such as "pyramid" or "oldest".'
        )
    if loop.decoder.latent and asks_in(memory.stored):
        raise ConfigError(
            f"storage {memory.storage!r} weighs keys by what a probe asks of them, and this model holds latents alone; "
            "leave `asked` out."
        )


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
    if loop.decoder.latent:
        raise ConfigError("an archive finds frames by keys, of which this model holds latents alone; drop it.")
    if folder is not None:
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"archive_folder={folder!r} can't be made: {error}; choose another.") from error
    return Archive(size, loop.turn, folder)
