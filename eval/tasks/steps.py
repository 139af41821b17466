"""Answers that take two steps: a second question stands in the answer to the first, and its evidence is elsewhere.

Synthetic videos only: `python -m eval.synthetic.make --steps`. A model that reasons writes such steps by itself; here
they are written for it, so that a model that never learned to can be measured. Knows nothing of what they are about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pandas as pd

import pdrop_video as pv

from .base import Ask, Item
from .videomme import QUESTIONS, VideoMME

STEPS = ("first_question", "first_answer")
"""Columns beside those of Video-MME."""


class Steps(VideoMME):
    """Video-MME's layout with a first question and its answer in front of each question.

    The first question is asked. Its answer, and the second question behind it, are the beginning of what the model
    writes, one token after the other. Then the options of the second question are compared.
    """

    note: ClassVar[str] = (
        "Two questions, one answer: the first one's answer and the second question are written for the model while it "
        "decodes; the options of the second are compared. No published figure is like this one."
    )

    official: ClassVar[str | None] = None

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self._steps: dict[str, tuple[str, str]] = {}

    def items(self) -> list[Item]:
        """All questions, in the order of the file."""
        found = super().items()
        table = pd.read_parquet(self.data / QUESTIONS)
        missing = [name for name in STEPS if name not in table.columns]
        if missing:
            raise pv.ConfigError(
                f"{self.data / QUESTIONS} has no column {', '.join(missing)}; expected a set of eval.synthetic.make "
                "--steps."
            )
        firsts = table[list(STEPS)].itertuples(index=False)
        self._steps = {item.id: (str(first), str(said)) for item, (first, said) in zip(found, firsts, strict=True)}
        return found

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The first question; how its answer goes on stands beside it."""
        if not self._steps:
            self.items()
        first, said = self._steps[item.id]
        asked = super().ask(item, seconds)
        return replace(asked, cloze=first, says=(said, asked.cloze))
