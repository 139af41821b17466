"""What a layer lost at one time, as it was stored: in memory or in a file. Knows tables and parts of columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

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
        return self.form.came(self._parts[0], self.table.entered)[0]

    @property
    def values(self) -> Tensor:
        """[kv_heads, tokens, head_dim]."""
        return self.form.read_values(self._parts[1])[0]

    @property
    def _parts(self) -> tuple[Parts, Parts]:
        of = [part[None].to(self.form.device) for part in self.parts]
        return tuple(of[: self.form.count]), tuple(of[self.form.count :])

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
        return piece_of(self.table, self.parts, self.form).keys

    @property
    def values(self) -> Tensor:
        """[kv_heads, tokens, head_dim]."""
        return piece_of(self.table, self.parts, self.form).values

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
