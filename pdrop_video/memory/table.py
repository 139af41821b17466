"""What the tokens of a cache layer are: metadata kept apart from keys and values. Knows no model."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from functools import cache

import torch
from torch import Tensor

from ..common.ties import spread
from .modes import lasting


@cache
def time_dtype(device: torch.device) -> torch.dtype:
    """float64, in which all frames have times of their own, also in Unix time; float32 if a device has no float64."""
    try:
        return torch.zeros((), dtype=torch.float64, device=device).dtype
    except (TypeError, RuntimeError):  # MPS
        return torch.float32


@dataclass(slots=True, eq=False)
class _Home:
    """Storage of columns [capacity, ...] that several tables read; the first `used` rows are taken."""

    columns: list[Tensor]
    used: int

    @classmethod
    @lasting()  # whatever mode the caller is in: what grows is written to by others
    def of(cls, table: TokenTable, capacity: int) -> _Home:
        """A copy of a table, with room for more."""
        columns = [column.new_empty(capacity, *column.shape[1:]) for column in table.columns()]
        for mine, column in zip(columns, table.columns(), strict=True):
            mine[: len(table)] = column
        return cls(columns, len(table))

    @classmethod
    @lasting()
    def joined(cls, table: TokenTable, other: TokenTable) -> _Home:
        """A copy of two tables, one behind the other, with no room for more."""
        pairs = zip(table.columns(), other.columns(), strict=True)
        # text may come with one number for all axes
        return cls([torch.cat([a, b.expand(-1, *a.shape[1:])]) for a, b in pairs], len(table) + len(other))

    def upto(self, end: int) -> TokenTable:
        """The table of the first rows."""
        whole = end == len(self.columns[0])
        table = TokenTable(*(self.columns if whole else (column[:end] for column in self.columns)))
        object.__setattr__(table, "_home", self)
        return table


class _Housed:
    """What a table is beside its columns: where they stand, if it came out of `TokenTable.append`."""

    __slots__ = ("_home",)
    _home: _Home


@dataclass(frozen=True, slots=True)
class TokenTable(_Housed):
    """One row per held token, in the order of the cache's columns, which need not be that of time.

    Never changes. What was appended stands in a storage with room to grow: whoever ends where it is used up to appends
    in place, and the tables before go on reading their own rows; anybody else copies first.

    Attributes
    ----------
    index : Tensor [tokens], int64
        The token's number in the stream (text prefix first, then every token that came).
    seconds : Tensor [tokens], float64
        Time of its frame; nan for text. On a device without float64 (MPS) float32, counted from the stream's first
        frame: to 1/64 s for three days, 1/8 s for a month.
    until : Tensor [tokens], like `seconds`
        Up to when its frame showed what was to be seen: later than its time where a gate left out frames that show the
        same.
    chunk : Tensor [tokens], int64
        Which pushed chunk it came with; -1 for the prefix.
    step : Tensor [tokens], int64
        Its step of time in the stream, counted from 0; -1 for the prefix. Glue has that of its frame, a kept turn of
        question and answer one of its own.
    row, column : Tensor [tokens], int64
        Its place in the picture, in visual tokens; -1 for text and for sound. The n standby tokens of a step have the
        row that they are positioned at, and -2 to -1 - n as columns.
    score : Tensor [tokens], float32
        What it scored when it was last ranked; 0 if never.
    visual : Tensor [tokens], bool
        False for text; what was heard counts as what was seen.
    position : Tensor [tokens, axes], int64
        Its position in the stream: (t, h, w) for M-RoPE, one number otherwise. Never changes.
    entered, now : Tensor [tokens, axes], int64
        The positions that its key was rotated to when it came and is rotated to now. Both are `position` for as long as
        positions were not moved.
    """

    index: Tensor
    seconds: Tensor
    until: Tensor
    chunk: Tensor
    step: Tensor
    row: Tensor
    column: Tensor
    score: Tensor
    visual: Tensor
    position: Tensor
    entered: Tensor
    now: Tensor

    @classmethod
    def text(cls, index: Tensor, position: Tensor, now: Tensor, *, chunk: int = -1, step: int = -1) -> TokenTable:
        """Rows of text: the prefix, which is never evicted, or a turn.

        Parameters
        ----------
        index : Tensor [tokens]
        position, now : Tensor [tokens, axes]
        chunk, step : int
        """
        nowhere = torch.full_like(index, -1)
        nothing = torch.zeros_like(index, dtype=torch.float32)
        timeless = torch.full_like(index, torch.nan, dtype=time_dtype(index.device))
        return cls(
            index=index,
            seconds=timeless,
            until=timeless,
            chunk=torch.full_like(index, chunk),
            step=torch.full_like(index, step),
            row=nowhere,
            column=nowhere,
            score=nothing,
            visual=torch.zeros_like(index, dtype=torch.bool),
            position=position,
            entered=now,
            now=now,
        )

    def __len__(self) -> int:
        return self.index.shape[0]

    @property
    def pictured(self) -> Tensor:
        """What is of a picture [tokens], bool; standby tokens are."""
        return self.visual & (self.row >= 0)

    @property
    def standby(self) -> Tensor:
        """What stands for a whole step beside its own tokens [tokens], bool."""
        return self.pictured & (self.column < -1)

    @property
    def sound(self) -> Tensor:
        """What is of sound [tokens], bool."""
        return self.visual & (self.row < 0)

    def columns(self) -> list[Tensor]:
        """All of its columns."""
        return [getattr(self, name) for name in _columns()]

    def to(self, device: torch.device | str) -> TokenTable:
        """The same rows on a device; the table itself if it is there."""
        if self.index.device == torch.device(device):
            return self
        return TokenTable(*(column.to(device) for column in self.columns()))

    def take(self, index: Tensor) -> TokenTable:
        """The rows `index` [kept]."""
        index = index.to(self.index.device)  # what was decided by keys and values was decided on their device
        return TokenTable(*(column.index_select(0, index) for column in self.columns()))

    def append(self, other: TokenTable) -> TokenTable:
        """These rows, then those of `other`: in amortised constant time a row if it is done again and again."""
        start, end = len(self), len(self) + len(other)
        if getattr(self, "_home", None) is None:
            # a table that forgets all the while only ever grows once, and takes no more room than it has
            return _Home.joined(self, other).upto(end)
        home = self._home_for(end)
        for column, new in zip(home.columns, other.columns(), strict=True):
            column[start:end] = new
        home.used = end
        return home.upto(end)

    def _home_for(self, end: int) -> _Home:
        """Where these rows stand, and those up to `end` may."""
        home = self._home
        fits = home.used == len(self) and end <= len(home.columns[0])
        return home if fits else _Home.of(self, end + max(end // 2, 64))

    def release(self, origin: TokenTable) -> None:
        """Give the room behind `origin` back, of a table that grew from it and is done; otherwise nothing happens."""
        home: _Home | None = getattr(self, "_home", None)
        theirs: _Home | None = getattr(origin, "_home", None)
        if home is not None and home is theirs and home.used == len(self):
            home.used = len(origin)

    def lengthened(self, rows: Tensor, until: float) -> TokenTable:
        """The same rows, some of which [tokens], bool, last up to a moment.

        To go on with: one column is copied and the rest is shared, so that these rows here copy all before they grow.
        """
        column, home = self.until.masked_fill(rows, until), getattr(self, "_home", None)
        if home is None or home.used != len(self):
            return replace(self, until=column)
        place = _columns().index("until")
        room = torch.empty_like(home.columns[place])
        room[: len(self)] = column
        heir = _Home([*home.columns[:place], room, *home.columns[place + 1 :]], home.used)
        home.used = sys.maxsize  # nobody ends there: what stands behind these rows is the heir's
        return heir.upto(len(self))

    def spread(self) -> tuple[Tensor, Tensor]:
        """Keys [tokens] by which equals are compared, higher first: spread evenly over time and space, then the newer.

        Text has no place in a picture; what is equal otherwise is of one step.
        """
        return -spread(self.step, self.row, self.column), self.index

    def in_time(self) -> TokenTable:
        """The same rows in the order in which the tokens came."""
        return self.take(self.index.argsort())


@cache
def _columns() -> tuple[str, ...]:
    return tuple(field.name for field in fields(TokenTable))
