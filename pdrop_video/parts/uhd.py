"""LLaVA-UHD v4's compression inside the vision tower: behind some block every 2 x 2 patches become one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..common import checks
from .base import Part
from .towers import SERVED, Grid, LowRank, dense, few, linears, rope, sizes_of, theta_of, tower_of, turned

AREA = 4


class Compressor(nn.Module):
    """n rows to n / 4: attention in windows of 2 x 2, a norm over their 4 d numbers, an MLP 4 d -> d, a mean around it.

    Attention and norms are those of a frozen block, and the MLP begins as the mean of the four rows' own passes through
    that block's MLP: W1 = blockdiag(F1, F1, F1, F1), W2 = [F2 F2 F2 F2] / 4, bias unscaled. Of the matrices, which the
    paper trains whole, what is trained here is of low rank (ours): W1 + B1 A1 and so on.

    Parameters
    ----------
    attention, mlp : list
        `sizes_of` the block's attention and MLP, the MLP's last matrix at the end.
    width : int
    rank : int
    """

    def __init__(self, attention: list[list[Any]], mlp: list[list[Any]], width: int, rank: int) -> None:
        super().__init__()
        self.attention = LowRank(attention, rank)
        *first, (last, wide, narrow) = mlp
        self.first = LowRank([[name, AREA * into, AREA * out] for name, into, out in first], rank)
        self.last = LowRank([[last, AREA * wide, narrow]], rank)
        self.scale = nn.Parameter(torch.zeros(AREA * width))

    def forward(self, block: Any, rows: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """Rows [n / 4, width] from rows [n, width], of which every four are a window, at places with such angles."""
        heads = block.attn.num_heads
        with self.attention.on(block.attn):
            made = rearrange(
                block.attn.qkv(block.norm1(rows)), "(n a) (three h d) -> three n a h d", a=AREA, three=3, h=heads
            )
            cos, sin = (each.unflatten(0, (-1, AREA)) for each in angles)
            states = (turned(made[0], cos, sin), turned(made[1], cos, sin), made[2])
            query, key, value = (each.transpose(1, 2) for each in states)
            seen = F.scaled_dot_product_attention(query, key, value)
            rows = rows + block.attn.proj(rearrange(seen, "n h a d -> (n a) (h d)"))
        return rows.unflatten(0, (-1, AREA)).mean(dim=1) + self.merged(block, self.normed(block.norm2, rows))

    def normed(self, norm: Any, rows: Tensor) -> Tensor:
        """The four rows of each window normalised together [n / 4, 4, width], by the block's norm four times over."""
        four = rows.unflatten(0, (-1, AREA)).flatten(1)
        weight = norm.weight.repeat(AREA) + self.scale.to(norm.weight)
        if isinstance(norm, nn.LayerNorm):
            made = F.layer_norm(four, four.shape[1:], weight, norm.bias.repeat(AREA), norm.eps)
        else:
            wide = four.to(torch.promote_types(four.dtype, torch.float32))
            wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.variance_epsilon)
            made = weight * wide.to(four.dtype)
        return made.unflatten(1, (AREA, -1))

    def merged(self, block: Any, windows: Tensor) -> Tensor:
        """The MLP: rows [n, width] from windows [n, 4, width]."""
        *first, (_, last) = linears(block.mlp)
        flat = windows.flatten(1)
        wide = [
            matrix(windows) + self.first.added(number, flat).unflatten(-1, (AREA, -1)).to(windows)
            for number, (_, matrix) in enumerate(first)
        ]
        act = next(each for name, each in block.mlp.named_children() if name.startswith("act"))
        inner = act(wide[0]) * wide[1] if len(wide) == 2 else act(wide[0])
        made: Tensor = last(inner.mean(dim=1))
        return made + self.last.added(0, inner.flatten(1)).to(made)

    def flops(self, block: Any, rows: int) -> int:
        """For so many rows, a multiply-add as two."""
        *first, (_, last) = linears(block.mlp)
        attended = dense(block.attn) + 4 * AREA * block.attn.qkv.in_features
        each = attended + sum(2 * m.weight.numel() for _, m in first)
        windows = self.first.flops(1) + self.last.flops(1) + 2 * last.weight.numel()
        return rows * each + self.attention.flops(rows) + rows // AREA * windows


def usual_depth(blocks: int) -> int:
    """Blocks in front of the compressor: the paper's 6 of 27, but three, as earlier much is lost (docs/parts.md)."""
    return min(max(3, round(6 / 27 * blocks)), blocks - 1)


class UHDPart(Part):
    """Four times fewer rows from some block of the tower on, LLaVA-UHD v4, arXiv 2605.08985.

    Behind block `after` every 2 x 2 patches become one row (`Compressor`); the blocks behind it and the merger run on a
    quarter of the rows, and so does the language model. Where a grid has an odd side its last row or column counts
    twice in the last merge.

    The paper's towers are SigLIP's with RoPE nowhere, its parts are trained whole over 64 million samples, and it has
    images alone. Ours: a row stands at the mean of the places of its four patches; what is trained is of low rank, in
    the compressor, in the blocks behind it and in the merger, all of which begin as the model's own; the frozen
    language model is told that a token stands at the place of the last of those that it is made of.

    Parameters
    ----------
    width, hidden, heads : int
        Of the tower's rows, of the language model's, and the tower's attention heads.
    theta : float
        Base of the tower's RoPE.
    block, merger : list
        `sizes_of` a block and of the merger.
    depth, merge : int
        Blocks of the tower, and patches of a token along a side.
    after : int
        Blocks in front of the compressor.
    rank : int
        Of what is added to a matrix; the merger's has twice as much.
    """

    name: ClassVar[str] = "uhd"
    says: ClassVar[str] = "2 x 2 patches become one inside the vision tower, and what comes behind runs on a quarter"
    families: ClassVar[tuple[str, ...]] = SERVED
    paper: ClassVar[str] = "LLaVA-UHD v4, arXiv 2605.08985"

    def __init__(
        self,
        width: int,
        hidden: int,
        heads: int,
        theta: float,
        block: list[list[Any]],
        merger: list[list[Any]],
        depth: int,
        merge: int = 2,
        after: int = 3,
        rank: int = 8,
    ) -> None:
        super().__init__(
            **dict(width=width, hidden=hidden, heads=heads, theta=theta, block=block, merger=merger),
            **dict(depth=depth, merge=merge, after=after, rank=rank),
        )
        self.after = checks.whole("after", after, 1, depth - 1)
        self.heads, self.theta, self.merge = heads, theta, merge
        parts = {
            name: [[each.removeprefix(f"{name}."), *size] for each, *size in block if each.startswith(f"{name}.")]
            for name in ("attn", "mlp")
        }
        self.compressor = Compressor(parts["attn"], parts["mlp"], width, rank)
        self.blocks = nn.ModuleList(LowRank(block, rank) for _ in range(depth - after))
        self.merger = LowRank(merger, 2 * rank)
        self.tower: list[Any] = []  # in a list, so that it is no module of this one

    @classmethod
    def of(cls, model: Any, **shape: Any) -> UHDPart:
        """An untrained part for a model.

        Raises
        ------
        ConfigError
            If the model's tower is none that it knows (see `towers.tower_of`), or has no block number `after`.
        """
        tower = tower_of(model, cls.name)
        said = dict(
            width=tower.blocks[0].attn.qkv.in_features,
            hidden=model.config.get_text_config().hidden_size,
            heads=tower.blocks[0].attn.num_heads,
            theta=theta_of(tower),
            block=sizes_of(tower.blocks[0]),
            merger=sizes_of(tower.merger),
            depth=len(tower.blocks),
            merge=tower.spatial_merge_size,
        )
        said["after"] = usual_depth(said["depth"])
        part = cls(**said | shape)
        part.attach(model)
        return part

    def attach(self, model: Any) -> None:
        """Remember the tower that it reaches into; `ConfigError` if it is none that it knows."""
        self.tower = [tower_of(model, self.name)]

    def forward(self, values: Tensor, grid: Grid, told: Mapping[str, Tensor]) -> Tensor:
        """Tokens [t * ceil(h / 2) * ceil(w / 2), hidden] of pictures.

        Parameters
        ----------
        values : Tensor [patches, numbers]
            As the tower takes them.
        grid : (t, h, w)
            Of the visual tokens that it would give.
        told : mapping of Tensor
            What the tower works out of the grid: "position_ids" [patches, 2], "cu_seqlens" and, where some blocks
            attend within windows, "window_index" and "cu_window_seqlens"; see transformers.
        """
        tower, area = self.tower[0], self.merge**2
        rows, places = tower.patch_embed(values), told["position_ids"].float()
        order = told.get("window_index")
        if order is not None:
            rows, places = (each.unflatten(0, (-1, area))[order].flatten(0, 1) for each in (rows, places))
        ends = {False: told["cu_seqlens"], True: told.get("cu_window_seqlens")}
        whole = range(len(tower.blocks)) if order is None else tower.config.fullatt_block_indexes
        angles = self._angles(places)
        for number, block in enumerate(tower.blocks):
            if number == self.after:
                rows = self.compressor(tower.blocks[number - 1], rows, angles)
                angles = self._angles(places.unflatten(0, (-1, AREA)).mean(dim=1))
                ends = {kind: None if each is None else each // AREA for kind, each in ends.items()}
            with ExitStack() as copies:
                if number >= self.after:
                    copies.enter_context(few(self.blocks, number - self.after).on(block))
                rows = block(rows, cu_seqlens=ends[number not in whole], position_embeddings=angles)
        if order is not None:
            rows = rows[order.argsort()]
        with self.merger.on(tower.merger) as merger:
            made: Tensor = merger(_squares(rows, grid))
        return made

    def _angles(self, places: Tensor) -> tuple[Tensor, Tensor]:
        return rope(places, self.shape["width"] // self.heads, self.theta)

    def kept(self, grid: Grid) -> Tensor:
        """Numbers [t * ceil(h / 2) * ceil(w / 2)] of the visual tokens at whose places those of `forward` stand."""
        t, h, w = grid
        rows, columns = (((torch.arange(-(-side // 2)) * 2 + 1).clamp(max=side - 1)) for side in (h, w))
        each = (rows[:, None] * w + columns).flatten()
        return (torch.arange(t)[:, None] * h * w + each).flatten()

    def owned(self, grid: Grid) -> Tensor:
        """Of which visual tokens of a step each of the fewer is made [quarter, h * w], bool."""
        _, h, w = grid
        of = torch.arange(h)[:, None] // 2 * -(-w // 2) + torch.arange(w) // 2
        return of.flatten() == torch.arange(-(-h // 2) * -(-w // 2))[:, None]

    def flops(self, patches: int) -> int:
        """What the compressor and all that is of low rank cost for one step of so many patches; see `Tower.halved`."""
        tower, rows = self.tower[0], patches // AREA
        total = self.compressor.flops(tower.blocks[self.after - 1], patches)
        return (
            total
            + sum(few(self.blocks, i).flops(rows) for i in range(len(self.blocks)))
            + self.merger.flops(-(-rows // AREA))
        )


def _squares(rows: Tensor, grid: Grid) -> Tensor:
    """Rows of a grid, row by row, in squares of 2 x 2, these row by row; a last odd row or column counts twice."""
    t, h, w = grid
    picture = rows.view(t, h, w, -1)
    down, across = (torch.arange(side + side % 2, device=rows.device).clamp(max=side - 1) for side in (h, w))
    picture = picture[:, down][:, :, across]
    return rearrange(picture, "t (h m) (w n) d -> (t h w m n) d", m=2, n=2)
