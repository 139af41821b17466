"""An archive as a few long tensors, for a file, and back. Knows blocks. Refuses to know files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from .archive import Archive, Block
from .form import Form
from .pieces import AnyPiece, piece_of, split_of
from .table import TokenTable

Sizes = list[dict[str, tuple[int, int]]]
"""For each block and layer, how many tokens and steps."""


_MOST_PARTS = 16


def _name(of: str, number: int) -> str:
    return f"{of}.{number}" if number else of


def pack(archive: Archive) -> tuple[dict[str, Tensor], Sizes]:
    """Copies of all that is archived, each layer's blocks end to end, and where one ends."""
    parts: dict[str, list[Tensor]] = {}
    sizes: Sizes = []
    for block in archive.blocks:
        sizes.append({})
        for i, piece in block.pieces.items():
            sizes[-1][str(i)] = len(piece.table), len(block.steps[i])
            named = {f"table.{f.name}": getattr(piece.table, f.name) for f in fields(TokenTable)}
            split = split_of(piece.form)
            for n, part in enumerate(piece.parts):
                named[_name("keys", n) if n < split else _name("values", n - split)] = part.transpose(0, 1)
            named |= {"steps": block.steps[i], "sums": block.sums[i]}
            for name, tensor in named.items():
                parts.setdefault(f"archive.{i}.{name}", []).append(tensor)
    return {name: torch.cat(tensors) for name, tensors in parts.items()}, sizes


def unpack(
    empty: Archive, tensors: dict[str, Tensor], sizes: Sizes, forms: Mapping[int, Form | None] | None = None
) -> Archive:
    """An archive that holds what was packed, where `empty` keeps it.

    Parameters
    ----------
    empty : Archive
    tensors : dict of Tensor
    sizes : list
    forms : mapping of Form or None, optional
        By layer, how it stores what it archives.
    """
    archive = empty
    begun: dict[str, list[int]] = {}
    for block in sizes:
        pieces: dict[int, AnyPiece] = {}
        steps: dict[int, Tensor] = {}
        sums: dict[int, Tensor] = {}
        for layer, (count, stepped) in block.items():
            token, step = begun.setdefault(layer, [0, 0])
            begun[layer] = [token + count, step + stepped]

            def part(name: str, first: int, length: int, layer: str = layer) -> Any:
                return tensors[f"archive.{layer}.{name}"][first : first + length]

            i = int(layer)
            table = TokenTable(*(part(f"table.{f.name}", token, count).clone() for f in fields(TokenTable)))
            names = [f"archive.{layer}.{_name(of, n)}" for of in ("keys", "values") for n in range(_MOST_PARTS)]
            there = [name.removeprefix(f"archive.{layer}.") for name in names if name in tensors]
            stored = tuple(part(name, token, count).transpose(0, 1) for name in there)
            pieces[i] = piece_of(table, stored, (forms or {}).get(i))
            steps[i], sums[i] = (part(name, step, stepped).clone() for name in ("steps", "sums"))
        archive = archive.put(Block(pieces, steps, sums))
    return archive
