"""int8 and int4: what has left the recent window in 8 or 4 bits, keys by the channel and values by the token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...common import checks
from ...registry import Facts
from .base import Codec
from .grids import ChannelGrid, TokenGrid


@dataclass(frozen=True, slots=True)
class _Quantised:
    """What both have in common.

    The newest columns and the prompt stay in the model's type, as KIVI (arXiv 2402.02750) leaves a residual. A column
    that leaves the window is quantised once, and archived as it is: nothing is ever quantised a second time.

    Ours: the grid of keys. KIVI's is one for each channel over 32 to 128 tokens. A stream forgets single columns, and
    of such a group the default evictor leaves three; the group's own numbers then take as much as was saved. Here a
    channel has one mean and one spread for the whole stream, learned once from the first columns that leave the
    window, and each token a range in these units: a column takes the same bytes whatever goes beside it. For one grid
    to serve a stream, keys are stored without RoPE, since their channels then stay as they are (KVQuant, arXiv
    2401.18079), and rotated as they are read. So they need not be held twice when positions move.

    Parameters
    ----------
    recent : int
        How many of the newest columns stay in the model's type, beside the prompt; no more than a quarter of what the
        budget would hold of them.
    group : int
        Most channels of a token that share a step.
    """

    bits: ClassVar[int]
    bare: ClassVar[bool] = True
    recent: int = 128
    group: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "recent", checks.whole("recent", self.recent, 1, 2**31))
        object.__setattr__(self, "group", checks.whole("group", self.group, 2, 2**31))

    def __call__(self, of: Literal["keys", "values"]) -> Codec:
        """By the channel for keys, by the token for values."""
        return (ChannelGrid if of == "keys" else TokenGrid)(self.bits, self.group)


@dataclass(frozen=True, slots=True)
class Int8(_Quantised):
    """8 bits for what has left the recent window: 134 bytes for 256 with 128 channels in bfloat16; see `_Quantised`."""

    facts: ClassVar[Facts] = Facts(
        says="tokens that left the recent window in 8 bits: keys by the channel, values by the token",
        paper="KIVI, arXiv 2402.02750",
        formula=(
            "value: s = (max(x, 0) - min(x, 0)) / 255, z = round(-min(x, 0) / s), code = round(x / s) + z; read\n"
            "    as (code - z) * s\n"
            "key: the same of (k - mean) / spread, with a mean and a spread for each channel, learned once"
        ),
        ours=True,
    )
    bits: ClassVar[int] = 8


@dataclass(frozen=True, slots=True)
class Int4(_Quantised):
    """4 bits for what has left the recent window: 70 bytes for 256 with 128 channels in bfloat16; see `_Quantised`."""

    facts: ClassVar[Facts] = Facts(
        says="tokens that left the recent window in 4 bits: keys by the channel, values by the token",
        paper="KIVI, arXiv 2402.02750",
        formula=(
            "value: s = (max(x, 0) - min(x, 0)) / 15, z = round(-min(x, 0) / s), code = round(x / s) + z; read\n"
            "    as (code - z) * s\n"
            "key: the same of (k - mean) / spread, with a mean and a spread for each channel, learned once"
        ),
        ours=True,
    )
    bits: ClassVar[int] = 4
