"""Trainers by the name of the part that they train."""

from __future__ import annotations

from .dualcomp import DualCompTrainer
from .evocomp import EvoCompTrainer
from .learnpruner import LearnPrunerTrainer
from .standby import StandbyTrainer
from .trainer import Trainer
from .uhd import UHDTrainer
from .videorouter import VideoRouterTrainer

TRAINERS: dict[str, type[Trainer]] = {
    each.part.name: each
    for each in (
        *(LearnPrunerTrainer, EvoCompTrainer, VideoRouterTrainer, DualCompTrainer),
        *(StandbyTrainer, UHDTrainer),
    )
}
"""One for each of `pdrop_video.parts.PARTS`."""
