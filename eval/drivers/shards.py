"""Static shares of the work: i of n by the command line (SLURM arrays), or by the variables that torchrun sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pdrop_video as pv


@dataclass(frozen=True, slots=True)
class Place:
    """Which share of the work a process does.

    Attributes
    ----------
    index, count : int
        The index-th (from 0) of so many shares.
    local : int
        The number of the process on its machine, which chooses its device.
    """

    index: int = 0
    count: int = 1
    local: int = 0

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def shard(self) -> tuple[int, int]:
        """As `eval.drivers.jobs.jobs_of` takes it."""
        return self.index, self.count


def place_of(text: str) -> Place:
    """From "i/n", i counted from 0.

    Raises
    ------
    ConfigError
        If it is anything else.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None or int(match[1]) >= int(match[2]):
        raise pv.ConfigError(f"--shard {text}: expected i/n with i from 0 to n - 1, for example 0/8 to 7/8.")
    return Place(int(match[1]), int(match[2]))


def torchrun_place(environment: Mapping[str, str]) -> Place | None:
    """From RANK, WORLD_SIZE and LOCAL_RANK, which torchrun sets; None if it did not.

    Raises
    ------
    ConfigError
        If they are not numbers that fit together.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    try:
        rank, world = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local = int(environment.get("LOCAL_RANK", "0"))
    except ValueError as error:
        raise pv.ConfigError(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers: {error}.") from error
    if not 0 <= rank < world:
        raise pv.ConfigError(f"RANK is {rank} and WORLD_SIZE {world}; expected a rank from 0 to {world - 1}.")
    return Place(rank, world, local)
