"""The benchmarks, one small file each, and their names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pdrop_video.registry import named

from .base import Ask, Dialogue, Item, Mark, Task
from .videomme import VideoMME

TASKS: dict[str, Callable[[Path], Task]] = {
    "videomme": VideoMME,
    "videomme-subtitles": partial(VideoMME, subtitles=True),
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
