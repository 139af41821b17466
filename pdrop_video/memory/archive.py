"""What was evicted, on the host or in mapped files, under a limit of its own, to be found again by a question.

Knows evicted tokens and how keys are rotated. Refuses to know which question is asked and what a frame shows.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..errors import StreamError
from .table import TokenTable
from .window import Turn


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


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What the layers lost at one time, on the host.

    Attributes
    ----------
    pieces : dict of Piece
        By layer.
    steps : dict of Tensor [steps], int64
        By layer, the steps of time that the tokens belong to.
    sums : dict of Tensor [steps, kv_heads * head_dim + 1], float32
        By layer, for each step the sum of its tokens' un-rotated keys, and how many they are.
    """

    pieces: dict[int, Piece]
    steps: dict[int, Tensor]
    sums: dict[int, Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values, tables and sums."""
        return sum(
            tensor.nbytes
            for i, piece in self.pieces.items()
            for tensor in (piece.keys, piece.values, self.steps[i], self.sums[i], *piece.table.columns())
        )


@dataclass(frozen=True, slots=True, eq=False)
class Archive:
    """All blocks, the oldest first. Never changes: adding to it makes another one, which shares the blocks.

    So forks share what is archived, a push that fails leaves the archive as it was, and a block's memory, or its file,
    goes with the last archive that holds it.

    Parameters
    ----------
    limit : int
        Most bytes. The oldest blocks are dropped for new ones.
    turn : Turn
        Rotates keys.
    folder : str, optional
        Where blocks are kept in memory-mapped files; None keeps them in memory.
    """

    limit: int
    turn: Turn
    folder: str | None = None
    blocks: tuple[Block, ...] = ()
    nbytes: int = 0

    def add(self, lost: dict[int, Piece]) -> Archive:
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
            total = bare.new_zeros(len(present), bare.shape[1] + 1, dtype=torch.float32)
            steps[i] = present.cpu()
            sums[i] = total.index_add_(0, number, F.pad(bare.float(), (0, 1), value=1.0)).cpu()
        return self.put(Block(lost, steps, sums))

    def put(self, block: Block) -> Archive:
        """An archive that holds a copy of a block, too."""
        size, blocks, held = block.nbytes, self.blocks, self.nbytes
        while blocks and held + size > self.limit:
            held, blocks = held - blocks[0].nbytes, blocks[1:]
        if size > self.limit:
            return replace(self, blocks=(), nbytes=0)
        return replace(self, blocks=(*blocks, self._stored(block)), nbytes=held + size)

    def recall(self, layer: int, query: Tensor, count: int) -> Piece | None:
        """What is archived of the `count` steps whose mean un-rotated key is most like a query (ReKV).

        Parameters
        ----------
        layer : int
        query : Tensor [heads, head_dim]
            Un-rotated, the mean over the question.
        count : int

        Returns
        -------
        Piece or None
            On the host, in the order of time; None if nothing of this layer is archived.
        """
        here = [block for block in self.blocks if layer in block.pieces]
        if not here:
            return None
        kv_heads = here[0].pieces[layer].keys.shape[0]
        # a key's head answers to a group of queries: the sum of their products is the product with their sum
        asked = rearrange(query, "(kv_heads group) dim -> kv_heads group dim", kv_heads=kv_heads).float().mean(1)
        entry_steps = torch.cat([block.steps[layer] for block in here])
        lengths = entry_steps.new_tensor([len(block.steps[layer]) for block in here])
        owner = torch.arange(len(here), device="cpu").repeat_interleave(lengths)
        steps, number = entry_steps.unique(return_inverse=True)
        entries = torch.cat([block.sums[layer] for block in here])
        sums = entries.new_zeros(len(steps), entries.shape[1]).index_add_(0, number, entries)
        likeness = F.cosine_similarity(sums[:, :-1] / sums[:, -1:], asked.flatten().cpu()[None])
        best = likeness.topk(min(count, len(steps))).indices
        wanted = steps[best]
        pieces = []
        for k in owner[torch.isin(number, best)].unique().tolist():
            piece = here[k].pieces[layer]
            rows = torch.isin(piece.table.step, wanted).nonzero()[:, 0]
            pieces.append(Piece(piece.table.take(rows), piece.keys[:, rows], piece.values[:, rows]))
        return _joined(pieces)

    def extent(self, layer: int) -> tuple[int, int, int]:
        """How many steps of time, visual tokens and tokens of text are archived of a layer."""
        here = [block for block in self.blocks if layer in block.pieces]
        steps = {step for block in here for step in block.steps[layer].tolist()}
        visual = sum(int(block.pieces[layer].table.visual.sum()) for block in here)
        return len(steps), visual, sum(len(block.pieces[layer].table) for block in here) - visual

    def _stored(self, block: Block) -> Block:
        """The block with its keys and values in this archive's storage and everything on the host."""
        parts = [part for piece in block.pieces.values() for part in (piece.keys, piece.values)]
        homes = iter(self._room(parts))
        pieces = {
            i: Piece(piece.table.to("cpu"), next(homes).copy_(piece.keys), next(homes).copy_(piece.values))
            for i, piece in block.pieces.items()
        }
        return Block(pieces, block.steps, block.sums)

    def _room(self, parts: list[Tensor]) -> Iterable[Tensor]:
        """Empty tensors on the host like `parts`, all of one type, in one storage."""
        count, dtype = sum(part.numel() for part in parts), parts[0].dtype
        storage = (
            torch.empty(count, dtype=dtype, device="cpu") if self.folder is None else _mapped(self.folder, count, dtype)
        )
        return [home.view(part.shape) for home, part in zip(storage.split([p.numel() for p in parts]), parts)]  # noqa: B905


def _mapped(folder: str, count: int, dtype: torch.dtype) -> Tensor:
    """An empty tensor [count] in a file without a name: gone when nobody holds the tensor, also after a crash."""
    size = count * dtype.itemsize
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="archive-", suffix=".kv") as file:
            if hasattr(os, "posix_fallocate"):  # a full disk must be an error here, not a fault when a page is touched
                os.posix_fallocate(file.fileno(), 0, size)
            return torch.from_file(file.name, shared=True, size=count, dtype=dtype, device="cpu")
    except OSError as error:
        raise StreamError(
            f"{size} bytes can't be archived in {folder!r}: {error}; choose a folder with more room, or a smaller "
            "archive. The stream is as it was before this push."
        ) from error


def _joined(pieces: list[Piece]) -> Piece:
    table = pieces[0].table
    for piece in pieces[1:]:
        table = table.append(piece.table)
    order = table.index.argsort()
    keys, values = (torch.cat([getattr(p, of) for p in pieces], 1)[:, order] for of in ("keys", "values"))
    return Piece(table.take(order), keys, values)
