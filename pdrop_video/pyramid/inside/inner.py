"""A decoder's layers under a method inside them: each row's share of the FFN, and a mask over cubes.

The model itself is left alone: what is hung on layers hangs on shadows of them, which share their weights. Knows
layers, rows and the places of columns. Refuses to know by what a method chooses.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers.cache_utils import Cache

from ...common.kinds import LayerKind
from ...common.shadow import shadow
from ...common.ties import working
from ...errors import ConfigError
from ..decoder import Decoder
from ..heads import Rope, attention_of, every_key, held_keys, normed, project
from ..rows import Passage, Rows, past_columns
from . import inside_named
from .base import Inside
from .branch import Share
from .cubes import Cubes
from .spent import Spent
from .trial import tried

_PARTS: WeakKeyDictionary[nn.Module, tuple[tuple[str, ...], ...]] = WeakKeyDictionary()
"""By decoder, the parts that are each layer's FFN."""


class _Now(threading.local):
    """What runs through the layers in one thread: several may, whose rows an engine computes together."""

    spent: Spent | None = None
    cubes: Cubes | None = None  # of the rows that come next in the layer that runs
    layer = taken = 0


class Inner:
    """A method inside the layers of one decoder.

    Parameters
    ----------
    inside : Inside
    decoder : Decoder
        Whose layers shadows take the place of, if rows of FFNs are left out.

    Raises
    ------
    ConfigError
        If columns are to be left out under an attention without masks that are tensors.
    """

    def __init__(self, inside: Inside, decoder: Decoder) -> None:
        self.inside, self.decoder = inside, decoder
        self._now = _Now()
        self._fitted = not inside.ffn
        kind = decoder.text.config._attn_implementation
        self._in_blocks = kind == "flex_attention" and takes_blocks(decoder)
        if inside.attention and kind not in ("eager", "sdpa") and not self._in_blocks:
            raise ConfigError(
                f"{inside} leaves out columns of attention by a mask, which {kind!r} does not take; load the model "
                'with attn="sdpa", or leave out FFNs alone (half=ffn).'
            )

    def fit(self, loop: Any) -> None:
        """Look for each layer's FFN, unless that is done; `loop` is the layer loop that asks.

        Raises
        ------
        ConfigError
            If a layer has none that gives each row by itself what is added to it.
        """
        if self._fitted:
            return
        self._fitted = True  # for the trial's own runs, which know of no visual rows
        try:
            self._fit(loop)
        except BaseException:
            self._fitted = False
            raise

    def _fit(self, loop: Any) -> None:
        decoder, text = self.decoder, self.decoder.text
        if text not in _PARTS:
            _PARTS[text] = tried(decoder, loop, self.inside)
        decoder.layers = [shadow(layer) for layer in text.layers]
        for layer, parts in zip(decoder.layers, _PARTS[text], strict=True):
            if parts:
                Share(layer, parts, self._choose)

    @contextmanager
    def counting(self) -> Iterator[Spent]:
        """What layers compute in the block, which may be less than all."""
        before, self._now.spent = self.spent, Spent()
        try:
            yield self._now.spent
        finally:
            self._now.spent = before

    @property
    def in_blocks(self) -> bool:
        """Whether attention (FlexAttention) leaves out blocks of columns in which nothing is attended to."""
        return self._in_blocks

    @property
    def spent(self) -> Spent | None:
        """What this thread counts into."""
        return self._now.spent

    def _choose(self, hidden: Tensor) -> tuple[Tensor, Tensor] | None:
        """Which of the next rows of the layer get an FFN of their own, and the cubes of all."""
        now, count = self._now, len(hidden)
        cubes, first = now.cubes, now.taken
        now.taken += count
        if cubes is None:
            return None
        code, turn = cubes.code[first : first + count], cubes.turn[first : first + count]
        cube = Cubes(code, turn).numbered()
        active = self.inside(hidden, cube, turn) | (code < 0)
        if now.spent is not None:
            now.spent.rows(now.layer, count, active)
        return active, cube

    def next(self, cubes: Cubes | None, layer: int) -> None:
        """Which layer runs next in this thread, and on which rows; None where none is visual."""
        self._now.cubes, self._now.layer, self._now.taken = cubes, layer, 0

    def begin(self, loop: Any, pictured: bool, passage: Passage | None) -> Run:
        """Before rows run through the layers of a loop; `pictured` says whether some may be visual."""
        self.fit(loop)
        return Run(self, pictured, passage)


def inner_of(inside: str | Inside | None, decoder: Decoder) -> Inner | None:
    """A method by its name, or itself, inside a decoder's layers."""
    return None if inside is None else Inner(inside_named(inside), decoder)


class Run:
    """One run of rows through the layers."""

    def __init__(self, inner: Inner, pictured: bool, passage: Passage | None) -> None:
        self.inner, self.pictured, self.passage = inner, pictured, passage
        self._rows: dict[int, tuple[Cubes, Any]] = {}
        self._columns: dict[Any, tuple[Any, ...]] = {}

    def enter(
        self,
        i: int,
        layer: Any,
        kind: LayerKind,
        rows: Rows,
        rope: Rope | None,
        mask: Any,
        cache: Cache | None,
        lent: tuple[Tensor, Tensor] | None,
    ) -> Any:
        """Before layer `i` runs on rows, before it holds them: the mask that it shall have in place of `mask`."""
        inner, own = self.inner, self._own(rows)
        inner.next(own if self.pictured else None, i)
        if not inner.inside.attention or not kind.ranks:
            return mask
        return self._narrowed(i, layer, rows, own, rope, mask, cache, lent)

    def _own(self, rows: Rows) -> Cubes:
        """The cubes of the rows in flight."""
        key = id(rows.layout)
        if key not in self._rows:
            self._rows[key] = Cubes.of_rows(self.inner.inside, rows.layout), rows.layout
        return self._rows[key][0]

    def _all(self, i: int, own: Cubes, past: int) -> tuple[Tensor, Tensor]:
        """The number of the cube of each column that layer `i` will hold [past + rows], and the cubes' codes."""
        places = self.passage.places(i) if self.passage is not None and past else None
        key = id(own), id(places)
        if key not in self._columns:
            cubes = own
            if places is not None:
                step, row, column = (each.to(own.code.device) for each in places)
                cubes = Cubes.at(self.inner.inside, (step, row, column)).then(own)
            number = cubes.numbered()
            # how many there are follows from what is held: once for all layers that hold the same
            count = int(number.max()) + 1
            code = own.code.new_zeros(count + 1).index_copy(0, number.clamp(min=-1) + 1, cubes.code)[1:]
            self._columns[key] = number, code, own, places
        return self._columns[key][:2]

    def _narrowed(
        self,
        i: int,
        layer: Any,
        rows: Rows,
        own: Cubes,
        rope: Rope | None,
        mask: Any,
        cache: Cache | None,
        lent: tuple[Tensor, Tensor] | None,
    ) -> Any:
        """The mask without the cubes that rows do not choose [1, heads, rows, columns]."""
        length, past = rows.hidden.shape[1], past_columns(cache, i)
        number, code = self._all(i, own, past)
        if not len(code):
            return mask
        attention, entering, columns = attention_of(layer), normed(layer, rows.hidden), past + length
        key = every_key(attention, entering, rope, held_keys(layer, cache, i), None if lent is None else lent[0])
        query, key = working(project(attention, entering, "q", rope)[0]), working(key[0])
        sums = key.new_zeros(len(key), len(code) + 1, key.shape[-1]).index_add(1, number + 1, key)[:, 1:]
        size = key.new_zeros(len(code) + 1).index_add(0, number + 1, torch.ones_like(key[0, :, 0]))[1:, None]
        sees = _sees(mask, length, columns, rows.hidden.device)
        competes = key.new_zeros(length, len(code) + 1).index_add(1, number + 1, sees.to(key.dtype))[:, 1:] > 0
        at = number[-length:, None]
        mine = torch.arange(len(code), device=at.device) == at
        query = rearrange(query * attention.scaling, "(kv group) rows dim -> kv group rows dim", kv=len(key))
        turn = Cubes.turn_of(code)
        chosen = self.inner.inside.attends(query, sums / size, competes & ~mine, turn, rows.hidden.dtype) | mine
        always = chosen.new_ones(*chosen.shape[:2], 1)
        stays = torch.cat([always, chosen], dim=-1).index_select(-1, number + 1) & sees  # [kv_heads, rows, columns]
        if self.inner.spent is not None:
            self.inner.spent.columns(i, sees, stays, len(code))
        stays = stays.repeat_interleave(query.shape[1], 0)[None]
        if self.inner.in_blocks:
            return blocks_of(stays)
        if isinstance(mask, Tensor) and mask.dtype != torch.bool:
            return mask.masked_fill(~stays, torch.finfo(mask.dtype).min)
        return stays


def takes_blocks(decoder: Decoder) -> bool:
    """Whether FlexAttention runs with a mask of the rows' own.

    Not on CPUs: what PyTorch 2.13 writes there for a mask that is a tensor does not compile. Not where visual tokens
    see those behind them, which such a mask would have to know.
    """
    placed = {parameter.device.type for parameter in decoder.text.parameters()}
    return "cpu" not in placed and not any(kind.mutual for kind in decoder.kinds)


def blocks_of(stays: Tensor) -> BlockMask:
    """A mask [1, heads, rows, columns], bool, as FlexAttention takes it: whole blocks are computed, or left out."""

    def sees(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return stays[batch, head, row, column]

    batch, heads, rows, columns = stays.shape
    return create_block_mask(sees, batch, heads, rows, columns, device=str(stays.device))


def _sees(mask: Any, rows: int, columns: int, device: torch.device) -> Tensor:
    """Which columns each row sees by a mask, or by none [rows, columns], bool."""
    if not isinstance(mask, Tensor):
        row = torch.arange(columns - rows, columns, device=device)
        return torch.arange(columns, device=device) <= row[:, None]
    return mask[0, 0] if mask.dtype == torch.bool else mask[0, 0] >= 0
