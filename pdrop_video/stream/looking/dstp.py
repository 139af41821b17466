"""DSTP: when attention leaves what the question kept, look at everything once, and for a while at what that finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...common.checks import real, switch, whole
from ...common.kinds import LayerKind
from ...common.ties import settled, unlike
from ...memory import StreamCache, TokenTable
from ...registry import Facts
from .base import Glance, Row, narrow


@dataclass(frozen=True, slots=True)
class Dstp:
    """Columns that a question's pyramid hid come back for some tokens when the answer's attention shifts (DSTP).

    The kept set I are the visual columns that the question left in a layer, the reserve is the rest of the layer's
    memory; nothing is replayed, since the memory holds it. The anchor a0 is what the question's last row attends to
    among I, by softmax over I alone. A token's a is made alike. Where cos(a0, a) falls below `tau`, all columns of each
    layer are scored once, and the best as many as I hold are seen beside I for the next `steps` tokens. Then I alone is
    seen again; meanwhile nothing is checked.

    Arithmetic and constants as two readings of the paper quote them (equations 1 to 7); it has released no code. Ours,
    since they do not say it: a is the mean over heads, in the first layer of the deepest stage that hides anything; the
    other stages, and layers that hold other columns, score theirs by the same token's own query; a swap is not checked
    until it ends; text is always seen, that of an archived step once a token of the step is; cosines are compared after
    rounding to what the type can tell apart. Where a question leaves no visual column, nothing ever shifts; where it
    leaves one, neither, since all cosines are 1.

    Parameters
    ----------
    tau : float
        From 0, where nothing shifts, to 1.
    steps : int
        Tokens for which a shift lasts.
    joint : bool
        Score all columns by one softmax. False makes one of the kept and one of the reserve and compares their weights,
        as equation 6 reads literally.
    reserve : int
        Archived steps of time that each layer gets back hidden, beside what the question retrieves: the next most like
        it. For streams with an archive.

    Raises
    ------
    ConfigError
        If a parameter is out of bounds.

    References
    ----------
    DSTP, arXiv 2604.12358.
    """

    facts: ClassVar[Facts] = Facts(
        says="what the question left visible, and for 20 tokens what it hid, once attention moves away",
        paper="DSTP, arXiv 2604.12358",
        formula=(
            "a0 = attention of the question's last row over the visible visual tokens, a = the same of an\n"
            "    answer's token\n"
            "where cos(a0, a) < tau, as many hidden tokens as are visible, those of highest attention, are seen\n"
            "    for the next `steps` tokens"
        ),
        needs_question=True,
        ours=True,
    )
    uses_hidden: ClassVar[bool] = True
    tau: float = 0.75
    steps: int = 20
    joint: bool = True
    reserve: int = 0

    def __post_init__(self) -> None:
        """Check the parameters."""
        object.__setattr__(self, "tau", real("tau", self.tau, 0, 1))
        object.__setattr__(self, "steps", whole("steps", self.steps))
        switch("joint", self.joint)
        object.__setattr__(self, "reserve", whole("reserve", self.reserve, 0))

    def __call__(self, cache: StreamCache) -> Shifting:
        """For one answer."""
        return Shifting(self, cache)

    def check(self, kinds: Sequence[LayerKind]) -> None:
        """Every kind will do: some layer attends to all, and the others are left to themselves."""

    def shifted(self, likeness: Tensor, dtype: torch.dtype) -> Tensor:
        """Whether a cosine, of states of a type, is below the threshold."""
        most = settled(torch.full_like(likeness, 1 - self.tau), dtype)
        return settled(unlike(likeness, dtype), dtype) > most

    def scores(self, row: Row, keys: Tensor, kept: Tensor, visual: Tensor) -> Tensor:
        """What a token attends to among all visual columns [columns].

        Parameters
        ----------
        row : Row
        keys : Tensor [1, kv_heads, columns, head_dim]
        kept, visual : Tensor [columns], bool
        """
        if self.joint:
            return row.attends_to(keys, visual)
        return row.attends_to(keys, visual & kept) + row.attends_to(keys, visual & ~kept)


@dataclass(slots=True, eq=False)
class _Group:
    """Layers of a stage that hold the same columns: what the question left in them, and the newest token's row."""

    stage: int
    table: TokenTable
    kept: Tensor
    layers: list[int] = field(default_factory=list)
    row: Row | None = None

    @property
    def visual(self) -> Tensor:
        """Which of what is kept is visual [kept], bool."""
        return self.table.visual[self.kept]


class Shifting:
    """What one answer looks at. All of it is lost with the answer: the kept set, the anchor and the countdown."""

    def __init__(self, method: Dstp, cache: StreamCache) -> None:
        self.method, self.cache = method, cache
        self._groups: dict[tuple[int, int], _Group] = {}
        self._first: dict[int, _Group] = {}
        self._at = -1
        self._anchor: Tensor | None = None
        self._likeness: Tensor | None = None
        self._token = self._left = 0

    def asked(self, row: Row, stage: int, stay: Tensor | None) -> None:
        """Note what is kept, and the anchor."""
        if stay is None:
            return
        table = self.cache.tables[row.layer]
        key = id(table), stage
        if key not in self._groups:
            group = _Group(stage, table, stay)
            visual, kept = int(table.visual.sum()), int(group.visual.sum())
            if not 0 < kept < visual:
                return
            self._groups[key] = self._first[row.layer] = group
            if self._at < 0 or stage > self._first[self._at].stage:
                self._at, self._anchor = row.layer, self._attention(row, group)
        self._groups[key].layers.append(row.layer)

    def before(self, row: Row) -> None:
        """Note the token's row where columns may be scored, and compare its attention where it is watched."""
        group = self._first.get(row.layer)
        if group is None or self._left:
            return
        group.row = row
        if row.layer == self._at:
            assert self._anchor is not None
            self._likeness = F.cosine_similarity(self._anchor, self._attention(row, group), dim=0)

    def after(self) -> list[Glance]:
        """Show more, or the kept set again; the host waits for the cosine here, as it does for the token anyway."""
        token, self._token = self._token, self._token + 1
        if self._left:
            self._left -= 1
            if not self._left:
                for group in self._groups.values():
                    self._show(group, group.kept)
            return []
        first = self._first.get(self._at)
        if first is None or first.row is None or self._likeness is None:
            return []
        if not bool(self.method.shifted(self._likeness, first.row.hidden.dtype)):
            return []
        self._left = self.method.steps
        return [self._again(group, token) for group in self._groups.values()]

    def _attention(self, row: Row, group: _Group) -> Tensor:
        """What a row attends to among the kept visual columns [kept]."""
        keys = row.seen(self.cache)
        assert keys is not None
        return row.attends_to(keys[..., : len(group.kept), :], group.visual)

    def _again(self, group: _Group, token: int) -> Glance:
        """Score all columns of a group, and show the best beside those that are kept."""
        table, kept, row = group.table, group.kept, group.row
        assert row is not None
        keys = row.held(self.cache)
        assert keys is not None
        keys = keys[..., : len(table), :]
        stays = torch.zeros_like(table.visual).index_fill(0, kept, True)
        weight = self.method.scores(row, keys, stays, table.visual)
        gone = table.visual.sum() - group.visual.sum()
        best = narrow(weight, table, int(gone), row.hidden.dtype)
        chosen = torch.zeros_like(stays).index_fill(0, best, True) & table.visual
        beside = torch.isin(table.step, table.step[chosen]) & (table.step >= 0) & ~table.visual
        seen = stays | chosen | beside
        self._show(group, seen.nonzero()[:, 0])
        anew = (seen & ~stays & table.visual).nonzero()[:, 0]
        anew = anew[table.index[anew].argsort()]
        last, layers = token + self.method.steps, tuple(group.layers)
        return Glance(token, token + 1, last, group.stage, layers, table.take(anew), weight[anew])

    def _show(self, group: _Group, columns: Tensor) -> None:
        for layer in group.layers:
            self.cache.layers[layer].show(columns, since=len(group.table))
