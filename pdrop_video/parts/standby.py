"""POINTS-Long's standby tokens: a few tokens a step that the vision tower learns to fill, beside its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .base import Part
from .towers import (
    SERVED,
    Grid,
    LowRank,
    Passed,
    dense,
    few,
    passing,
    rope,
    sizes_of,
    slots_of,
    theta_of,
    tower_of,
    turned,
)


class Temporal(nn.Module):
    """Attention of each standby row over itself and its like in the steps before, with 1-D RoPE.

    What it adds is zero at first. That a row asks those of its own slot alone is ours; the notes on the paper do not
    say.

    Parameters
    ----------
    width, inner, heads : int
        Of the rows, of queries, keys and values, and in how many heads these are.
    steps : int
        The step itself included.
    """

    def __init__(self, width: int, inner: int, heads: int, steps: int) -> None:
        super().__init__()
        self.inner, self.heads, self.steps = inner, heads, steps
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.proj = nn.Linear(inner, width, bias=False)
        nn.init.normal_(self.qkv.weight, std=width**-0.5)
        nn.init.zeros_(self.proj.weight)

    def forward(self, rows: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to rows, and what those behind them need.

        Parameters
        ----------
        rows : Tensor [steps, slots, width]
        past : Tensor [at most k - 1, slots, 2 * inner]
            Keys and values of the steps before, which were given back for them.
        """
        query, told = self.qkv(self.norm(rows)).split([self.inner, 2 * self.inner], dim=-1)
        every = torch.cat([past, told])
        at = torch.arange(len(past), len(every), device=rows.device)[:, None]
        window = at + torch.arange(1 - self.steps, 1, device=rows.device)  # [steps, k]
        each = rearrange(every[window.clamp(min=0)], "t k s (two h d) -> two t s k h d", two=2, h=self.heads)
        angle = _line(self.steps, each.shape[-1], rows)
        # turned by their places in the window: what counts is how far apart two steps are, wherever the stream is
        key = turned(each[0], *angle)
        query = turned(rearrange(query, "t s (h d) -> t s 1 h d", h=self.heads), *(of[-1:] for of in angle))
        weights = torch.einsum("tsqhd,tskhd->tshqk", query, key) * query.shape[-1] ** -0.5
        weights = weights.masked_fill((window < 0)[:, None, None, None], -torch.inf).softmax(dim=-1)
        seen = torch.einsum("tshqk,tskhd->tsqhd", weights, each[1]).flatten(2)
        return self.proj(seen), every[len(every) - min(self.steps - 1, len(every)) :]


def _line(steps: int, dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [steps, dim] of 1-D RoPE."""
    slow = torch.arange(0, dim, 2, device=like.device, dtype=like.dtype) / dim
    angles = torch.arange(steps, device=like.device, dtype=like.dtype)[:, None] * 100.0**-slow
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


class StandbyPart(Part):
    """n standby tokens a step, POINTS-Long, arXiv 2604.11627.

    Each is a square of rows that run beside the patches. In every block they attend to all patches of their step and to
    each other, at places that lie evenly over the picture in its 2-D RoPE; then they pass a copy of its MLP, and behind
    the last block a copy of the merger. In the last blocks they attend to the
    steps before as well (`Temporal`). Patches see patches only: they are computed first, by the tower as it is, so that
    the model's own tokens stay what they are to the last bit.

    The paper's tokens are learnt alone and its copies are whole. Ours: a standby row begins as the mean of the patches
    that lie around its place, with what is learnt added; copies, and there is one of a block's attention, too, for what
    standby rows ask and tell, are the frozen matrices with something of low rank added. So what is trained and stored
    is small, and training begins at pooled tokens, not at nothing.

    Parameters
    ----------
    width, hidden, heads : int
        Of the tower's rows, of the language model's, and the tower's attention heads.
    merge : int
        Patches of a token along a side.
    theta : float
        Base of the tower's RoPE.
    attention, mlp, merger : list
        `sizes_of` a block's attention, its MLP, and of the merger.
    depth : int
        Blocks of the tower.
    n : int
        Standby tokens a step.
    rank : int
        Of what is added to a matrix; to the merger's twice as much.
    k, late : int
        Steps of the temporal attention, the step's own included, and how many of the last blocks have one.
    """

    name: ClassVar[str] = "standby"
    says: ClassVar[str] = "a few tokens a step, filled by the vision tower, that stay when the step's own tokens go"
    families: ClassVar[tuple[str, ...]] = SERVED
    paper: ClassVar[str] = "POINTS-Long, arXiv 2604.11627"

    def __init__(
        self,
        width: int,
        hidden: int,
        heads: int,
        merge: int,
        theta: float,
        attention: list[list[Any]],
        mlp: list[list[Any]],
        merger: list[list[Any]],
        depth: int,
        n: int = 4,
        rank: int = 8,
        k: int = 8,
        late: int = 2,
    ) -> None:
        super().__init__(
            **dict(width=width, hidden=hidden, heads=heads, merge=merge, theta=theta, depth=depth),
            **dict(attention=attention, mlp=mlp, merger=merger, n=n, rank=rank, k=k, late=late),
        )
        self.n, self.k, self.heads, self.merge, self.theta = n, k, heads, merge, theta
        self.learnt = nn.Parameter(torch.zeros(n * merge**2, width))
        self.attentions = nn.ModuleList(LowRank(attention, rank) for _ in range(depth))
        self.mlps = nn.ModuleList(LowRank(mlp, rank) for _ in range(depth))
        self.merger = LowRank(merger, 2 * rank)
        inner = max(width // 2 // heads, 2) // 2 * 2 * heads
        self.temporal = nn.ModuleList(Temporal(width, inner, heads, k) for _ in range(min(late, depth)))
        self.tower: list[Any] = []  # in a list, so that it is no module of this one

    @classmethod
    def of(cls, model: Any, **shape: Any) -> StandbyPart:
        """An untrained part for a model.

        Raises
        ------
        ConfigError
            If the model's tower is none that it knows; see `towers.tower_of`.
        """
        tower = tower_of(model, cls.name)
        said = dict(
            width=tower.blocks[0].attn.qkv.in_features,
            hidden=model.config.get_text_config().hidden_size,
            heads=tower.blocks[0].attn.num_heads,
            merge=tower.spatial_merge_size,
            theta=theta_of(tower),
            attention=sizes_of(tower.blocks[0].attn),
            mlp=sizes_of(tower.blocks[0].mlp),
            merger=sizes_of(tower.merger),
            depth=len(tower.blocks),
        )
        part = cls(**said | shape)
        part.attach(model)
        return part

    def attach(self, model: Any) -> None:
        """Remember the tower that it reaches into; `ConfigError` if it is none that it knows."""
        self.tower = [tower_of(model, self.name)]

    def passing(self) -> Any:
        """While the tower looks: what it leaves for `forward`; see `towers.passing`."""
        return passing(self.tower[0])

    def places(self, grid: Grid, device: torch.device | str = "cpu") -> Tensor:
        """Where the rows of a step stand among its patches [n * merge * merge, 2]: evenly, square by square."""
        _, h, w = grid
        down, across = slots_of(self.n, h, w)
        axes = []
        for slots, tokens in ((down, h), (across, w)):
            count = slots * self.merge
            axes.append((torch.arange(count, device=device) + 0.5) * (tokens * self.merge / count) - 0.5)
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        return rearrange(places, "(r m) (c n) two -> (r c m n) two", m=self.merge, n=self.merge)

    def stands(self, grid: Grid) -> tuple[tuple[int, int], ...]:
        """At which visual token of a step each standby token stands, as (row, column): evenly, too."""
        _, h, w = grid
        down, across = slots_of(self.n, h, w)
        rows = [int((2 * i + 1) * h / (2 * down)) for i in range(down)]
        columns = [int((2 * i + 1) * w / (2 * across)) for i in range(across)]
        return tuple((row, column) for row in rows for column in columns)

    def owned(self, grid: Grid) -> Tensor:
        """For which visual tokens of a step each standby token stands [n, h * w]: its cell, or else its place."""
        _, h, w = grid
        down, across = slots_of(self.n, h, w)
        row, column = torch.meshgrid(torch.arange(h) * down // h, torch.arange(w) * across // w, indexing="ij")
        own = (row * across + column).flatten() == torch.arange(self.n)[:, None]
        place = torch.tensor([r * w + c for r, c in self.stands(grid)])
        return own | ((torch.arange(h * w) == place[:, None]) & ~own.any(1, keepdim=True))

    def begun(self, patches: Tensor, grid: Grid) -> Tensor:
        """Standby rows [t, n * merge * merge, width] before the first block, from patches [t * h * w * area, width]."""
        t, h, w = grid
        down, across = slots_of(self.n, h, w)
        m = self.merge
        picture = rearrange(patches, "(t h w m n) d -> t d (h m) (w n)", t=t, h=h, w=w, m=m, n=m)
        pooled = F.adaptive_avg_pool2d(picture, (down * m, across * m))
        rows = rearrange(pooled, "t d (r m) (c n) -> t (r c m n) d", m=m, n=m)
        return rows + self.learnt.to(rows)

    def forward(self, passed: Passed, grid: Grid, carried: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Standby tokens of what the tower has just looked at, and what the next steps need to know of these.

        Parameters
        ----------
        passed : Passed
        grid : (t, h, w)
            Of visual tokens.
        carried : mapping of Tensor [at most k - 1, n * merge * merge, width]
            What was given back for the steps before.

        Returns
        -------
        Tensor [t, n, hidden]
        dict of Tensor
        """
        tower = self.tower[0]
        t, rows = grid[0], self.begun(passed.patches, grid)
        head = rows.shape[-1] // self.heads
        assert passed.rope is not None
        seen = [rearrange(each, "(t p) d -> t p d", t=t) for each in passed.rope]
        own = rope(self.places(grid, rows.device), head, self.theta)
        first, keep = len(tower.blocks) - len(self.temporal), {}
        for number, block in enumerate(tower.blocks):
            theirs = rearrange(passed.qkv[number], "(t p) (three h d) -> three t p h d", t=t, three=3, h=self.heads)
            with few(self.attentions, number).on(block.attn):
                made = block.attn.qkv(block.norm1(rows))
                mine = rearrange(made, "t s (three h d) -> three t s h d", three=3, h=self.heads)
                keys = torch.cat([turned(theirs[1], *seen), turned(mine[1], *own)], dim=1)
                states = (turned(mine[0], *own), keys, torch.cat([theirs[2], mine[2]], dim=1))
                query, key, value = (each.transpose(1, 2) for each in states)
                told = F.scaled_dot_product_attention(query, key, value)
                rows = rows + block.attn.proj(rearrange(told, "t h s d -> t s (h d)"))
            if number >= first:
                rows, keep[f"block{number}"] = self._in_time(number - first, rows, carried.get(f"block{number}"))
            with few(self.mlps, number).on(block.mlp) as mlp:
                rows = rows + mlp(block.norm2(rows))
        with self.merger.on(tower.merger) as merger:
            tokens = merger(rows.flatten(0, 1))
        return tokens.view(t, self.n, -1), keep

    def _in_time(self, number: int, rows: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rows after temporal attention, and what it carries on."""
        attention, now = self._late[number], rows.to(self.learnt)
        past = now.new_zeros(0, now.shape[1], 2 * attention.inner) if past is None else past.to(now)
        added, kept = attention(now, past)
        return rows + added.to(rows), kept

    @property
    def _late(self) -> list[Temporal]:
        return [each for each in self.temporal if isinstance(each, Temporal)]

    @property
    def most_bytes(self) -> int:
        """Most bytes that are carried from chunk to chunk."""
        return sum(
            2 * each.inner * (each.steps - 1) * len(self.learnt) * self.learnt.element_size() for each in self._late
        )

    def flops(self, patches: int) -> int:
        """What one step of so many patches costs beside the tower, a multiply-add as two."""
        tower, rows, width = self.tower[0], len(self.learnt), self.learnt.shape[1]
        total = self.merger.flops(self.n) + self.n * dense(tower.merger)
        total += sum(few(own, i).flops(rows) for own in (self.attentions, self.mlps) for i in range(len(own)))
        for block in tower.blocks:
            total += rows * dense(block) + 4 * width * rows * (patches + rows)
        for each in self._late:
            total += rows * each.inner * (8 * width + 4 * each.steps)
        return total
