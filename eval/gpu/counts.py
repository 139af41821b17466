"""How often the host waits for the device and how many kernels it launches, for each push and each token; and memory.

Counted by torch's profiler, as the difference between several pushes and one, so that what is done once does not count.
A processor launches no kernels: there operators are counted, and those whose value the host reads. Where the device is
waited for, the lines of the library that did are named.
"""

from __future__ import annotations

import os
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

import pdrop_video as pv

from ..bench.randoms import HALF_B, random_lm
from .machine import Machine
from .operators import operators
from .parts import Setting
from .shapes import PYRAMID, QUESTION, large, pictures
from .state import Row

FRAMES, SIDE = 8, 112
"""A push; one of two frames in a rehearsal."""
_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
_LIBRARY = str(Path(pv.__file__).parent) + os.sep
_READS = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "unique_dim", "_unique2", "is_nonzero")


def cases(setting: Setting) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """A push and a token; where the host waits; memory."""
    machine = Machine.of(setting)
    watched = cache(lambda: Watched(machine))
    yield "a push and a token", lambda: watched().counted()
    yield "where the host waits", lambda: watched().places()
    yield "memory", lambda: memory(machine, 40 if machine.small else 2000)


class Watched:
    """A full stream of a model of 24 layers, which counts what a push and a token of an answer do."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        if machine.small:
            self.lm = large(machine)
        else:
            self.lm = random_lm(machine.dtype, text=HALF_B, device=machine.device)
            self.lm.model.generation_config.eos_token_id = None
        self.stream = self.lm.stream(PYRAMID, pv.Memory(tokens=192 if machine.small else 1024))
        self.frames, self.clock = pictures(2 if machine.small else FRAMES, SIDE, SIDE), count()
        while self.stream.visual_tokens < (250 if machine.small else 1400):
            self.push(1)
        self.answer(2)

    def push(self, times: int) -> None:
        """So many pushes."""
        for _ in range(times):
            at = len(self.frames) * next(self.clock)
            self.stream.push(self.frames, [0.5 * (at + i) for i in range(len(self.frames))])

    def answer(self, tokens: int) -> None:
        """An answer of so many tokens."""
        if len(self.stream.ask(QUESTION, max_new_tokens=tokens).token_ids) != tokens:
            raise AssertionError(f"expected an answer of {tokens} tokens")

    def counted(self) -> list[Row]:
        """What a push and a token come to."""
        rows: list[Row] = []
        for name, do, several in (("a push", self.push, 2), ("a token", self.answer, 5)):
            few, many = self._events(do, 1), self._events(do, several)
            each: Row = {key: (many[key] - few[key]) / (several - 1) for key in many}
            if self.machine.cuda and not many["launches"]:  # the profiler may not look at this device
                each |= {"launches": None, "waits": None}
            times = self.machine.in_turns({"few": partial(do, 1), "many": partial(do, several)}, 3)
            rows.append({"what": name, **each, "ms": 1e3 * (times["many"] - times["few"]) / (several - 1)})
        return rows

    def _events(self, do: Callable[[int], None], times: int) -> dict[str, int]:
        """What the profiler saw of some calls."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.machine.cuda:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self.machine.settle()
        with torch.profiler.profile(activities=activities) as profile:
            do(times)
            self.machine.settle()
        seen = {each.key: each.count for each in profile.key_averages()}
        counts = {
            "operators": sum(n for key, n in seen.items() if key.startswith("aten::")),
            "values_read": seen.get("aten::_local_scalar_dense", 0),
        }
        if self.machine.cuda:
            counts["launches"] = sum(n for key, n in seen.items() if key.startswith(_LAUNCHES))
            counts["waits"] = sum(n for key, n in seen.items() if key.startswith("cuda") and "Synchronize" in key)
        return counts

    def places(self) -> list[Row]:
        """The lines of the library at which the host waits for a value, of one push and of four tokens."""
        rows: list[Row] = []
        for name, do in (("a push", lambda: self.push(1)), ("a question and 4 tokens", lambda: self.answer(4))):
            found = waits_on_cuda(do) if self.machine.cuda else reads(do)
            rows += [{"what": name, "where": where, "times": times} for where, times in found.most_common(20)]
        return rows


def line() -> str:
    """The innermost line of the library that is being run, or of whatever runs if none of it does."""
    frames = [each for each in traceback.extract_stack() if each.filename.startswith(_LIBRARY)]
    if not frames:
        return "outside of the library"
    return f"{frames[-1].filename.removeprefix(_LIBRARY)}:{frames[-1].lineno}"


def reads(do: Callable[[], None]) -> Counter[str]:
    """Where a call reads values that a device would be waited for."""
    return operators(do, lambda name: line() if name in _READS else None)


def waits_on_cuda(do: Callable[[], None]) -> Counter[str]:
    """Where a call waits for the device, as torch's own debug mode says."""
    found: Counter[str] = Counter()

    def noting(message: Any, *_: Any, **__: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            found[line()] += 1

    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = noting
            do()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return found


def memory(machine: Machine, pushes: int) -> list[Row]:
    """Bytes held after a tenth, a half and all of so many pushes into the built-in model, or as many as there is time.

    Tensors on the device may not grow behind the first tenth by more than a hundredth.
    """
    lm = pv.load(device=str(machine.device))
    stream = lm.stream(PYRAMID, pv.Memory(tokens=256))
    frames = pictures(FRAMES, SIDE, SIDE)
    marks, begun = (pushes // 10, pushes // 2, pushes), time.monotonic()
    rows: list[Row] = []
    for number in range(1, pushes + 1):
        at = FRAMES * (number - 1)
        stream.push(frames, [0.5 * (at + i) for i in range(FRAMES)])
        late = machine.left < 8
        if number in marks or late:
            machine.settle()
            held = {f"{name}_mib": value / 2**20 for name, value in machine.held().items()}
            rows.append({"pushes": number, **held, "seconds": time.monotonic() - begun, "note": ""})
        if late:
            rows[-1]["note"] = f"no time for {pushes:,}"
            break
    for row in rows if machine.cuda else ():
        row["passed"] = row["tensors_mib"] <= 1.01 * rows[0]["tensors_mib"]
    return rows
