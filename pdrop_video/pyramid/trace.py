"""What a prefill inside `pyramid_drop` kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .rows import Rows


@dataclass(slots=True)
class Trace:
    """What the last prefill inside `pyramid_drop` kept; of several threads, the one that ended last.

    Attributes
    ----------
    kept : list over stages of list over the batch of Tensor [survivors]
        Survivors of each stage in the original numbering of the sample's visual tokens, ascending.
    scores : list over stages of list over the batch of Tensor [ranked]
        Scores of the tokens that stage ranked (in the order of the previous stage's survivors).
    rows : Tensor [batch, survivors] or None
        The row of the prompt that each row of the logits belongs to; -1 where padding.
    """

    kept: list[list[Tensor]] = field(default_factory=list)
    scores: list[list[Tensor]] = field(default_factory=list)
    rows: Tensor | None = None

    def record(self, rows: Rows, visual: Tensor) -> Tensor:
        """Take down what is left of a prompt whose `visual` rows [batch, rows] competed; returns `rows`."""
        number = visual.long().cumsum(1) - 1  # a row's number among the visual tokens
        all_kept, all_scores = [], []
        left = rows.origin if rows.valid is None else rows.origin.masked_fill(~rows.valid, -1)
        for boundary in rows.boundaries:
            kept, scores = [], []
            for sample in range(visual.shape[0]):
                ranked, after = boundary.ranked[sample], boundary.kept[sample]
                competed = (ranked >= 0) & visual[sample][ranked.clamp(min=0)]
                survived = (after >= 0) & visual[sample][after.clamp(min=0)]
                kept.append(number[sample][after[survived]])
                scores.append(boundary.scores[sample][competed])
            all_kept.append(kept)
            all_scores.append(scores)
        self.kept, self.scores, self.rows = all_kept, all_scores, left
        return left
