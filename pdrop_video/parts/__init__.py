"""Trained parts: small networks beside a model's frozen weights, one file each. Knows modules and files, no method.

One small file a part, listed here by name; `pdrop_video.training` trains them.
"""

from __future__ import annotations

from .base import Part, Trained
from .dualcomp import DualCompPart
from .evocomp import EvoCompPart
from .files import check_fits, identity, read_part, read_said, write_part
from .learnpruner import LearnPrunerPart
from .loading import SHIPPED, located, needed_by, opened, taken
from .standby import StandbyPart
from .uhd import UHDPart
from .videorouter import VideoRouterPart

PARTS: dict[str, type[Part]] = {
    part.name: part for part in (LearnPrunerPart, EvoCompPart, VideoRouterPart, DualCompPart, StandbyPart, UHDPart)
}
"""Every part by its name."""

__all__ = [
    "PARTS",
    "SHIPPED",
    "Part",
    "Trained",
    "check_fits",
    "identity",
    "located",
    "needed_by",
    "opened",
    "read_part",
    "read_said",
    "taken",
    "write_part",
]
