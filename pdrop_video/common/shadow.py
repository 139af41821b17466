"""The shadow of a module: its weights and code, with hooks, flags and buffers of its own; no run of it leaves a trace.

Knows how torch, accelerate and FSDP2 hang on a module. Refuses to know what modules compute.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from types import MethodType
from typing import Any

from torch import nn


def shadow(module: nn.Module, known: dict[int, nn.Module] | None = None) -> nn.Module:
    """A module tree in eval mode, uncompiled and without hooks, that shares the parameters of `module`.

    What brings weights to where they are needed stays: functions that accelerate has put in place of ``forward``, and
    the gathering of FSDP2.
    """
    known = {} if known is None else known
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    if id(module) in known:
        return known[id(module)]
    twin = known[id(module)] = object.__new__(type(module))
    state = {name: _turned(value, module, twin) for name, value in vars(module).items()}
    state |= {name: OrderedDict() for name in state if name.endswith("_hooks") and isinstance(state[name], dict)}
    state |= {name: OrderedDict() for name in state if name.endswith(("_hooks_with_kwargs", "_hooks_always_called"))}
    children = {name: None if each is None else shadow(each, known) for name, each in module._modules.items()}
    state |= {
        "_modules": children,
        "_buffers": _copied(module._buffers),
        "training": False,
        "_compiled_call_impl": None,
    }
    if children and _is_foreign(state.get("forward"), twin):
        del state["forward"]  # which would run the module itself: the class's own stands behind it
    vars(twin).update(state)
    unshard: Any = getattr(module, "unshard", None)
    if unshard is not None:
        reshard: Any = module.reshard
        vars(twin)["unshard"] = unshard
        twin.register_forward_pre_hook(lambda *_: unshard())
        twin.register_forward_hook(lambda *_: reshard())
    return twin


def _copied(buffers: dict[str, Any]) -> dict[str, Any]:
    """Buffers of which vectors, such as the angles of RoPE, may be written to; larger ones are quantised weights."""
    return {name: of.clone() if of is not None and of.ndim < 2 else of for name, of in buffers.items()}


def _turned(value: Any, module: nn.Module, twin: nn.Module) -> Any:
    """A function that was bound to the module, bound to its shadow."""
    if isinstance(value, MethodType) and value.__self__ is module:
        return MethodType(value.__func__, twin)
    if isinstance(value, partial) and value.args and value.args[0] is module:
        return partial(value.func, twin, *value.args[1:], **value.keywords)
    return value


def _is_foreign(forward: Any, twin: nn.Module) -> bool:
    """Whether a function in place of ``forward`` does not know the shadow."""
    bound = forward.args[0] if isinstance(forward, partial) and forward.args else getattr(forward, "__self__", None)
    return forward is not None and bound is not twin
