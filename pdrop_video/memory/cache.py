"""The cache of a stream: one storage and one table per decoder layer, under one budget.

Knows layers, tables, positions and the budget. Refuses to know models, frames and questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache

from ..common.kinds import LayerKind
from ..errors import ConfigError
from .archive import Archive
from .evicting import chosen, merge, places
from .evictors import Evictor, Held, Merger
from .limits import Limits
from .pieces import FormedPiece, Piece, piece_of
from .settling import layers_of, settle
from .sliding import shared, slide
from .storages import STORAGES, Storage
from .table import TokenTable
from .tiered import TieredLayer
from .window import Ahead, Shift, Turn


class StreamCache(Cache):
    """Keys, values and metadata of every layer; layers may hold different tokens.

    Parameters
    ----------
    kinds : tuple of LayerKind
        Of the decoder's layers.
    limits : Limits
        What each may hold.
    evictor : Evictor
        Chooses what goes.
    archive : Archive, optional
        Where it goes; None forgets it.
    storage : Storage
        How keys and values are stored.
    latent : bool
        Whether layers hold latents.
    turn : Turn, optional
        Rotates keys, for a storage that leaves a recent window in the model's type.

    Attributes
    ----------
    tables : list of TokenTable
        Per layer, what its columns are. Layers that hold the same tokens share one table; that of a layer that holds
        no columns is empty.
    shifts : list of Shift
        Per layer, how far its positions stand behind the stream's.
    queries : dict of Tensor or None
        By layer, what the newest probe asked [heads, probes, head_dim], for evictors that look at it.
    """

    layers: list[Any]

    def __init__(
        self,
        kinds: tuple[LayerKind, ...],
        limits: Limits,
        evictor: Evictor,
        archive: Archive | None = None,
        storage: Storage = STORAGES["full"],
        latent: bool = False,
        turn: Turn | None = None,
    ) -> None:
        super().__init__(layers=layers_of(kinds, limits, storage, latent, turn))
        self.kinds, self.limits, self.evictor, self.archive, self.storage = kinds, limits, evictor, archive, storage
        self.latent = latent
        self.tables: list[TokenTable] = []
        self.shifts = [Shift()] * len(kinds)
        self.queries: dict[int, Tensor] | None = None

    # -- sharing ----------------------------------------------------------------------------------------------------

    def fork(self) -> StreamCache:
        """A cache that holds the same and can go its own way; nothing is copied until it must be."""
        twin = StreamCache(
            (), replace(self.limits, tokens=None, moved=None), self.evictor, self.archive, self.storage, self.latent
        )
        twin.kinds, twin.limits = self.kinds, self.limits
        twin.layers = [layer.fork() for layer in self.layers]
        twin.tables, twin.shifts, twin.queries = list(self.tables), list(self.shifts), self.queries
        return twin

    def release(self, origin: StreamCache) -> None:
        """End a fork of `origin`: the next append to `origin` need not copy."""
        for layer, parent in zip(self.layers, origin.layers, strict=True):
            layer.release(parent)
        origin.trim()
        self._release_tables(origin.tables)

    def trim(self) -> None:
        """Give back storage that was there for a question which is over, or for keys before they were held twice."""
        with suppress(MemoryError, RuntimeError):  # where there is no memory to move it to, it stays until next time
            for layer in self.layers:
                layer.trim()

    def _release_tables(self, before: list[TokenTable]) -> None:
        for table, origin in zip(self.tables, before, strict=True):
            table.release(origin)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing: an exception inside the block leaves the cache bit for bit as it was.

        Going back can't fail: it only writes what was set aside, into storage that is there. Ctrl-C meanwhile is of no
        account, since an exception is on its way already.
        """
        before = list(self.tables), list(self.shifts), self.queries, self.archive
        for layer in self.layers:
            layer.begin()
        try:
            yield
        except BaseException:
            while True:
                with suppress(KeyboardInterrupt):
                    for layer in self.layers:
                        layer.rollback()
                    self._release_tables(before[0])
                    self.tables, self.shifts, self.queries, self.archive = before
                    break
            raise
        for layer in self.layers:
            layer.commit()
        self.trim()

    # -- what is held -----------------------------------------------------------------------------------------------

    def lengths(self) -> list[int]:
        """Columns held by each layer, hidden ones included."""
        return [layer.length for layer in self.layers]

    @property
    def anchor(self) -> int:
        """The first layer that holds columns and forgets by the budget alone."""
        return next(i for i, kind in enumerate(self.kinds) if kind.ranks)

    @property
    def nbytes(self) -> int:
        """Bytes of all keys, values and states held."""
        return sum(layer.nbytes for layer in self.layers)

    def truncate(self, lengths: list[int]) -> None:
        """Forget each layer's newest columns down to `lengths`."""
        done: dict[Any, tuple[Tensor, Tensor]] = {}
        for layer, length, kind in zip(self.layers, lengths, self.kinds, strict=True):
            before = layer.positions if kind.window is not None else None
            layer.truncate(length)
            if before is not None:
                layer.positions = shared(done, before, layer.positions, length)

    def record(self, new: list[TokenTable]) -> None:
        """Note what was appended to each layer."""
        done: dict[tuple[int, int], tuple[TokenTable, ...]] = {}
        for i, (old, more) in enumerate(zip(self.tables, new, strict=True)):
            if not self.kinds[i].holds:
                continue
            key = (id(old), id(more))
            if key not in done:
                done[key] = old.append(more), old, more
            self.tables[i] = done[key][0]
        self.stand()

    def stand(self) -> None:
        """Tell layers in two tiers where their columns stand, as their tables have it."""
        same: dict[tuple[int, int], Tensor] = {}  # angles are made once for those that stand alike
        for layer, table in zip(self.layers, self.tables, strict=True):
            if isinstance(layer, TieredLayer):
                now = same.setdefault((id(table.now), layer.settled), table.now[: layer.settled])
                layer.stand(table.entered, now)

    def slide(self) -> None:
        """Let layers with a window forget what is not among so many newest columns, more than which no row can see."""
        slide(self.kinds, self.layers, self.tables)

    # -- making room ------------------------------------------------------------------------------------------------

    def make_room(self, incoming: list[int], ahead: Ahead) -> None:
        """Evict until every layer can take `incoming` more columns within its limit, and `ahead` within the window."""
        settle(self.kinds, self.layers, self.tables, self.limits, incoming, self.queries)
        self.stand()
        moves, window = self.leaving(ahead), self.limits.window
        if window is not None and window.always:  # gaps are closed as soon as something goes
            full = [self._staying(i, new, False) < len(self.tables[i]) for i, new in enumerate(incoming)]
            moves = [near or forgets for near, forgets in zip(moves, full, strict=True)]
        # first, since a layer that moves holds its keys twice from then on: less fits into its bytes
        self._evict(incoming, moves, ahead)
        self.fit(ahead, moves)

    def fit(self, ahead: Ahead, moves: list[bool] | None = None) -> None:
        """Move the positions of the layers in which `ahead` would leave the window, or of those said."""
        window = self.limits.window
        moves = self.leaving(ahead) if moves is None else moves
        if ahead.start is None:  # a video that starts now starts where text would
            self.shifts = [replace(shift, video=shift.text) for shift in self.shifts]
        done: dict[Any, Any] = {}
        for i, (table, shift) in enumerate(zip(self.tables, self.shifts, strict=True)):
            if window is None or not moves[i] or not self.kinds[i].holds:
                continue
            if not len(table):  # a window that nothing is left in
                self.shifts[i] = Shift(ahead.first, ahead.first)
                continue
            key = id(table), shift
            if key not in done:
                now, moved = window.squeeze(table, ahead)
                if self.limits.tokens is None and ahead.end - moved.text > window.limit:
                    # more is held than there are positions: to try again at every push would cost more and more
                    moved = replace(moved, reach=(ahead.end - moved.text) * 9 // 8)
                done[key] = replace(table, now=now), moved, now - table.entered, table
            closer, self.shifts[i], by, _ = done[key]
            if self.limits.tokens is None and replace(self.shifts[i], reach=shift.reach) == shift:
                continue  # no gap was left to close, and moved keys take more room
            self.tables[i] = closer
            self.layers[i].rotate(partial(window.turn, i), by)
        self.stand()

    def bring_back(self, i: int, found: Piece | FormedPiece, ahead: Ahead) -> None:
        """Let layer `i` hold what was archived of it, too, in front of what comes; for a fork, beyond the budget.

        Raises
        ------
        ConfigError
            If so much does not fit into the window of positions.
        """
        layer, window = self.layers[i], self.limits.window
        table = self.tables[i].append(found.table.to(self.tables[i].index.device))
        layer.update(found.keys[None].to(layer.device), found.values[None].to(layer.device))
        if window is not None and layer.moved:
            now, shift = window.squeeze(table, ahead)
            if ahead.end - shift.text > window.limit:
                raise ConfigError(
                    f"{len(found.table)} tokens brought back into layer {i} stretch its positions over "
                    f"{ahead.end - shift.text}, beyond the {window.limit} in the model's trained range; retrieve less."
                )
            layer.rotate(partial(window.turn, i), now - table.entered)
            table, self.shifts[i] = replace(table, now=now), shift
        self.tables[i] = table
        self.stand()

    def leaving(self, ahead: Ahead) -> list[bool]:
        """Which layers must move so that `ahead` stays within the window."""
        window = self.limits.window
        return [
            window is not None and kind.holds and ahead.end - shift.text > max(window.limit, shift.reach)
            for kind, shift in zip(self.kinds, self.shifts, strict=True)
        ]

    @property
    def stood(self) -> list[Shift]:
        """The shifts of the layers that have positions."""
        return [shift for kind, shift in zip(self.kinds, self.shifts, strict=True) if kind.holds]

    def widen(self, limit: int) -> None:
        """Let the window reach up to `limit`; for a fork."""
        if self.limits.window is not None:
            self.limits = replace(self.limits, window=replace(self.limits.window, limit=limit))

    def room(self, ahead: Ahead, limit: int | None = None) -> int:
        """How many positions below `limit`, or in the window, text at `ahead.next` finds once all gaps are closed."""
        window = self.limits.window
        assert window is not None
        window = replace(window, always=True)
        tables = {id(table): table for table in self.tables if len(table)}.values()
        taken = max(ahead.next - window.squeeze(table, ahead)[1].text for table in tables)
        return (window.limit if limit is None else limit) - taken

    def _staying(self, i: int, incoming: int, moves: bool) -> int:
        """How many of its columns layer `i` can keep when more come, and perhaps its positions move."""
        layer, held = self.layers[i], len(self.tables[i])
        return self.limits.staying(i, held, held - layer.settled, incoming, moves or layer.moved)

    def _evict(self, incoming: list[int], moves: list[bool], ahead: Ahead) -> None:
        done: dict[tuple[int, int, int, int], tuple[Any, ...]] = {}
        merger = self.evictor if isinstance(self.evictor, Merger) else None
        window = self.limits.window
        deeper: tuple[TokenTable, Tensor] | None = None
        lost: dict[int, Piece | FormedPiece] = {}
        for i in reversed(range(len(self.layers))):
            layer, table = self.layers[i], self.tables[i]
            if not self.kinds[i].ranks:
                continue
            keep = most = self._staying(i, incoming[i], moves[i])
            if window is not None and self.limits.tokens is not None and moves[i]:  # beside the positions of what comes
                most = min(keep, window.limit - (ahead.end - ahead.first))
            if keep == len(table) and (most == keep or places(table) <= most):
                continue
            key = (id(table), keep, most, layer.settled) if self.evictor.by_table else (id(table), -i - 1, 0, 0)
            if key not in done:
                query = None if self.queries is None or i not in self.queries else self.queries[i].to(layer.device)
                here = table.to(layer.device)
                if deeper is not None:
                    deeper = deeper[0].to(layer.device), deeper[1].to(layer.device)
                held = Held(layer.keys[0], layer.values[0], here, i, len(self.layers), query, deeper)
                priority, stay = chosen(self.evictor, held, keep, most)
                deeper = here, priority
                merged = None if merger is None else merger.merge(held, stay, priority)
                move = layer.arranged(stay)
                gone = None if self.archive is None else table.take(move.gone)
                done[key] = move, merge(layer, merged, table).take(move.order), gone, table
            move, self.tables[i], gone, _ = done[key]
            if gone is not None:
                lost[i] = piece_of(gone, *layer.came(move, gone.entered))
            layer.keep(move)
        if self.archive is not None and lost:
            self.archive = self.archive.add(lost)
