"""Which operators of torch a call comes to, as they are dispatched; on any device, and at little cost.

Knows torch's operators. Refuses to know who calls them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


def operators(do: Callable[[], object], label: Callable[[str], str | None] = lambda name: name) -> Counter[str]:
    """How often a call dispatches what.

    Parameters
    ----------
    do : callable
        In this thread.
    label : callable
        Gets an operator's name, as it is called, and gives what it counts as; None for what does not count.
    """
    found: Counter[str] = Counter()

    class Noting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if (counts_as := label(func.overloadpacket.__name__)) is not None:
                found[counts_as] += 1
            return func(*args, **(kwargs or {}))

    with Noting():
        do()
    return found
