"""Training of parts (`pdrop_video.parts`) on a frozen model: data, examples, losses, one loop. Knows streams' models.

One small file a part, listed in `trainers`; the loop, its checkpoints and its held-out figures are the same for all.
"""

from __future__ import annotations

from .examples import Example, Examples, answer_losses
from .lines import Line, read_lines
from .loop import Plan, train
from .trainer import Trainer
from .trainers import TRAINERS

__all__ = ["TRAINERS", "Example", "Examples", "Line", "Plan", "Trainer", "answer_losses", "read_lines", "train"]
