"""Fixation: a few layers look at everything, and the others at what those found (as FastOCR's two modules do)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import torch
from torch import Tensor

from ...common.checks import real, share, shown, whole
from ...common.kinds import LayerKind
from ...common.ties import comparable, settled
from ...errors import ConfigError
from ...memory import StreamCache, TokenTable
from ...memory.evictors.base import best_first
from ...registry import Facts
from .base import Glance, Row


@dataclass(frozen=True, slots=True)
class Fixation:
    """A twentieth of the visual columns in most layers, chosen anew for every token (in the style of FastOCR).

    Focal layers attend to all that they hold, hidden from the question or not. The ceil(keep * N) visual columns that
    they attend to most are what the layers behind them see, up to the next focal layer; the layers before the first one
    see what the last one chose for the token before. Text is always seen, and nothing is forgotten.

    From the paper's summary and a paragraph about it: focal layers that choose for the others at each step, the warm
    start, that nothing is evicted, and a twentieth. All else is ours, since no code and no formulas are known. Focal
    layers are those whose weight is most concentrated in their best columns, over the question's last row and the first
    `warm` tokens, for which all layers attend fully; the best first, each at least L / (2 * count) layers from the
    others. Attention is the mean over heads of a softmax over all that a layer sees. Where a layer holds other columns
    than the focal one, it sees its own share of them, by the same weights. If the first focal layer finds less than
    `jump` of its visual weight in what was seen so far, the answer's evidence says so; the layers before it are right
    again with the next token. Layers of fewer than `least` visual columns are left as the question left them.

    Parameters
    ----------
    keep : float
        Share of a layer's visual columns.
    focal : str or None
        The focal layers, counted from 0, as "3+17"; None finds them.
    count : int
        How many are found.
    warm : int
        Tokens during which they are.
    refresh : int
        Every so many tokens all layers attend fully.
    jump : float
        Share of the weight under which a token's look counts as elsewhere.
    least : int
        Fewest visual columns of a layer that narrows.
    reserve : int
        Archived steps of time that each layer gets back hidden from the question, beside what that retrieves: the next
        most like it. For streams with an archive.

    Raises
    ------
    ConfigError
        If a parameter is out of bounds.

    References
    ----------
    FastOCR, arXiv 2605.17447.
    """

    facts: ClassVar[Facts] = Facts(
        says="in most layers a twentieth of what is remembered, chosen for each token by a few layers that see all",
        paper="FastOCR, arXiv 2605.17447",
        formula=(
            "in most layers an answer's token sees the ceil(keep * N) visual tokens to which the nearest focal\n"
            "    layer below attends most\n"
            "focal layers see all; they are those whose attention is most concentrated"
        ),
        ours=True,
    )
    uses_hidden: ClassVar[bool] = False
    keep: float = 0.05
    focal: str | None = None
    count: int = 3
    warm: int = 8
    refresh: int = 64
    jump: float = 0.5
    least: int = 64
    reserve: int = 0

    def __post_init__(self) -> None:
        """Check the parameters."""
        object.__setattr__(self, "keep", share("keep", self.keep))
        object.__setattr__(self, "jump", real("jump", self.jump, 0, 1))
        for name in ("count", "warm", "refresh", "least"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        object.__setattr__(self, "reserve", whole("reserve", self.reserve, 0))
        if self.focal is not None:
            parts = self.focal.split("+") if isinstance(self.focal, str) else []
            if not parts or not all(part.strip().isdecimal() for part in parts):
                raise ConfigError(f'focal is {shown(self.focal)}; expected numbers of layers such as "3+17".')

    @property
    def layers(self) -> tuple[int, ...] | None:
        """The focal layers, ascending; None to find them."""
        return None if self.focal is None else tuple(sorted({int(part) for part in self.focal.split("+")}))

    def __call__(self, cache: StreamCache) -> Fixing:
        """For one answer."""
        return Fixing(self, cache)

    def check(self, kinds: Sequence[LayerKind]) -> None:
        """Refuse focal layers that can't look at everything.

        Raises
        ------
        ConfigError
        """
        can = [i for i, kind in enumerate(kinds) if kind.ranks]
        for layer in self.layers or ():
            if layer not in can:
                raise ConfigError(
                    f"focal={self.focal}: layer {layer} of {len(kinds)} does not attend to all that came before; "
                    f"choose among {', '.join(map(str, can))}."
                )

    def found(self, concentration: dict[int, float], layers: int, dtype: torch.dtype) -> tuple[int, ...]:
        """Focal layers, ascending: the most concentrated first, each far enough from those before it.

        Parameters
        ----------
        concentration : dict of float
            By layer, the share of its visual weight that lies in its best columns.
        layers : int
            How many the decoder has.
        dtype : torch.dtype
            Of its hidden states: what counts as equal, of which the shallower goes first.
        """
        numbers = list(concentration)
        shares = torch.tensor([concentration[i] for i in numbers], dtype=torch.float64, device="cpu")
        values = settled(shares, dtype).tolist()
        chosen: list[int] = []
        for _, layer in sorted((-value, i) for i, value in zip(numbers, values, strict=True)):
            if len(chosen) < self.count and all(2 * self.count * abs(layer - other) >= layers for other in chosen):
                chosen.append(layer)
        return tuple(sorted(chosen))


@dataclass(slots=True, eq=False)
class _Field:
    """What the layers that hold the same columns can see.

    `text` [text] and `turn` [visual] are columns, those of `turn` in the order in which equals go.
    """

    table: TokenTable
    text: Tensor
    turn: Tensor
    keep: int

    @classmethod
    def of(cls, table: TokenTable, method: Fixation) -> _Field | None:
        """None where everything is seen."""
        text, visual = (~table.visual).nonzero()[:, 0], table.visual.nonzero()[:, 0]
        keep = ceil(round(method.keep * len(visual), 9))  # 5 % of 100 are 5 in spite of rounding
        if len(visual) < method.least:
            return None
        order = best_first(*(key[visual] for key in table.spread()))
        return cls(table, text, visual[order], keep)

    def best(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The visual columns [keep] of the largest weights [columns]."""
        scores = comparable(weight, self.table.visual, dtype)[self.turn]
        return self.turn[scores.argsort(descending=True, stable=True)[: self.keep]]

    def concentration(self, weight: Tensor) -> Tensor:
        """Which share of the visual weight lies in as many columns as are kept."""
        visual = weight[self.turn]
        return visual.topk(self.keep).values.sum() / visual.sum()


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What a focal layer attended to [columns], and which visual columns others see for it, by what they hold."""

    field: _Field
    weight: Tensor
    dtype: torch.dtype
    chosen: dict[int, tuple[Tensor, Tensor]]

    def of(self, field: _Field) -> tuple[Tensor, Tensor]:
        """The visual columns [keep], and those with text, ascending."""
        if id(field) not in self.chosen:
            best = field.best(self._seen_by(field), self.dtype)
            self.chosen[id(field)] = best, torch.cat([field.text, best]).sort().values
        return self.chosen[id(field)]

    def _seen_by(self, other: _Field) -> Tensor:
        """The weights of the columns of other layers, -1 of what the focal one does not hold."""
        if other is self.field:
            return self.weight
        index, order = self.field.table.index.sort()
        at = torch.searchsorted(index, other.table.index).clamp(max=len(index) - 1)
        known = index[at] == other.table.index
        return torch.where(known, self.weight[order[at]], -1)


class Fixing:
    """What one answer looks at. All of it is lost with the answer: the focal layers and what they chose."""

    def __init__(self, method: Fixation, cache: StreamCache) -> None:
        self.method, self.cache = method, cache
        self.focal: tuple[int, ...] | None = None
        self._fields: dict[int, _Field | None] = {}
        self._of: dict[int, _Field] = {}
        self._stage: dict[int, int] = {}
        self._tables: list[TokenTable] = []
        self._concentration: dict[int, Tensor] = {}
        self._newest: dict[int, _Look] = {}
        self._look: _Look | None = None
        self._jump: tuple[Tensor, _Look, _Look] | None = None
        self._token = 0

    def asked(self, row: Row, stage: int, stay: Tensor | None) -> None:
        """What the question's last row attends to in each layer, of all that it holds."""
        layer, table = row.layer, self.cache.tables[row.layer]
        if id(table) not in self._fields:
            self._tables.append(table)  # so that nobody gets its id
            self._fields[id(table)] = _Field.of(table, self.method)
        if (field := self._fields[id(table)]) is None:
            return
        self._of[layer], self._stage[layer] = field, stage
        wanted = self.method.layers
        if wanted is None or layer in wanted:
            self._note(row, self._attended(row, row.held(self.cache)))
        if wanted is not None:
            self.focal = tuple(i for i in wanted if i in self._of)
            self._look = self._newest.get(layer, self._look)

    def before(self, row: Row) -> None:
        """Show the layer what it is to see of the token's columns; a focal layer chooses."""
        layer, field = row.layer, self._of.get(row.layer)
        if field is None or self.focal == ():  # none of those that were named has enough to choose from
            return
        held, focal = self.cache.layers[layer], self.focal is not None and layer in self.focal
        if self.focal is None or focal:
            held.show(None)
            look = self._attended(row, row.seen(self.cache))
            if not focal:
                self._note(row, look)
                return
            if self._look is not None and self.focal is not None and layer == self.focal[0]:
                before = self._look.of(field)[0]
                self._jump = look.weight[before].sum() / look.weight[field.turn].sum(), self._look, look
            self._look = look
        elif self._look is None or self._token % self.method.refresh == self.method.refresh - 1:
            held.show(None)
        else:
            held.show(self._look.of(field)[1], since=len(field.table))

    def after(self) -> list[Glance]:
        """Find the focal layers once all is known; the host waits here, as it does for the token anyway."""
        token, self._token = self._token, self._token + 1
        if self.focal is None and self._of and self._token == self.method.warm:
            means = {i: float(total) / (1 + self.method.warm) for i, total in self._concentration.items()}
            some = next(iter(self._newest.values()))
            self.focal = self.method.found(means, len(self.cache.layers), some.dtype)
            self._look = self._newest[self.focal[-1]]
            self._newest.clear()
            self._concentration.clear()
        jump, self._jump = self._jump, None
        if jump is None or float(jump[0]) >= self.method.jump:
            return []
        return [self._again(token, *jump[1:])]

    def _attended(self, row: Row, keys: Tensor | None) -> _Look:
        field = self._of[row.layer]
        weight = row.attends_to_all(keys, len(field.table)).to(field.table.index.device)
        return _Look(field, weight, row.hidden.dtype, {})

    def _note(self, row: Row, look: _Look) -> None:
        self._newest[row.layer] = look
        share = look.field.concentration(look.weight)
        self._concentration[row.layer] = self._concentration.get(row.layer, 0) + share

    def _again(self, token: int, before: _Look, now: _Look) -> Glance:
        """What the first focal layer chose that was not seen before it, and who sees it."""
        assert self.focal is not None
        first, field = self.focal[0], now.field
        anew = now.of(field)[0]
        anew = anew[~torch.isin(anew, before.of(field)[0])]
        anew = anew[field.table.index[anew].argsort()]
        end = self.focal[1] if len(self.focal) > 1 else len(self.cache.layers)
        layers = tuple(i for i in self._of if first <= i < end)
        stage, table = self._stage[first], field.table.take(anew)
        return Glance(token, token, token, stage, layers, table, now.weight[anew])
