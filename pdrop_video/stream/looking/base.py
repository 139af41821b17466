"""What a method that looks again is given, and what it says of what it saw.

All of it happens on a question's fork, whose layers hide columns and show them again (`KeyValueLayer.show`): nothing is
ever forgotten, so what is hidden is the reserve. Knows a cache and the rows that enter its layers. Refuses to know
streams, text and seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ...common.kinds import LayerKind
from ...common.ties import comparable
from ...costs.looking import Looked
from ...memory import StreamCache, TokenTable
from ...memory.evictors.base import lexicographic
from ...pyramid.heads import Rope, attention_of, every_key, held_keys, keys_in, normed, project
from ...pyramid.rank import mean_weights


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A row that is about to enter a layer: the last of the question, or a token of the answer.

    Attributes
    ----------
    layer : int
    module : nn.Module
        The layer.
    hidden : Tensor [1, rows, hidden]
        The rows that enter together; it is the last of them.
    rope : (cos, sin) or None
        Theirs.
    lent : Tensor [1, kv_heads, rows, head_dim] or None
        Their keys, in a layer that uses those of another one.
    looked : Looked, optional
        Where it is noted what is multiplied here.
    """

    layer: int
    module: Any
    hidden: Tensor
    rope: Rope | None
    lent: Tensor | None = None
    looked: Looked | None = None

    def seen(self, cache: StreamCache) -> Tensor | None:
        """Keys (after RoPE) that the layer shows [1, kv_heads, columns, head_dim]; None if it holds nothing."""
        keys = held_keys(self.module, cache, self.layer)
        self._note(read=0 if keys is None else keys.shape[-2])
        return keys

    def held(self, cache: StreamCache) -> Tensor | None:
        """The same of all that it holds, hidden or not."""
        whole = cache.layers[self.layer].whole()
        self._note(read=whole.length)
        return keys_in(self.module, whole) if whole.length else None

    def _note(self, **what: int) -> None:
        if self.looked is not None:
            self.looked.score(self.layer, **what)

    def attends_to(self, keys: Tensor, among: Tensor) -> Tensor:
        """Softmax over some of the columns alone, the mean over heads [columns]; 0 elsewhere.

        Parameters
        ----------
        keys : Tensor [1, kv_heads, columns, head_dim]
        among : Tensor [columns], bool
            Of which there is one at least.
        """
        self._note(queries=1, pairs=keys.shape[-2])
        query, visible = self._query(normed(self.module, self.hidden[:, -1:])), among[None].to(keys.device)
        weights = mean_weights(query, keys, attention_of(self.module).scaling, None, visible)
        return weights[0, 0].to(among.device)

    def attends_to_all(self, keys: Tensor | None, held: int) -> Tensor:
        """How much it attends to the first `held` columns, of a softmax over everything that it sees [held]."""
        rows = self.hidden.shape[1]
        self._note(queries=1, keys=rows, pairs=rows + (0 if keys is None else keys.shape[-2]))
        attention, entering = attention_of(self.module), normed(self.module, self.hidden)
        every = every_key(attention, entering, self.rope, keys, self.lent)
        return mean_weights(self._query(entering), every, attention.scaling, None)[0, 0, :held]

    def _query(self, entering: Tensor) -> Tensor:
        """Its queries, the last of some rows behind the layer's norm [1, heads, 1, head_dim]."""
        rope = self.rope and (self.rope[0][..., -1:, :], self.rope[1][..., -1:, :])
        return project(attention_of(self.module), entering[:, -1:], "q", rope)


@dataclass(frozen=True, slots=True, eq=False)
class Glance:
    """What some layers looked at again.

    Attributes
    ----------
    token : int
        The number of the answer's token at which attention was found elsewhere.
    first, last : int
        The first and the last token that it is to be seen for.
    stage : int
    layers : tuple of int
    table : TokenTable
        What was not seen before.
    weight : Tensor [tokens]
        How much the token attended to each.
    """

    token: int
    first: int
    last: int
    stage: int
    layers: tuple[int, ...]
    table: TokenTable
    weight: Tensor


class Gaze(Protocol):
    """What one answer looks at. Lives as long as the answer does."""

    def asked(self, row: Row, stage: int, stay: Tensor | None) -> None:
        """The question's last row is about to enter a layer that can rank, of a stage.

        `stay` are the columns [kept], ascending, that it will see; None if it will see all.
        """

    def before(self, row: Row) -> None:
        """A token of the answer is about to enter such a layer."""

    def after(self) -> list[Glance]:
        """It went through all layers; what is looked at again from here on."""


class Decode(Protocol):
    """Which columns the tokens of an answer see: a frozen dataclass that can be called.

    Attributes
    ----------
    facts : Facts, optional
        What a catalogue says of it.
    reserve : int, optional
        Archived steps of time that each layer gets back beside what the question retrieves, hidden from the question.
    uses_hidden : bool
        True if it does nothing where a question hides nothing.
    """

    uses_hidden: ClassVar[bool]

    def __call__(self, cache: StreamCache) -> Gaze:
        """For one answer, on the fork of its question."""

    def check(self, kinds: Sequence[LayerKind]) -> None:
        """Refuse a model with layers of such kinds, by a `ConfigError`."""


def narrow(weight: Tensor, table: TokenTable, gone: int, dtype: torch.dtype) -> Tensor:
    """All columns but the `gone` visual tokens of the smallest weights, ascending [kept]."""
    weight = comparable(weight, table.visual, dtype)
    rank = lexicographic(weight.masked_fill(~table.visual, torch.inf), *table.spread())
    return rank.argsort(descending=True)[: len(table) - gone].sort().values
