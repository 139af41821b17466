"""An archive as a few long tensors, for a file, and back. Knows blocks. Refuses to know files."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from .archive import Archive, Block, FiledPiece, Piece
from .table import TokenTable

Sizes = list[dict[str, tuple[int, int]]]
"""For each block and layer, how many tokens and steps."""


def pack(archive: Archive) -> tuple[dict[str, Tensor], Sizes]:
    """Copies of all that is archived, each layer's blocks end to end, and where one ends."""
    parts: dict[str, list[Tensor]] = {}
    sizes: Sizes = []
    for block in archive.blocks:
        sizes.append({})
        for i, piece in block.pieces.items():
            sizes[-1][str(i)] = len(piece.table), len(block.steps[i])
            named = {f"table.{f.name}": getattr(piece.table, f.name) for f in fields(TokenTable)}
            named |= {"keys": piece.keys.transpose(0, 1), "values": piece.values.transpose(0, 1)}
            named |= {"steps": block.steps[i], "sums": block.sums[i]}
            for name, tensor in named.items():
                parts.setdefault(f"archive.{i}.{name}", []).append(tensor)
    return {name: torch.cat(tensors) for name, tensors in parts.items()}, sizes


def unpack(empty: Archive, tensors: dict[str, Tensor], sizes: Sizes) -> Archive:
    """An archive that holds what was packed, in the storage of `empty`."""
    archive = empty
    begun: dict[str, list[int]] = {}
    for block in sizes:
        pieces: dict[int, Piece | FiledPiece] = {}
        steps: dict[int, Tensor] = {}
        sums: dict[int, Tensor] = {}
        for layer, (count, stepped) in block.items():
            token, step = begun.setdefault(layer, [0, 0])
            begun[layer] = [token + count, step + stepped]

            def part(name: str, first: int, length: int, layer: str = layer) -> Any:
                return tensors[f"archive.{layer}.{name}"][first : first + length]

            i = int(layer)
            table = TokenTable(*(part(f"table.{f.name}", token, count).clone() for f in fields(TokenTable)))
            keys, values = (part(name, token, count).transpose(0, 1) for name in ("keys", "values"))
            pieces[i] = Piece(table, keys, values)
            steps[i], sums[i] = (part(name, step, stepped).clone() for name in ("steps", "sums"))
        archive = archive.put(Block(pieces, steps, sums))
    return archive
