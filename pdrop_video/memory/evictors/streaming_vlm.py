"""StreamingVLM: the beginning, and the last seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...registry import Facts
from .base import Held, lexicographic


@dataclass(frozen=True, slots=True)
class StreamingVLM:
    """Attention sinks and a window of time, arXiv 2510.09608; its positions are contiguous over what is retained.

    The first tokens of the stream stay as sinks; the prompt counts among them. Then come the steps of the last
    `seconds`, and what is older fills what is left, the newest first. The newest turns of text stay as everywhere
    (`choose`).

    Parameters
    ----------
    sinks : int
        Tokens at the beginning that stay, at most a quarter of the room (the paper has 512).
    seconds : float
        How far back vision is kept first (the paper's 16).
    """

    facts: ClassVar[Facts] = Facts(
        says="the beginning and the last seconds, at positions without gaps",
        paper="StreamingVLM, arXiv 2510.09608",
        formula=(
            "stay: the first `sinks` tokens (a quarter of the budget at most), then the last `seconds`, then\n"
            "    newer ones first"
        ),
    )
    by_table: ClassVar[bool] = True
    uses_query: ClassVar[bool] = False
    distinct: ClassVar[bool] = True
    positions: ClassVar[str] = "compact"
    sinks: int = 512
    seconds: float = 16.0

    def __call__(self, held: Held, keep: int) -> Tensor:
        """By whether it is recent or a sink, then by age."""
        table = held.table
        recent = held.ages() < self.seconds
        sink = table.index < min(self.sinks, keep // 4)
        return lexicographic((recent | sink).long(), table.index)
