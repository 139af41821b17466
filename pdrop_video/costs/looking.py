"""What an answer that looks again multiplied: columns that its tokens saw, and what was scored to choose them.

How much that is depends on the answer: it is noted while the answer is written. Knows counts and sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .decoder import DecoderShape


@dataclass(slots=True)
class Scored:
    """What was scored in one layer; sums over tokens.

    Attributes
    ----------
    queries, keys : int
        Rows of which a query, and of which a key was made once more.
    read : int
        Columns whose keys were taken from the memory.
    pairs : int
        Pairs of queries and columns that were multiplied.
    """

    queries: int = 0
    keys: int = 0
    read: int = 0
    pairs: int = 0


@dataclass(slots=True)
class Looked:
    """What an answer's tokens looked at.

    Attributes
    ----------
    columns : dict of int to int
        By layer, how many columns of the memory they saw, summed over the tokens that went through it.
    scored : dict of int to Scored
        By layer, what was scored, for the question's last row, too.
    """

    columns: dict[int, int] = field(default_factory=dict)
    scored: dict[int, Scored] = field(default_factory=dict)

    def saw(self, layer: int, columns: int) -> None:
        """A token saw so many columns of the memory in a layer."""
        self.columns[layer] = self.columns.get(layer, 0) + columns

    def score(self, layer: int, *, queries: int = 0, keys: int = 0, read: int = 0, pairs: int = 0) -> None:
        """Something was scored, or read to be scored."""
        of = self.scored.setdefault(layer, Scored())
        of.queries, of.keys, of.read, of.pairs = of.queries + queries, of.keys + keys, of.read + read, of.pairs + pairs


def scored_flops(shape: DecoderShape, looked: Looked) -> int:
    """FLOPs of what was scored, a multiply-add as two.

    ``2 * (queries * asking + keys * (keying + unfolding) + read * unfolding + pairs * heads * key)``, summed over
    layers: as much as `ranking_flops` for one row that asks over all that a layer holds. The last two factors are those
    of `Attention`. What a storage multiplies to read columns comes on top (`StreamShape.reading`).

    Raises
    ------
    ModelError
        If the decoder's layers are not counted.
    """
    total = 0
    for layer, of in looked.scored.items():
        mixer = shape.attention(layer)
        making = of.queries * mixer.asking + of.keys * (mixer.keying + mixer.unfolding) + of.read * mixer.unfolding
        total += 2 * (making + of.pairs * mixer.heads * mixer.key)
    return total
