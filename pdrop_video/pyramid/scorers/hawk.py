"""HAWK: raw products of the question's queries and the tokens' keys, without positions, head by head weighted."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from einops import rearrange
from torch import Tensor

from ...common.checks import choice, real, several, shown
from ...common.kinds import LayerKind
from ...common.taking import rows_at
from ...common.ties import even_grid, working
from ...errors import ConfigError
from ...registry import Facts
from ..heads import attention_of, normed, per_head, query_heads
from .asked import Remembered
from .base import Ranking, RankingSize, normalised

_ENDING = ".json"


@dataclass(frozen=True, slots=True)
class Hawk:
    """What the question's rows and a visual token have in common before any layer ran (HAWK, arXiv 2604.07812).

    For a boundary at 0: ``Pyramid(layers=(0,), ratios=(0.2,), scorer="hawk")``. The embeddings go through layer 0's own
    norm and projections, biases included. No RoPE turns them and no softmax compares them: of head h and token v,
    c[h, v] is the mean over the rows that ask of q . k. Each head's c is brought to one scale over the visual tokens,
    and the score is the sum of them by the heads' weights. Later boundaries drop by the same scores.

    The formulas are those of the released code, with its options. It has weights for Qwen2.5-VL-7B alone; the paper
    finds them by how far accuracies fall on six benchmarks with a head switched off (`pdrop_video.search.heads`).

    Ours: without weights all heads count alike. ``pdrop-video calibrate hawk`` finds them without labels. Rows of the
    template behind the question ask as well, and without a question those alone (the release leaves them out). The
    budget is int(tokens * ratio), where the release rounds up. Norms of queries and keys belong to the projections in
    families that have them, and the layer's own factor stands in place of 1 / sqrt(d). At another first boundary the
    layer behind it ranks; weights are of layer 0 alone and refused there. Asked with a question's pyramid, what is
    remembered is ranked by its un-rotated keys, so that it does not matter when a token came, and the layers that hide
    something follow the first of them.

    Parameters
    ----------
    weights : sequence of float, str or path, optional
        Of the heads of layer 0, from 0, in any scale; or a file that ``calibrate`` wrote (ending in .json); or the
        numbers in one line with spaces between, as which they are kept. None: all alike.
    normalisation : {"l2", "softmax", "minmax"}
        How a head's numbers are brought to one scale.

    Raises
    ------
    ConfigError
        If the file can't be read, the weights are no such numbers or all 0, or the normalisation is another word.
    """

    facts: ClassVar[Facts] = Facts(
        says="tokens whose keys fit the question's queries best in layer 0, without positions, by weighted heads",
        paper="HAWK, arXiv 2604.07812",
        formula=(
            "c[h] = mean over rows of text of q[h] . k[h] in layer 0, without RoPE and without softmax\n"
            "score = sum over heads of weight[h] * c[h] / |c[h]|, |c[h]| taken over the visual tokens"
        ),
        needs_question=True,
        ours=True,
    )
    uses_probe: ClassVar[bool] = True
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = True
    asks: ClassVar[Literal["last", "all"]] = "all"
    unrotates: ClassVar[bool] = True
    weights: str | Sequence[float] | os.PathLike[str] | None = None
    normalisation: str = "l2"

    def __post_init__(self) -> None:
        """Read the weights, and keep them as text, in which a saved stream can hold them."""
        choice("normalisation", self.normalisation, ("l2", "softmax", "minmax"))
        if self.weights is not None:
            numbers = several("weights", _numbers(self.weights), partial(real, least=0))
            if not any(numbers):
                raise ConfigError(f"weights is {shown(self.weights)}; expected one above 0.")
            object.__setattr__(self, "weights", " ".join(map(repr, numbers)))

    @property
    def heads(self) -> tuple[float, ...] | None:
        """The weights; None where all heads count alike."""
        return None if self.weights is None else tuple(map(float, str(self.weights).split()))

    def check(self, boundary: int, asked: int | None, layer: Any, kind: LayerKind) -> None:
        """Refuse a first boundary where this means nothing.

        Parameters
        ----------
        boundary : int
            The layer that ranks.
        asked : int or None
            The boundary that was asked for in its place, if one was by number.
        layer : nn.Module
        kind : LayerKind

        Raises
        ------
        ConfigError
        """
        first = f"layer {boundary} is the first that can rank"
        if asked == 0 and boundary:
            raise ConfigError(
                f"hawk was to rank before layer 0, which in this model does not attend to all that came before; {first}"
                f": let the first boundary be there, layers=({boundary}, ...), without weights."
            )
        if kind.source is not None:
            raise ConfigError(
                f"hawk ranks by keys without RoPE, but layer {boundary} uses those of layer {kind.source}, with it; "
                "let the first boundary be before a layer with keys of its own."
            )
        if self.heads is None:
            return
        if boundary:
            raise ConfigError(
                f"weights of hawk are those of the heads of layer 0, but the first boundary is before layer {boundary}"
                "; use layers=(0, ...), or no weights."
            )
        if len(self.heads) != (count := query_heads(attention_of(layer))):
            raise ConfigError(
                f"hawk has weights of {len(self.heads)} heads, but layer 0 of this model has {count}; calibrate on it."
            )

    def flops(self, size: RankingSize) -> int:
        """Keys of all rows, queries of those that ask, and the products with the mean query."""
        return size.making() + 2 * (size.probes * (size.asking or 0) + size.rows * size.queries)

    def remembered_flops(self, size: RankingSize) -> int:
        """The same for keys that are there."""
        return 2 * (size.probes * (size.asking or 0) + size.past * size.queries)

    @torch.no_grad()
    def __call__(self, ranking: Ranking) -> Tensor:
        """Sums over heads, each of which is at most 1 with "l2" and "minmax"; 0 for text."""
        attention, rows = attention_of(ranking.layer), normed(ranking.layer, ranking.hidden)
        there = ranking.probe >= 0
        asking = rows_at(rows, ranking.probe.clamp(min=0))
        query = working(per_head(attention, asking, "q")) * there[:, None, :, None]
        mean = query.sum(2) / there.sum(1)[:, None, None].clamp(min=1)
        key = per_head(attention, rows, "k")
        return self._scores(mean * attention.scaling, key, ranking.visual, ranking.hidden.dtype)

    @torch.no_grad()
    def remembered(self, memory: Remembered) -> Tensor:
        """Of columns that are remembered [columns], by their un-rotated keys."""
        attention = attention_of(memory.layer)
        rows = normed(memory.layer, memory.hidden[:, -memory.asking :])
        mean = working(per_head(attention, rows, "q")).mean(2)
        return self._scores(mean * attention.scaling, memory.bare(), memory.visual[None], memory.hidden.dtype)[0]

    def _scores(self, query: Tensor, key: Tensor, visual: Tensor, dtype: torch.dtype) -> Tensor:
        """Scores [batch, rows] of mean queries [batch, heads, head_dim] and keys [batch, kv_heads, rows, head_dim].

        The mean over rows that ask is taken before the product, which is linear. A head may have next to nothing in
        common with any token and still counts as much as others, so that what is noise in it is rounded away first.
        """
        visual = visual[:, None]
        query = rearrange(query, "batch (kv group) dim -> batch kv group dim", kv=key.shape[1])
        key = working(key)
        with torch.autocast(query.device.type, enabled=False):  # which would multiply in sixteen bits
            product = query @ key.mT
        common = rearrange(product, "batch kv group rows -> batch (kv group) rows").nan_to_num(0, 0, 0)
        longest = key.norm(dim=-1).nan_to_num(0, 0, 0).masked_fill(~visual, 0).amax(-1)
        most = rearrange(query.norm(dim=-1) * longest[..., None], "batch kv group -> batch (kv group) 1")
        common = even_grid(common, visual, most, dtype).masked_fill(~visual, 0)
        if self.normalisation == "l2":
            each = common / common.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        elif self.normalisation == "softmax":
            each = common.masked_fill(~visual, -torch.inf).softmax(-1).nan_to_num(0)
        else:
            flat = rearrange(common, "batch heads rows -> (batch heads) rows")
            each = normalised(flat, visual[:, 0].repeat_interleave(common.shape[1], 0)).view_as(common)
        heads = self.heads or (1.0,) * common.shape[1]
        weight = each.new_tensor(heads)[:, None] / sum(heads)
        most = (weight * each.abs()).amax(-1, keepdim=True).sum(1)
        return even_grid((weight * each).sum(1), visual[:, 0], most, torch.float64)  # as exactly as they are summed


def _numbers(weights: Any) -> Any:
    """What was given as weights, one by one."""
    if isinstance(weights, os.PathLike) or (isinstance(weights, str) and weights.endswith(_ENDING)):
        return _read(weights)
    if not isinstance(weights, str):
        return weights
    try:
        return tuple(map(float, weights.split()))
    except ValueError:
        raise ConfigError(
            f"weights is {shown(weights)}; expected numbers with spaces between, or a file that ends in {_ENDING}."
        ) from None


def _read(path: Any) -> Any:
    """The weights in a file that ``pdrop-video calibrate hawk`` wrote."""
    name = shown(os.fspath(path))
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))["hawk"]["weights"]
        return several("weights", found, real)
    except OSError as error:
        raise ConfigError(f"{name} can't be read ({error.strerror}); expected a file of `calibrate hawk`.") from error
    except (ValueError, TypeError, KeyError, RecursionError, ConfigError) as error:
        raise ConfigError(f'{name} holds no weights ({error}); expected {{"hawk": {{"weights": [...]}}}}.') from error
