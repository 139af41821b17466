"""What was evicted, on the host or in a file, under a limit of its own, to be found again by a question.

Knows evicted tokens and how keys are rotated. Refuses to know which question is asked and what a frame shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..common.ties import settled, spread, working
from .evictors.base import lexicographic
from .pieces import AnyPiece, FiledPiece, FormedPiece, Piece, piece_of
from .shelf import Shelf
from .window import Turn

_GROUP = 256


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What the layers lost at one time, on the host.

    Attributes
    ----------
    pieces : mapping of pieces
        By layer.
    steps : dict of Tensor [steps], int64
        By layer, the steps of time that the tokens belong to.
    sums : dict of Tensor [steps, kv_heads * head_dim + 1], at least float32
        By layer, for each step the sum of its tokens' un-rotated keys, and how many they are.
    """

    pieces: Mapping[int, AnyPiece]
    steps: dict[int, Tensor]
    sums: dict[int, Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values, tables and sums."""
        return sum(piece.nbytes + self.steps[i].nbytes + self.sums[i].nbytes for i, piece in self.pieces.items())


@dataclass(frozen=True, slots=True, eq=False)
class Archive:
    """All blocks, the oldest first. Never changes: adding to it makes another one, which shares the blocks.

    So forks share what is archived, a push that fails leaves the archive as it was, and a block's memory, or its room
    in the file, is free again with the last archive that holds it. The file is as long as what was held at a time:
    `limit` and what the push that was running archived, for each fork that has gone its own way.

    Parameters
    ----------
    limit : int
        Most bytes. The oldest blocks are dropped for new ones.
    turn : Turn
        Rotates keys.
    folder : str, optional
        Where there is a file for the blocks' keys and values; None keeps them in memory.
    groups : tuple of tuple of Block
        The blocks, some hundreds together, so that adding one copies neither all of them nor a list of them.
    nbytes : int
        Of all of them.
    shelf : Shelf, optional
        That file, once there is something in it.
    """

    limit: int
    turn: Turn
    folder: str | None = None
    groups: tuple[tuple[Block, ...], ...] = ()
    nbytes: int = 0
    shelf: Shelf | None = None

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks, the oldest first."""
        return tuple(chain.from_iterable(self.groups))

    def add(self, lost: dict[int, Piece | FormedPiece]) -> Archive:
        """An archive that holds what the layers have just lost, too.

        Raises
        ------
        StreamError
            If the folder can't be written, or its disk is full.
        """
        steps, sums = {}, {}
        for i, piece in lost.items():
            bare = rearrange(self.turn(i, piece.keys, -piece.table.entered), "heads tokens dim -> tokens (heads dim)")
            present, number = piece.table.step.unique(return_inverse=True)
            counted = F.pad(working(bare), (0, 1), value=1.0)
            steps[i] = present.cpu()
            sums[i] = counted.new_zeros(len(present), counted.shape[1]).index_add_(0, number, counted).cpu()
        return self.put(Block(lost, steps, sums))

    def put(self, block: Block) -> Archive:
        """An archive that holds a copy of a block, too."""
        size, groups, held = block.nbytes, self.groups, self.nbytes
        while groups and held + size > self.limit:
            (oldest, *rest), *others = groups
            held, groups = held - oldest.nbytes, ((tuple(rest), *others) if rest else tuple(others))
        if size > self.limit:
            return replace(self, groups=(), nbytes=0)
        shelf = self.shelf if self.folder is None or self.shelf is not None else Shelf(self.folder)
        stored = _stored(block, shelf)
        begun = groups[-1] if groups and len(groups[-1]) < _GROUP else ()
        groups = (*groups[: len(groups) - bool(begun)], (*begun, stored))
        return replace(self, groups=groups, nbytes=held + size, shelf=shelf)

    def nearest(self, layer: int, query: Tensor, count: int) -> Tensor:
        """The steps whose mean un-rotated key is most like a query, the most alike first (ReKV); no key is read.

        Parameters
        ----------
        layer : int
        query : Tensor [heads, head_dim]
            Un-rotated, the mean over the question.
        count : int

        Returns
        -------
        Tensor [steps], int64
            So many at most, on the host.
        """
        here = [block for block in self.blocks if layer in block.pieces]
        if not here:
            return torch.empty(0, dtype=torch.int64, device="cpu")
        entries = torch.cat([block.sums[layer] for block in here])
        kv_heads = (entries.shape[1] - 1) // query.shape[-1]  # beside the sums stands what they are sums of
        # a key's head answers to a group of queries: the sum of their products is the product with their sum
        asked = rearrange(query, "(kv_heads group) dim -> kv_heads group dim", kv_heads=kv_heads)
        asked = working(asked).mean(1)
        steps, number = torch.cat([block.steps[layer] for block in here]).unique(return_inverse=True)
        nowhere = torch.zeros_like(steps)
        sums = entries.new_zeros(len(steps), entries.shape[1]).index_add_(0, number, entries)
        likeness = F.cosine_similarity(sums[:, :-1] / sums[:, -1:], asked.flatten()[None].to(sums))
        # what is off in the query is off for all steps alike: float32's grid serves every type
        rank = lexicographic(settled(likeness, torch.float32), -spread(steps, nowhere, nowhere))
        return steps[rank.argsort(descending=True)[:count]]

    def taken(self, layer: int, steps: Tensor) -> Piece | FormedPiece | None:
        """What is archived of a layer's `steps` [steps].

        As it is stored, on the host, in the order of time; None if nothing is.
        """
        here = [block for block in self.blocks if layer in block.pieces]
        if not here or not len(steps):
            return None
        entries = torch.cat([block.steps[layer] for block in here])
        lengths = entries.new_tensor([len(block.steps[layer]) for block in here])
        owner = torch.arange(len(here), device="cpu").repeat_interleave(lengths)
        pieces = []
        for k in owner[torch.isin(entries, steps)].unique().tolist():
            piece = here[k].pieces[layer]
            rows = torch.isin(piece.table.step, steps).nonzero()[:, 0]
            pieces.append(piece_of(piece.table.take(rows), tuple(part[:, rows] for part in piece.parts), piece.form))
        return _joined(pieces)

    def extent(self, layer: int) -> tuple[int, int, int]:
        """How many steps of time, visual tokens and tokens of text are archived of a layer."""
        here = [block for block in self.blocks if layer in block.pieces]
        steps = {step for block in here for step in block.steps[layer].tolist()}
        visual = sum(int(block.pieces[layer].table.visual.sum()) for block in here)
        return len(steps), visual, sum(len(block.pieces[layer].table) for block in here) - visual


def _stored(block: Block, shelf: Shelf | None) -> Block:
    """The block with its keys and values in a file, or in one piece of memory, and everything on the host."""
    stored = {i: (piece.table.to("cpu"), piece.parts, piece.form) for i, piece in block.pieces.items()}
    flat = [part for _, parts, _ in stored.values() for part in parts]
    pieces: dict[int, AnyPiece] = {}
    if shelf is not None:
        filed = iter(shelf.put(flat))
        pieces |= {i: FiledPiece(table, tuple(islice(filed, len(of))), form) for i, (table, of, form) in stored.items()}
    else:
        copies = _copies(flat)
        pieces |= {i: piece_of(table, tuple(islice(copies, len(of))), form) for i, (table, of, form) in stored.items()}
    return Block(pieces, block.steps, block.sums)


def _copies(parts: list[Tensor]) -> Iterator[Tensor]:
    """Copies on the host, those of one type in one piece of memory."""
    homes: dict[torch.dtype, Iterator[Tensor]] = {}
    for dtype in {part.dtype for part in parts}:
        count = [part.numel() for part in parts if part.dtype == dtype]
        homes[dtype] = iter(torch.empty(sum(count), dtype=dtype, device="cpu").split(count))
    return (next(homes[part.dtype]).view(part.shape).copy_(part) for part in parts)


def _joined(pieces: list[Piece | FormedPiece]) -> Piece | FormedPiece:
    table = pieces[0].table
    for piece in pieces[1:]:
        table = table.append(piece.table)
    order = table.index.argsort()
    parts = tuple(torch.cat(each, 1)[:, order] for each in zip(*(piece.parts for piece in pieces), strict=True))
    return piece_of(table.take(order), parts, pieces[0].form)
