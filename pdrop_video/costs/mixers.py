"""What the part of a decoder layer that looks at other rows costs, kind by kind; in FLOPs, as PyTorch counts them.

Knows sizes. Refuses to know configurations and schedules. Counted is what transformers' own implementations in torch
multiply, which pad a chunk of linear attention and a convolution's edges, and a triangular solve is no product to
PyTorch. Other kernels may multiply less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from ..pyramid.scorers import RankingSize

_CHUNK = 64
"""Rows that transformers' gated delta rule takes together."""


class Mixer(Protocol):
    """One layer's attention, or what stands in its place.

    Attributes
    ----------
    name : str
        As people call it.
    """

    name: ClassVar[str]

    def flops(self, rows: int, past: int, causal: bool) -> int:
        """FLOPs of so many rows.

        `past` are the columns that it holds; of one with a state, anything but 0 if it has seen a row.
        """

    def state_bytes(self, bytes_per_number: int) -> int:
        """Bytes of its state; 0 if it has none."""


@dataclass(frozen=True, slots=True)
class Attention:
    """Queries over keys and values, all or the newest, its own or another layer's.

    Attributes
    ----------
    hidden : int
        Numbers in a row.
    heads : int
        Of queries.
    key, value : int
        Numbers in a head's query, and in its value.
    asking, keying, valuing : int
        Multiply-adds that make a row's queries, with what gates the output beside them; its keys; its values.
    leaving : int
        Multiply-adds from a row's heads back to its hidden state, gates of its own included.
    unfolding : int
        Multiply-adds that make the keys and values of every column anew, of a latent.
    window : int, optional
        Most columns that a row sees, where fewer than all.
    """

    name: ClassVar[str] = "full"
    hidden: int
    heads: int
    key: int
    value: int
    asking: int
    keying: int
    valuing: int
    leaving: int
    unfolding: int = 0
    window: int | None = None

    @classmethod
    def of(
        cls,
        hidden: int,
        heads: int,
        kv_heads: int,
        dim: int,
        *,
        gates: int = 0,
        beside: bool = False,
        lent: bool = False,
        keys_are_values: bool = False,
        window: int | None = None,
    ) -> Attention:
        """With heads of `dim` numbers; `gates` of a row's output may be made `beside` its queries."""
        queries, narrow = heads * dim, 0 if lent else hidden * kv_heads * dim
        return cls(
            hidden=hidden,
            heads=heads,
            key=dim,
            value=dim,
            asking=hidden * (queries + gates * beside),
            keying=narrow,
            valuing=0 if keys_are_values else narrow,
            leaving=hidden * (queries + gates * (not beside)),
            window=window,
        )

    @classmethod
    def latent(
        cls, hidden: int, heads: int, nope: int, rope: int, value: int, rank: int, asked: int | None
    ) -> Attention:
        """DeepSeek's: keys of `nope` + `rope` numbers and values are unfolded from a latent of `rank`.

        Queries come from one of `asked` numbers, if that is given.
        """
        queries = heads * (nope + rope)
        return cls(
            hidden=hidden,
            heads=heads,
            key=nope + rope,
            value=value,
            asking=hidden * queries if asked is None else asked * (hidden + queries),
            keying=hidden * (rank + rope),
            valuing=0,
            leaving=hidden * heads * value,
            unfolding=rank * heads * (nope + value),
        )

    def seen(self, rows: int, past: int) -> int:
        """How many columns rows see, all together: each those up to its own, within the window."""
        full = max(min(rows, (self.window or past + rows) - past), 0)  # rows whose window reaches the first column
        return full * past + full * (full + 1) // 2 + (rows - full) * (self.window or 0)

    def flops(self, rows: int, past: int, causal: bool) -> int:
        """Projections, and the two products of every head."""
        columns = past + rows
        pairs = self.seen(rows, past) if causal else rows * columns
        each = self.asking + self.keying + self.valuing + self.leaving
        return 2 * (rows * each + columns * self.unfolding + pairs * self.heads * (self.key + self.value))

    def ranking(self, rows: int, past: int, probes: int, wanted: int) -> RankingSize:
        """The sizes of a ranking by this layer."""
        return RankingSize(
            rows=rows,
            past=past,
            probes=probes,
            hidden=self.hidden,
            queries=self.heads * self.key,
            keys=self.keying // self.hidden,
            wanted=wanted,
            asking=self.asking,
            keying=self.keying + self.unfolding,
            unfolding=self.unfolding,
        )

    def state_bytes(self, bytes_per_number: int) -> int:
        """None: columns are no state."""
        return 0


@dataclass(frozen=True, slots=True)
class Delta:
    """Linear attention by the gated delta rule (arXiv 2412.06464), as in Qwen3.5.

    Attributes
    ----------
    hidden : int
    key_heads, value_heads : int
        Each head of keys and queries serves as many of values.
    key, value : int
        Numbers in a head.
    kernel : int
        Of the convolution over queries, keys and values.
    """

    name: ClassVar[str] = "linear attention"
    hidden: int
    key_heads: int
    value_heads: int
    key: int
    value: int
    kernel: int

    @property
    def channels(self) -> int:
        """Of the convolution."""
        return 2 * self.key_heads * self.key + self.value_heads * self.value

    def flops(self, rows: int, past: int, causal: bool) -> int:
        """Projections, the convolution, and chunks of 64 rows; a row alone has no product behind its projections."""
        out = self.value_heads * self.value
        total = 2 * rows * self.hidden * (self.channels + 2 * out + 2 * self.value_heads)
        total += convolved(rows, past, self.channels, self.kernel)
        if rows == 1 and past:
            return total
        within = 2 * _CHUNK * _CHUNK * self.key + _CHUNK * _CHUNK * self.value
        across = 3 * _CHUNK * self.key * self.value
        return total + 2 * -(-rows // _CHUNK) * self.value_heads * (within + across)

    def state_bytes(self, bytes_per_number: int) -> int:
        """The convolution's columns, and one matrix a head in float32."""
        return self.kernel * self.channels * bytes_per_number + 4 * self.value_heads * self.key * self.value


@dataclass(frozen=True, slots=True)
class Mamba:
    """Mamba 2 (arXiv 2405.21060), as in Nemotron-H.

    Attributes
    ----------
    hidden, heads, dim : int
        Numbers in a row; heads, and numbers in each.
    state, groups : int
        Numbers that each channel carries, and groups of heads that share how they are read and written.
    kernel, chunk : int
        Of the convolution, and rows that are taken together.
    """

    name: ClassVar[str] = "Mamba"
    hidden: int
    heads: int
    dim: int
    state: int
    groups: int
    kernel: int
    chunk: int

    @property
    def channels(self) -> int:
        """Of the convolution."""
        return self.heads * self.dim + 2 * self.groups * self.state

    def flops(self, rows: int, past: int, causal: bool) -> int:
        """Projections, the convolution, and the scan, which goes from every chunk to every one."""
        inner = self.heads * self.dim
        total = 2 * rows * self.hidden * (2 * inner + self.channels + self.heads)
        total += convolved(rows, past, self.channels, self.kernel)
        if rows == 1 and past:
            return total + 2 * inner * self.state
        chunks, size = -(-rows // self.chunk), self.chunk
        within = size * size * (self.state + self.dim) + 2 * size * self.dim * self.state
        across = (chunks + 1) ** 2 * self.dim * self.state
        return total + 2 * self.heads * (chunks * within + across)

    def state_bytes(self, bytes_per_number: int) -> int:
        """The convolution's columns, and what each channel carries in float32."""
        return self.kernel * self.channels * bytes_per_number + 4 * self.heads * self.dim * self.state


@dataclass(frozen=True, slots=True)
class Convolution:
    """A short gated convolution, as in LFM3.

    Attributes
    ----------
    hidden, kernel : int
    """

    name: ClassVar[str] = "convolution"
    hidden: int
    kernel: int

    def flops(self, rows: int, past: int, causal: bool) -> int:
        """Four projections and the convolution."""
        return 2 * rows * 4 * self.hidden**2 + convolved(rows, past, self.hidden, self.kernel)

    def state_bytes(self, bytes_per_number: int) -> int:
        """The convolution's columns."""
        return self.kernel * self.hidden * bytes_per_number


@dataclass(frozen=True, slots=True)
class Alone:
    """Nothing: every row by itself."""

    name: ClassVar[str] = "every row by itself"

    def flops(self, rows: int, past: int, causal: bool) -> int:
        """None."""
        return 0

    def state_bytes(self, bytes_per_number: int) -> int:
        """None."""
        return 0


def convolved(rows: int, past: int, channels: int, kernel: int) -> int:
    """FLOPs of a depthwise convolution: over the rows, those that a state kept in front of them, and both edges."""
    if rows == 1 and past:
        return 2 * channels * kernel * 2
    columns = kernel + rows if past else max(rows, kernel)
    return 2 * channels * kernel * (columns + kernel - 1)
