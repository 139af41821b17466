"""What the layers of a cache may hold. Knows numbers only."""

from __future__ import annotations

from dataclasses import dataclass

from .window import Window


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
    """

    tokens: tuple[int, ...] | None = None
    moved: tuple[int, ...] | None = None
    window: Window | None = None
