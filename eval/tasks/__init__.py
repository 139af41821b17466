"""The benchmarks, one small file each, and their names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pdrop_video.registry import named

from .base import Ask, Dialogue, Item, Mark, Task
from .egoschema import EgoSchema
from .grounding import SETS, CharadesSTA, TimeLens
from .ipibench import GROUPS, IPIBench
from .longvideobench import LongVideoBench
from .lvbench import LVBench, LVBenchReference
from .mlvu import MLVU, MLVUTest
from .mvbench import MVBench, TVBench
from .odvbench import ODVBench
from .omnipro import OmniPro
from .ovobench import OVOBench
from .ovosbench import OVOSBench
from .proactivevideoqa import PARTS, ProactiveVideoQA
from .rtvbench import RTVBench
from .rvs import RVS
from .steps import Steps
from .streamingbench import StreamingBench, StreamingBenchProactive, StreamingBenchSQA
from .videomme import VideoMME
from .videomme2 import VideoMME2
from .videommmu import VideoMMMU, VideoMMMUKnowledge
from .worldsense import WorldSense

TASKS: dict[str, Callable[[Path], Task]] = {
    "videomme": VideoMME,
    "videomme-subtitles": partial(VideoMME, subtitles=True),
    "mlvu": MLVU,
    "mlvu-test": MLVUTest,
    "longvideobench": partial(LongVideoBench, subtitles=False),
    "longvideobench-subtitles": LongVideoBench,
    "longvideobench-test": partial(LongVideoBench, test=True),
    "egoschema": EgoSchema,
    "egoschema-full": partial(EgoSchema, full=True),
    "worldsense": WorldSense,
    "worldsense-subtitles": partial(WorldSense, subtitles=True),
    "streamingbench-real": partial(StreamingBench, part="real"),
    "streamingbench-real-full": partial(StreamingBench, part="real", context=None),
    "streamingbench-omni": partial(StreamingBench, part="omni"),
    "streamingbench-omni-full": partial(StreamingBench, part="omni", context=None),
    "streamingbench-sqa": StreamingBenchSQA,
    "streamingbench-sqa-full": partial(StreamingBenchSQA, context=None),
    "streamingbench-proactive": StreamingBenchProactive,
    "ovobench": OVOBench,
    "omnipro": OmniPro,
    **{f"ipibench-{part}": partial(IPIBench, part=part) for part in GROUPS},
    **{f"proactivevideoqa-{part}": partial(ProactiveVideoQA, part=part) for part in PARTS},
    "rvs-ego": partial(RVS, part="ego"),
    "rvs-movie": partial(RVS, part="movie"),
    "videomme-steps": Steps,
    "videomme-v2": VideoMME2,
    "videomme-v2-subtitles": partial(VideoMME2, subtitles=True),
    "videomme-v2-reasoning": partial(VideoMME2, reasoning=True),
    "lvbench": LVBench,
    "lvbench-reference": LVBenchReference,
    "mvbench": MVBench,
    "tvbench": TVBench,
    "videommmu": VideoMMMU,
    "videommmu-knowledge": VideoMMMUKnowledge,
    "rtvbench": RTVBench,
    "odvbench": ODVBench,
    "ovosbench": OVOSBench,
    "charades-sta": CharadesSTA,
    **{f"timelens-{part}": partial(TimeLens, part=part) for part in SETS},
}
"""Every benchmark and variant by its name on the command line: called with the data's folder."""


def task_named(name: str, data: Path) -> Task:
    """The task of that name over the files in `data`.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    return named("task", TASKS, name)(data)


__all__ = ["TASKS", "Ask", "Dialogue", "Item", "Mark", "Task", "task_named"]
