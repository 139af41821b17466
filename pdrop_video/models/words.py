"""What stands around the visual tokens in an adapter's text, and how text becomes rows for the decoder.

Knows tokenizers and tables of embeddings. Refuses to know pictures.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..common.hooks import computes_on

LATEST = 1e11
"""Seconds that a stream's times stay below, some three thousand years: what counts longer ones counts smaller units."""


class Worded:
    """What an adapter says in words; mixed into `Adapter`."""

    frames_per_step: ClassVar[int] = 1
    model: Any
    tokenizer: Any

    # -- what a family says -----------------------------------------------------------------------------------------

    @property
    def stands_for(self) -> int | None:
        """The id of a visual token, for a decoder that reads ids beside embeddings; None where it reads none."""
        return None

    def beside(self, embeds: Tensor, ids: Tensor) -> Tensor:
        """Embeddings with what the decoder reads of ids behind them; the embeddings alone where it reads none.

        Parameters
        ----------
        embeds : Tensor [tokens, hidden]
        ids : Tensor [tokens], int64
            Of text; `stands_for` where a token is visual.

        Returns
        -------
        Tensor [tokens, hidden or more]
            As they enter the decoder.
        """
        return embeds

    def bound(self, ids: Tensor) -> Tensor | None:
        """Which tokens of a step see each other [tokens], bool; None where visual ones alone may do so.

        Parameters
        ----------
        ids : Tensor [tokens], int64
            As for `beside`.
        """
        return None

    def glue(self, number: int, seconds: float) -> tuple[str, str]:
        """Text in front of and behind the visual tokens of a stream's step `number` (from 0) at `seconds`; or none."""
        return "", ""

    def wording(self, seconds: tuple[float, ...], first: int = 0) -> list[tuple[str, str]]:
        """The glue of each step of frames at `seconds`, behind `first` steps of the stream."""
        return [self.glue(first + i, moment) for i, moment in enumerate(self.times(seconds))]

    def longest_glue(self) -> int:
        """Most tokens of glue around a step of a stream, whatever its number and its time come to."""
        steps, seconds = (123_456_789_012, 999_999_999_999), (12_345_678_901.2, LATEST - 0.1)
        said = [text for n in steps for s in seconds for text in (self.glue(n, s), self.glue(n, -s))]
        return max(sum(len(self.ids(part)) for part in text) for text in said)

    def times(self, seconds: tuple[float, ...]) -> tuple[float, ...]:
        """The time of each step, from the times of its frames: that of its first one."""
        return seconds[:: self.frames_per_step]

    def closing(self) -> Tensor:
        """Embeddings [tokens, hidden] that end a video before the template's text goes on; none by default."""
        return self.rows([])

    @staticmethod
    def named(tokenizer: Any, name: str, usual: str) -> str:
        """A token that the tokenizer may call by a name, as the family's processor asks it; else the usual one."""
        return getattr(tokenizer, name, None) or usual

    # -- what follows from it ---------------------------------------------------------------------------------------

    def ids(self, text: str) -> list[int]:
        """Token ids of text that stands between special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    def embed(self, ids: list[int] | Tensor) -> Tensor:
        """Embeddings [tokens, hidden] of text."""
        table = self.model.get_input_embeddings()
        there = computes_on(table) or table.weight.device  # its weights may come when they are needed
        return table(torch.as_tensor(ids, dtype=torch.long, device=there))

    def rows(self, ids: list[int] | Tensor) -> Tensor:
        """The same as they enter the decoder; see `beside`."""
        embeds = self.embed(ids)
        return self.beside(embeds, torch.as_tensor(ids, dtype=torch.long, device=embeds.device))
