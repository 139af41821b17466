"""The number type that a model is computed in: the checkpoint's own, or float32 where a CPU is slower in it. Ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

_INSTRUCTIONS = {
    torch.bfloat16: ("amx_bf16", "avx512_bf16", "avx10_2", "bf16", "sve_bf16"),
    torch.float16: ("amx_fp16", "avx512_fp16", "avx10_2", "fp16_arith"),
}
"""Any of which lets a processor multiply in a type, by the names of `torch.cpu.get_capabilities`."""


class NumberType(NamedTuple):
    """A type and why it was taken."""

    name: str
    """As ``from_pretrained`` takes it; "auto" is the checkpoint's own."""
    why: str


def default_device() -> str:
    """Where models go unless told otherwise."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def own_type(config: Any) -> torch.dtype | None:
    """The type that a checkpoint's config names, if it is one to choose another for: quantised weights are not."""
    if getattr(config, "quantization_config", None) is not None:
        return None
    own = config.dtype or config.get_text_config().dtype
    return getattr(torch, own) if isinstance(own, str) else own


def chosen(own: torch.dtype | None, weights: Callable[[], int]) -> NumberType:
    """What a checkpoint is computed in on the CPU, where nobody said.

    A processor without instructions for products of 16-bit numbers takes several times as long for them as in float32,
    in which weights are exactly those of the checkpoint and take twice the memory. It is asked for its instructions:
    times would come out otherwise whenever it is busy, and with them the answers.

    Parameters
    ----------
    own : torch.dtype, optional
        That the checkpoint's config names.
    weights : callable
        Gives the bytes of its weights; asked only where it matters.

    Returns
    -------
    NumberType
        float32 where that is faster and fills at most half of the machine's memory.
    """
    can = _capabilities()
    if own not in _INSTRUCTIONS or can is None:
        return NumberType("auto", "the checkpoint's own")
    has, named = {name for name in _INSTRUCTIONS[own] if can.get(name)}, str(own).removeprefix("torch.")
    lacks = f"this processor has no instructions for products in {named}"
    if has == {"avx512_bf16"} and "Intel" in str(can.get("cpu_name")):
        # measured: half of float32's rate for 448 rows, the same for one (LOG.md); AMD's were not
        lacks = f"this processor's instructions for products in {named} are slower than those for float32"
    elif has:
        return NumberType("auto", "the checkpoint's own")
    if 2 * weights() > machine_memory() / 2:
        return NumberType("auto", f"the checkpoint's own, though {lacks}: float32 would fill half of the memory")
    return NumberType("float32", lacks)


def machine_memory() -> float:
    """Bytes of main memory, within the limit that a container sets; infinite where the system does not say."""
    try:
        whole: float = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return float("inf")
    with suppress(OSError, ValueError):  # no limit reads "max"
        whole = min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return whole


def _capabilities() -> Mapping[str, Any] | None:
    """What the processor has instructions for; None where torch, an older one, can't say."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    return None if ask is None else ask()
