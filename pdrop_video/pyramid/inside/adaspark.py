"""AdaSpark: of each cube of video only the strongest tokens get an FFN, and rows attend to few cubes (2604.08077)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...common.checks import choice, share, whole
from ...common.ties import exactly
from ...registry import Facts
from .base import largest, largest_of_each


@dataclass(frozen=True, slots=True)
class AdaSpark:
    """All tokens stay, and layers compute less: the FFN of some, and attention to some (arXiv 2604.08077).

    A video's tokens stand in cubes of `height` x `width` x `steps`, in order of time.

    FFN half: of each cube the smallest set of tokens with the largest norms whose sum reaches `p` of all is active.
    ``y = x + FFN(x)`` for these, and ``y = x + mean of FFN(x) over the active ones`` for the others of the cube. It is
    computed exactly, and only what is active is multiplied. Text rows always get an FFN of their own.

    Attention half: a row gives each cube whose columns it may see the share softmax(q . mean key / sqrt(d)); it attends
    to the smallest set of largest shares that reaches `p`, to its own cube, and to text, as far as it may see them.
    It is a mask: what is left out is left out exactly, but takes no less time without kernels for it, and the mask
    takes a byte for each head, row and column. No state is carried: mean keys and counts are made anew of what a layer
    holds, as it stands then; what was forgotten or is hidden is no part of them.

    The paper fine-tunes its model for this. **Used untrained, as here, it is unproven**: measure before you rely on it.

    There is no released code. Ours, since notes on the paper do not say it: `p` and the sizes of cubes; norms are those
    of the residual stream, divided by their sum; the same for all layers; shares for each row and kv head, the mean
    over the query heads that share it; the family's own scaling of products in place of 1 / sqrt(d); mean keys with
    RoPE, of those columns of a cube that the layer holds or that come with the row, so that a key behind a row may
    weigh in the choice of a cube, never in what is attended to; text rows choose among cubes by the same rule; cubes of
    the row's own time compete as well as earlier ones, so that p = 1 is the model itself; layers with a window or a
    state keep their attention whole; ties.

    Cubes follow from a token's own step, row and column. With ``steps=1`` no border of a chunk changes anything. With
    more, what a chunk's border (or a piece's, under a small budget) cuts is two cubes to the FFN half, and the first
    part's rows see no mean keys of the second: push multiples of `steps` steps. In a storage of fewer
    bits the mean keys of rows in flight are those from before they are stored, and a border may matter a little.

    The FFN half runs shadows of the model's layers, which share their weights: hooks that somebody has hung on layers
    do not run in such a stream.

    Parameters
    ----------
    p : float
        Share of norms, and of attention between cubes, in (0, 1]; 1 is the model itself.
    height, width, steps : int
        Of a cube, in visual tokens and steps of time.
    half : {"both", "ffn", "attention"}
        Which of the two to use.

    Raises
    ------
    ConfigError
        If a number or a word is none of these.
    """

    facts: ClassVar[Facts] = Facts(
        says="all tokens; of each block only the strongest get an FFN, and attention goes to few (unproven untrained)",
        paper="AdaSpark, arXiv 2604.08077",
        formula=(
            "FFN: y = x + FFN(x) for a cube's active tokens, y = x + (mean of FFN over the active ones) for its\n"
            "    others\n"
            "active: the fewest tokens of largest |x| whose sum reaches the share p of the cube's\n"
            "attention: only to the fewest cubes whose softmax(q . mean key) reaches p, to the own cube, and to\n"
            "    text"
        ),
        ours=True,
    )
    p: float = 0.9
    height: int = 4
    width: int = 4
    steps: int = 1
    half: Literal["both", "ffn", "attention"] = "both"

    def __post_init__(self) -> None:
        """Check them."""
        object.__setattr__(self, "p", share("p", self.p))
        for name in ("height", "width", "steps"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 1, 2**20))
        choice("half", self.half, ("both", "ffn", "attention"))

    @property
    def ffn(self) -> bool:
        """Whether rows of FFNs are left out."""
        return self.half != "attention" and self.p < 1

    @property
    def attention(self) -> bool:
        """Whether columns of attention are."""
        return self.half != "ffn" and self.p < 1

    def cube(self, step: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Whole cubes, counted from the stream's first step and the picture's corner."""
        return step // self.steps, row // self.height, column // self.width

    @torch.no_grad()
    def __call__(self, hidden: Tensor, cube: Tensor, turn: Tensor) -> Tensor:
        """The smallest sets of largest norms whose sum reaches `p` of their cube's."""
        norm, at = exactly(hidden).norm(dim=-1), cube + 1  # text is gathered at 0
        total = norm.new_zeros(len(norm) + 1).index_add(0, at, norm)[at]
        return largest_of_each(norm / total.masked_fill(total == 0, 1), at, self.p, turn, hidden.dtype)

    @torch.no_grad()
    def attends(self, query: Tensor, mean: Tensor, competes: Tensor, turn: Tensor, dtype: torch.dtype) -> Tensor:
        """Top-p of the softmax over the mean keys of the cubes that compete."""
        product = (query @ mean[:, None].mT).masked_fill(~competes, -torch.inf)
        shares = product.softmax(-1).nan_to_num(0).mean(1)  # of a row that no cube competes for all are nan
        return largest(shares, self.p, turn, dtype) & competes
