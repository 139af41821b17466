"""The quadtree of a grid: its regions, what they consist of, and which of them a picture is cut into.

Knows places. Refuses to know features: who cuts says which regions are of one piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True, eq=False)
class Quadtree:
    """Regions from the whole grid down to single cells, parents before their children.

    Attributes
    ----------
    levels : tuple of ndarray
        Numbers of the regions that are cut, by depth.
    children : ndarray [regions, 4], int64
        Numbers of the parts of each, row by row; the number of regions stands for none.
    cell : ndarray [regions], int64
        Place of a region of one cell, else -1.
    member : ndarray [regions, places], bool
        Which places each consists of.
    far : ndarray [regions, places], int64
        Four times the squared distance of a place from a region's centre.
    """

    levels: tuple[np.ndarray, ...]
    children: np.ndarray
    cell: np.ndarray
    member: np.ndarray
    far: np.ndarray

    def cut(self, whole: np.ndarray) -> np.ndarray:
        """Which regions remain [pictures, regions], from the top down: those of one piece whose parents are not.

        Parameters
        ----------
        whole : ndarray [pictures, regions], bool
            Of single cells it does not matter.
        """
        alive = np.zeros((len(whole), len(self.cell) + 1), bool)
        alive[:, 0] = True
        for level in self.levels:
            split = alive[:, level] & ~whole[:, level]
            alive[:, level] &= whole[:, level]
            alive[:, self.children[level]] = split[:, :, None]
        return alive[:, :-1]


@lru_cache(maxsize=16)
def quadtree(height: int, width: int) -> Quadtree:
    """Of a grid; the first half takes the odd row or column, a strip splits in two."""
    regions, level = [(0, height, 0, width)], [0]
    children: list[list[int]] = []
    levels: list[np.ndarray] = []
    while level:
        following, cut = [], []
        for number in level:
            top, bottom, left, right = regions[number]
            rows, columns = _halves(top, bottom), _halves(left, right)
            parts = [(*row, *column) for row in rows for column in columns]
            if len(parts) > 1:
                cut.append(number)
                children.append([len(regions) + i for i in range(len(parts))])
                following += children[-1]
                regions += parts
        levels += [np.array(cut)] if cut else []
        level = following
    table = np.full((len(regions), 4), len(regions))
    for number, own in zip((number for cut in levels for number in cut), children, strict=True):
        table[number, : len(own)] = own
    top, bottom, left, right = np.array(regions).T[..., None]
    row, column = np.divmod(np.arange(height * width), width)
    member = (row >= top) & (row < bottom) & (column >= left) & (column < right)
    far = (2 * row - top - bottom + 1) ** 2 + (2 * column - left - right + 1) ** 2
    cell = np.where(member.sum(1) == 1, member.argmax(1), -1)
    return Quadtree(tuple(levels), table, cell, member, far)


def _halves(begin: int, end: int) -> list[tuple[int, int]]:
    middle = begin + (end - begin + 1) // 2
    return [(begin, middle), (middle, end)] if middle < end else [(begin, end)]
