"""What layers computed under a method inside them, and what they would have without. Knows counts only."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(slots=True)
class LayerSpent:
    """Of one layer; sums over runs.

    Attributes
    ----------
    rows, active : int or Tensor
        Rows that reached its FFN with video among them, and those that got one of their own.
    seen, attended : int or Tensor
        Pairs of rows and columns that its mask lets through, and of those what was attended to, a mean over kv heads.
    chose, past : int
        Rows whose queries and keys were made to choose cubes, and columns that were remembered then.
    choices : int
        Pairs of rows and cubes that were compared.
    """

    rows: int = 0
    active: int | Tensor = 0
    seen: int | Tensor = 0
    attended: float | Tensor = 0
    chose: int = 0
    past: int = 0
    choices: int = 0


@dataclass(slots=True)
class Spent:
    """What was counted, by layer; on the device until somebody looks.

    Attributes
    ----------
    layers : dict of int to LayerSpent
    """

    layers: dict[int, LayerSpent] = field(default_factory=dict)

    def rows(self, layer: int, rows: int, active: Tensor) -> None:
        """Some rows of an FFN, of which `active` [rows] got one of their own."""
        spent = self.layers.setdefault(layer, LayerSpent())
        spent.rows, spent.active = spent.rows + rows, spent.active + active.sum()

    def columns(self, layer: int, sees: Tensor, stays: Tensor, cubes: int) -> None:
        """Columns that rows see [rows, columns], and that they attend to [kv_heads, rows, columns]."""
        spent = self.layers.setdefault(layer, LayerSpent())
        spent.seen, spent.attended = spent.seen + sees.sum(), spent.attended + stays.sum() / len(stays)
        spent.choices, spent.chose = spent.choices + len(sees) * cubes, spent.chose + len(sees)
        spent.past += sees.shape[1] - len(sees)
