"""Trainers by the name of the part that they train."""

from __future__ import annotations

from .learnpruner import LearnPrunerTrainer
from .trainer import Trainer

TRAINERS: dict[str, type[Trainer]] = {each.part.name: each for each in (LearnPrunerTrainer,)}
"""One for each of `pdrop_video.parts.PARTS`."""
