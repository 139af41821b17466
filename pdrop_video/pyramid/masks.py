"""Which columns rows may attend to in each layer: by transformers' own mask function, windows counted in positions.

A dropped token does not widen a sliding window: it goes by positions, as the unmodified model counts them, and not by
columns. In some layers the visual tokens of one step see each other, whichever comes first. Knows rows and caches.
Refuses to know what a layer computes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask

from ..common.kinds import LayerKind
from ..errors import ModelError
from .rows import CACHE, Rows, allowed_columns, past_columns
from .scorers import Layout


class Masks:
    """The masks of one run of rows through the layers.

    Parameters
    ----------
    config : PretrainedConfig
        Of the decoder stack.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self._memo: dict[Any, Any] = {}
        self._where: dict[int | None, tuple[Tensor, Any]] = {}
        self._now: Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether masks are tensors whose rows can be taken one by one, or are left out where all columns are seen."""
        return self.config._attn_implementation in ("eager", "sdpa")

    def clear(self) -> None:
        """Other rows come from here on."""
        self._memo.clear()
        self._where.clear()

    def of(
        self, i: int, kind: LayerKind, rows: Rows, cache: Cache | None, past_valid: Tensor | None
    ) -> tuple[Any, Tensor | None]:
        """The mask of layer `i`, and the validity of its columns; of a layer without columns that of the rows."""
        self._now = None
        if not kind.holds:
            return rows.valid, None
        if kind.window is not None and "flash" in (self.config._attn_implementation or ""):
            raise ModelError(
                "flash attention counts a sliding window in columns, of which some are dropped, and this model has "
                'such layers; load it with attn="sdpa".'
            )
        columns = self._columns(i, rows, cache) if kind.window is not None else None
        key = past_columns(cache, i), id(past_valid), kind.window, id(columns)
        if key not in self._memo:
            allowed = allowed_columns(rows, cache, i, past_valid)
            more: dict[str, Any] = {CACHE: cache}
            if columns is not None and kind.window is not None:
                more["and_mask_function"] = partial(_within, columns, kind.window)
            if kind.mutual and rows.group is not None:
                if "flash" in (self.config._attn_implementation or ""):
                    raise ModelError(
                        "flash attention lets no token see one behind it, and in this model visual tokens see each "
                        'other; load it with attn="sdpa".'
                    )
                past = rows.group.new_full((len(rows.group), past_columns(cache, i)), -1)
                more["or_mask_function"] = partial(_together, torch.cat([past, rows.group], dim=1))
            if allowed is None and more.keys() == {CACHE} and self.config._attn_implementation == "sdpa":
                mask: Any = _after(past_columns(cache, i), rows.hidden)
            else:
                mask = create_causal_mask(
                    config=self.config, inputs_embeds=rows.hidden, attention_mask=allowed, layer_idx=i, **more
                )
            self._memo[key] = mask, allowed
        self._now = columns
        return self._memo[key]

    def note(self, i: int, kind: LayerKind, cache: Cache | None) -> None:
        """Let the cache of a sliding layer know where its newest columns stand, once it has them."""
        if kind.window is not None and cache is not None:
            layer: Any = cache.layers[i]
            layer.stand(self._now)

    def _columns(self, i: int, rows: Rows, cache: Cache | None) -> Tensor:
        """The positions of all columns that layer `i` holds once these rows are in [batch, past + rows]."""
        layer: Any = None if cache is None else cache.layers[i]
        held: Tensor | None = None if layer is None else layer.positions
        key = None if held is None else id(held)
        if key not in self._where:
            new = rows.positions if rows.numbers is None else rows.numbers
            columns = new if held is None else torch.cat([held.to(new.device).expand(len(new), -1), new], dim=1)
            self._where[key] = columns, held
        return self._where[key][0]


def _after(past: int, hidden: Tensor) -> Tensor | None:
    """What transformers' function gives rows that see all columns before them and their own, in a few operations.

    None where attention needs no mask: a single row, or rows that nothing came before.
    """
    batch, rows = hidden.shape[:2]
    if rows == 1 or past == 0:
        return None
    sees = torch.ones(rows, past + rows, dtype=torch.bool, device=hidden.device).tril_(past)
    return sees.expand(batch, 1, -1, -1)


def _together(groups: Tensor, batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Whether a row and a column are of one step's visual tokens."""
    return (groups[batch, row] == groups[batch, column]) & (groups[batch, row] >= 0)


def _within(columns: Tensor, window: int, batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Whether a column lies in the window of a row, for ``create_causal_mask``."""
    return columns[batch, row] - columns[batch, column] < window


def steps_of(visual: Tensor | None, layout: Layout | None) -> Tensor | None:
    """The step of each visual row [batch, rows], -1 of text; where no layout says it, what stands together is one."""
    if visual is None or layout is not None:
        return None if layout is None else layout.frame
    begins = visual & ~F.pad(visual, (1, 0))[:, :-1]
    return begins.long().cumsum(1).masked_fill(~visual, 0) - 1
