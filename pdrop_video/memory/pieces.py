"""What a layer lost at one time, as it was stored: in memory or in a file. Knows tables and parts of columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .form import Form
from .room import Parts
from .shelf import Filed
from .table import TokenTable


@dataclass(frozen=True, slots=True)
class Piece:
    """What one layer lost at one time, or what it is given back.

    Attributes
    ----------
    table : TokenTable
    keys, values : Tensor [kv_heads, tokens, head_dim]
        As they came.
    """

    table: TokenTable
    keys: Tensor
    values: Tensor
    form: ClassVar[None] = None

    @property
    def parts(self) -> Parts:
        """Keys and values as they are stored, each [kv_heads, tokens, width]."""
        return self.keys, self.values

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and table."""
        return _bytes_of(self)


@dataclass(frozen=True, slots=True)
class FormedPiece:
    """A `Piece` whose keys and values are stored by a form, as they were while the layer held them.

    Attributes
    ----------
    table : TokenTable
    parts : tuple of Tensor [kv_heads, tokens, width]
        Those of keys, then those of values.
    form : Form
    """

    table: TokenTable
    parts: Parts
    form: Form

    @property
    def keys(self) -> Tensor:
        """[kv_heads, tokens, head_dim], as they came."""
        return _keys(self.table, self.parts, self.form)

    @property
    def values(self) -> Tensor:
        """[kv_heads, tokens, head_dim]."""
        return _values(self.parts, self.form)

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and table, as they are stored."""
        return _bytes_of(self)


@dataclass(frozen=True, slots=True)
class FiledPiece:
    """A piece whose keys and values stand in a file, from which each use reads them."""

    table: TokenTable
    filed: tuple[Filed, ...]
    form: Form | None

    @property
    def parts(self) -> Parts:
        """Keys and values as they are stored, each [kv_heads, tokens, width]."""
        return tuple(part.read() for part in self.filed)

    @property
    def keys(self) -> Tensor:
        """[kv_heads, tokens, head_dim], as they came."""
        return _keys(self.table, tuple(part.read() for part in self.filed[: split_of(self.form)]), self.form)

    @property
    def values(self) -> Tensor:
        """[kv_heads, tokens, head_dim]."""
        nothing = self.filed[: split_of(self.form)]
        return _values((*nothing, *(part.read() for part in self.filed[len(nothing) :])), self.form)

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and table, as they are stored."""
        return sum(part.nbytes for part in self.filed) + sum(column.nbytes for column in self.table.columns())


AnyPiece = Piece | FormedPiece | FiledPiece


def piece_of(table: TokenTable, parts: Parts, form: Form | None) -> Piece | FormedPiece:
    """What a layer lost, as it is stored."""
    return Piece(table, *parts) if form is None else FormedPiece(table, parts, form)


def _bytes_of(piece: Piece | FormedPiece) -> int:
    return sum(tensor.nbytes for tensor in (*piece.parts, *piece.table.columns()))


def split_of(form: Form | None) -> int:
    """In how many tensors keys are stored."""
    return 1 if form is None else form.count


def _keys(table: TokenTable, parts: Parts, form: Form | None) -> Tensor:
    """Keys as they came, of parts that begin with theirs."""
    if form is None:
        return parts[0]
    return form.came(tuple(part[None].to(form.device) for part in parts[: form.count]), table.entered)[0]


def _values(parts: Any, form: Form | None) -> Tensor:
    """Values, of parts that end with theirs."""
    if form is None:
        return parts[1]
    return form.read_values(tuple(part[None].to(form.device) for part in parts[form.count :]))[0]
