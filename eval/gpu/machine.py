"""The device that is measured: its facts, its clock, its memory.

Knows torch. Refuses to know what is measured.
"""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers

from .parts import Setting


@dataclass(slots=True)
class Machine:
    """Where a part runs, and how much of it.

    Attributes
    ----------
    device : torch.device
    setting : Setting
        Gets the machine's facts, and has its memory freed between two cases.
    """

    device: torch.device
    setting: Setting

    @classmethod
    def of(cls, setting: Setting) -> Machine:
        """The machine that this process is on."""
        machine = cls(torch.device(setting.device), setting)
        setting.between = machine.free
        setting.facts |= {
            "device": str(machine.device),
            "card": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "flash-attn": find_spec("flash_attn") is not None,
            "small": setting.small,
        }
        if machine.cuda:
            properties = torch.cuda.get_device_properties(machine.device)
            setting.facts |= {
                "card": properties.name,
                "card_gib": round(properties.total_memory / 2**30, 1),
                "cuda": torch.version.cuda,
            }
        return machine

    @property
    def small(self) -> bool:
        """Whether few cases run, in small shapes."""
        return self.setting.small

    @property
    def facts(self) -> dict[str, Any]:
        """Names and versions."""
        return self.setting.facts

    @property
    def cuda(self) -> bool:
        """Whether it is a CUDA device."""
        return self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """What large models are computed in here; a processor may have no instructions for bfloat16."""
        return torch.bfloat16 if self.cuda else torch.float32

    @property
    def left(self) -> float:
        """Seconds until the part's time is up."""
        return self.setting.ends - time.monotonic()

    def settle(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def free(self) -> None:
        """Give memory that nobody holds back."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    def seconds(self, run: Callable[[], Any]) -> float:
        """Wall-clock time of one call, from an idle device to an idle device."""
        self.settle()
        begun = time.perf_counter()
        run()
        self.settle()
        return time.perf_counter() - begun

    def in_turns(self, runs: Mapping[str, Callable[[], Any]], repeats: int, warming: int = 1) -> dict[str, float]:
        """Median seconds of each of some runs, taken in turns, of which the first ones only warm up."""
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(warming + repeats):
            for name in list(runs) if turn % 2 else list(runs)[::-1]:
                spent = self.seconds(runs[name])
                if turn >= warming:
                    taken[name].append(spent)
        return {name: statistics.median(times) for name, times in taken.items()}

    def peak(self, run: Callable[[], Any]) -> int | None:
        """Most bytes that a call held on the device beside what was held before it; None where nobody counts them."""
        if not self.cuda:
            return None
        self.settle()
        self.free()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        run()
        self.settle()
        return torch.cuda.max_memory_allocated(self.device) - before

    def held(self) -> dict[str, int]:
        """Bytes held now: by this process on the host, by tensors on the device, and by the device's allocator."""
        held = {"host": 0}
        status = Path("/proc/self/status")
        if status.exists():
            line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
            held["host"] = 1024 * int(line.split()[1])
        if self.cuda:
            held["tensors"] = torch.cuda.memory_allocated(self.device)
            held["reserved"] = torch.cuda.memory_reserved(self.device)
        return held
