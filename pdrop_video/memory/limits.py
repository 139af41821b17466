"""What the layers of a cache may hold. Knows numbers only."""

from __future__ import annotations

from dataclasses import dataclass

from .window import Window


@dataclass(frozen=True, slots=True)
class Tier:
    """What columns take in layers that leave the newest as the model makes them, and store those before in fewer bytes.

    Attributes
    ----------
    recent : tuple of int
        By layer, how many of the newest columns never settle.
    near, moved, far : tuple of int
        By layer, bytes of a column that has not settled, of one after positions were moved (its key is held twice), and
        of one that has.
    bytes : tuple of int or None
        Most bytes of each layer; None where columns are counted.
    """

    recent: tuple[int, ...]
    near: tuple[int, ...]
    moved: tuple[int, ...]
    far: tuple[int, ...]
    bytes: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What the layers of a cache may hold.

    Attributes
    ----------
    tokens : tuple of int or None
        Most columns of each layer; None for no limit. Layers whose window forgets by itself, and those that hold no
        columns, have one that they never reach.
    moved : tuple of int or None
        The same for a layer whose positions were moved, which holds its keys twice.
    window : Window or None
        Where positions must stay; None leaves them where they are.
    tier : Tier or None
        What columns take in two tiers; None where all are stored alike.
    """

    tokens: tuple[int, ...] | None = None
    moved: tuple[int, ...] | None = None
    window: Window | None = None
    tier: Tier | None = None

    @property
    def entering(self) -> tuple[int, ...] | None:
        """Most columns of each layer as they come, should everything else make way; after positions were moved."""
        if self.moved is None or self.tier is None or self.tier.bytes is None:
            return self.moved
        every = zip(self.moved, self.tier.bytes, self.tier.moved, strict=True)
        return tuple(min(most, given // column) if column else most for most, given, column in every)

    def recent(self, i: int, incoming: int, moved: bool) -> int:
        """How many of the newest columns of layer `i` need not settle when so many come."""
        assert self.tier is not None
        tier = self.tier
        if tier.bytes is None:
            return tier.recent[i]
        beside = tier.bytes[i] // (tier.moved if moved else tier.near)[i] - incoming
        return min(tier.recent[i], max(beside, 0) // 4)

    def staying(self, i: int, held: int, near: int, incoming: int, moved: bool) -> int:
        """How many of its columns layer `i` can keep when more come.

        Parameters
        ----------
        i : int
        held, near : int
            Columns that it holds, and those among them that have not settled.
        incoming : int
        moved : bool
            Whether its positions were moved.
        """
        limits = self.moved if moved else self.tokens
        if limits is None:
            return held
        keep = min(held, limits[i] - incoming)
        if self.tier is None or self.tier.bytes is None:
            return keep
        column = (self.tier.moved if moved else self.tier.near)[i]
        left = self.tier.bytes[i] - incoming * column
        if near * column > left:
            return min(keep, left // column)
        # within the bytes whichever go: none of them is smaller than one that has settled
        return min(keep, near + (left - near * column) // self.tier.far[i])
