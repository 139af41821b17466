"""The FFN of a decoder layer: where it begins and ends among the layer's parts, and how some rows alone get one.

Knows how a layer calls its parts, by watching it once. Refuses to know what the parts are called and what they compute:
what lies between must give each row by itself what the layer adds to it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..heads import attention_of

_MIXERS = ("self_attn", "linear_attn", "mamba", "conv", "mixer")
Removal = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a part of a layer.

    Attributes
    ----------
    name : str
    given, gave : Tensor [1, rows, width] or None
        The first of its inputs and of its outputs.
    """

    name: str
    given: Tensor | None
    gave: Tensor | None


def watched(layer: nn.Module, calls: list[Call]) -> list[Removal]:
    """Let a layer note the calls of its parts, in the order in which they end, and its own."""

    def note(name: str) -> Any:
        def hook(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            calls.append(Call(name, _first((*args, *kwargs.values())), _first(output)))

        return hook

    parts = {"": layer} | dict(layer.named_children())
    return [part.register_forward_hook(note(name), with_kwargs=True).remove for name, part in parts.items()]


def _first(given: Any) -> Tensor | None:
    """The first of some values, if it is rows."""
    value = given[0] if isinstance(given, tuple) and given else given
    return value if isinstance(value, Tensor) and value.ndim == 3 else None


def parts_of(layer: nn.Module, calls: list[Call], alone: bool, tolerance: float) -> tuple[str, ...] | None:
    """The parts that are a layer's FFN, in order; none of a layer without one, None where it is not plain.

    Parameters
    ----------
    layer : nn.Module
    calls : list of Call
        Of one run, the layer's own at the end.
    alone : bool
        Whether it mixes no rows, so that all of it is an FFN.
    tolerance : float
        As a share of what leaves the layer.
    """
    *parts, whole = calls
    mixer, behind = attention_of(layer), 0
    mixes = [n for n, call in enumerate(parts) if call.name in _MIXERS or getattr(layer, call.name) is mixer]
    if not alone:
        if not mixes:
            return None
        behind = mixes[-1] + 1
    mixed = [Call("", None, None)] if alone else parts[behind - 1 :]
    for last in reversed(range(behind, len(parts))):
        for first in range(behind, last + 1):
            x, added = parts[first].given, parts[last].gave
            if _is_sum(whole.gave, x, added, tolerance) and any(
                _is_sum(x, whole.given, each.gave, tolerance) for each in mixed
            ):
                return tuple(call.name for call in parts[first : last + 1])
    return None if len(parts) > behind else ()


def _is_sum(of: Tensor | None, x: Tensor | None, added: Tensor | None, tolerance: float) -> bool:
    """Whether rows are `x` with something added, or nothing."""
    if of is None or x is None or x.shape != of.shape or (added is not None and added.shape != of.shape):
        return False
    return bool((x + (0 if added is None else added) - of).norm() <= tolerance * of.norm())


class _Chosen(threading.local):
    """What was chosen in the FFN that runs in this thread."""

    now: tuple[Tensor, Tensor] | None = None


class Share:
    """Some of a layer's rows get an FFN of their own, the others the mean of it over those of their cube.

    Parameters
    ----------
    layer : nn.Module
        Nobody else's: hooks are hung on its parts.
    parts : tuple of str
        As `parts_of` gives them.
    choose : callable
        ``choose(hidden [rows, hidden])`` gives which of the rows that come next in this layer are active [rows] and
        the numbers of their cubes [rows], -1 of text; None where all are.
    """

    def __init__(
        self, layer: nn.Module, parts: tuple[str, ...], choose: Callable[[Tensor], tuple[Tensor, Tensor] | None]
    ) -> None:
        self.choose = choose
        self._thread = _Chosen()
        for name in dict.fromkeys(parts):
            part = layer.get_submodule(name)
            part.register_forward_pre_hook(self._begin if name == parts[0] else self._gather, with_kwargs=True)
        layer.get_submodule(parts[-1]).register_forward_hook(self._end)

    def _begin(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._thread.now = None  # whatever became of the run before
        hidden = _first((*args, *kwargs.values()))
        assert hidden is not None
        if (chosen := self.choose(hidden[0])) is not None:
            active, cube = chosen
            # how many rows are multiplied follows from the data: the one place where a device is waited for
            self._thread.now = active.nonzero()[:, 0], cube
        return self._gather(module, args, kwargs)

    def _gather(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._thread.now is None:
            return None
        index, cube = self._thread.now

        def few(value: Any) -> Any:
            whole = isinstance(value, Tensor) and value.ndim >= 2 and tuple(value.shape[:2]) == (1, len(cube))
            return value.index_select(1, index) if whole else value

        return tuple(map(few, args)), {name: few(value) for name, value in kwargs.items()}

    def _end(self, module: Any, args: Any, output: Any) -> Any:
        if self._thread.now is None:
            return None
        (index, cube), self._thread.now = self._thread.now, None
        if isinstance(output, tuple):
            return spread_out(output[0], index, cube), *output[1:]
        return spread_out(output, index, cube)


def spread_out(output: Tensor, index: Tensor, cube: Tensor) -> Tensor:
    """Each row's own output, or the mean over its cube's [1, rows, hidden].

    Parameters
    ----------
    output : Tensor [1, active, hidden]
    index : Tensor [active]
        The rows that have one of their own: one of each cube at least, and all text.
    cube : Tensor [rows]
        Numbers less than there are rows; -1 of text.
    """
    kind = torch.promote_types(output.dtype, torch.float32)
    at = cube[index] + 1
    total = output.new_zeros(len(cube) + 1, output.shape[-1], dtype=kind).index_add(0, at, output[0].to(kind))
    count = torch.zeros_like(total[:, 0]).index_add(0, at, torch.ones_like(at, dtype=kind))
    mean = (total / count.clamp(min=1)[:, None])[cube + 1].to(output.dtype)
    return mean.index_copy(0, index, output[0])[None]
