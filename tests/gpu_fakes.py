"""Parts of a device check that measure nothing, for `test_gpu_check.py`: what each does is in its name.

What is called is written down in the file ``CALLS``, an environment variable, by every process that calls it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

Cases = Iterator[tuple[str, Callable[[], list[dict[str, Any]]]]]


def called(name: str, passed: bool | None = None) -> list[dict[str, Any]]:
    with open(os.environ["CALLS"], "a", encoding="utf-8") as file:
        file.write(name + "\n")
    return [{"what": name} if passed is None else {"what": name, "passed": passed}]


def hang(name: str) -> list[dict[str, Any]]:
    called(name)
    if os.path.exists(os.environ["CALLS"] + ".well"):  # whoever tests mended it
        return called(name + " well")
    time.sleep(300)
    return []


def fail(name: str) -> list[dict[str, Any]]:
    called(name)
    raise RuntimeError("out of something")


def die(name: str) -> list[dict[str, Any]]:
    called(name)
    os._exit(9)


class Part:
    """A module, as far as `eval.gpu.child` looks at it."""

    def __init__(self, *cases: tuple[str, Callable[[str], list[dict[str, Any]]]]) -> None:
        self.of = cases

    def cases(self, setting: Any) -> Cases:
        setting.facts["card"] = "none at all"
        for name, do in self.of:
            yield name, lambda name=name, do=do: do(name)
