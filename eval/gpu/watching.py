"""Frames a second through tower and decoder at the 7 B shape, and where the time goes.

Streams that are full watch on, each in a thread of its own: in turns, which read the weights once for each of them, and
together by the engine. `by part` is one stream alone with a stopwatch around its parts, for which the device is waited
for at each border, so that its whole is longer than a push is.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import count
from typing import Any

import pdrop_video as pv

from ..bench.threads import at_once
from .machine import Machine
from .parts import Setting
from .shapes import PYRAMID, large, pictures
from .state import Row

FRAMES = 8
"""A push."""
CROWDS = (1, 4, 16)


def cases(setting: Setting) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """By part; then crowds in turns; then crowds by the engine, which changes how the model's modules are called."""
    machine = Machine.of(setting)
    lm = partial(large, machine)
    engine = cache(lambda: together(lm()))
    budget, pushes = (64, 2) if machine.small else (6144, 6)
    size = (56, 56) if machine.small else (336, 448)
    yield "by part", lambda: by_part(machine, Crowd(machine, lm(), 1, budget, size), pushes)
    for way, model in (("in turns", lm), ("engine", engine)):
        for streams in CROWDS[:2] if machine.small else CROWDS:
            yield f"{streams} streams, {way}", partial(in_crowds, machine, model, streams, budget, size, way, pushes)


def in_crowds(
    machine: Machine,
    model: Callable[[], pv.VideoLM],
    streams: int,
    budget: int,
    size: tuple[int, int],
    way: str,
    pushes: int,
) -> list[Row]:
    """Frames a second of so many streams."""
    return [Crowd(machine, model(), streams, budget, size).row(way, pushes)]


def together(lm: pv.VideoLM) -> pv.VideoLM:
    """The same model behind an engine."""
    return pv.VideoLM(lm.model, lm.adapter, lm.prompt, lm.name, batch=max(CROWDS))


class Crowd:
    """Some full streams on one model.

    Parameters
    ----------
    machine : Machine
    lm : VideoLM
    streams : int
    budget : int
        Of each, in tokens a layer.
    size : (height, width)
        Of frames.
    """

    def __init__(self, machine: Machine, lm: pv.VideoLM, streams: int, budget: int, size: tuple[int, int]) -> None:
        self.machine, self.budget = machine, budget
        self.frames = pictures(FRAMES, *size)
        first = lm.stream(PYRAMID, pv.Memory(tokens=budget))
        self.clock = count()
        while first.visual_tokens < budget or max(first.cache_tokens) < 0.8 * budget:
            self.push(first)
        self.streams = [first, *(first.fork() for _ in range(streams - 1))]
        for stream in self.streams:  # storage that forks share is copied by the first push
            self.push(stream)

    def push(self, stream: pv.VideoStream) -> None:
        """Some more frames, half a second apart."""
        at = FRAMES * next(self.clock)
        stream.push(self.frames, [0.5 * (at + i) for i in range(FRAMES)])
        if max(stream.cache_tokens) > self.budget:
            raise AssertionError(f"over the budget: {max(stream.cache_tokens)} tokens of {self.budget}")

    def watch(self, stream: pv.VideoStream, pushes: int) -> None:
        """So many pushes."""
        for _ in range(pushes):
            self.push(stream)

    def row(self, way: str, pushes: int) -> Row:
        """All streams at once."""

        def run() -> None:
            at_once([partial(self.watch, stream, pushes) for stream in self.streams])

        run()
        spent, frames = self.machine.seconds(run), FRAMES * pushes * len(self.streams)
        return {"streams": len(self.streams), "way": way, "frames": frames, "frames_per_second": frames / spent}


class Stopwatch:
    """Seconds by name, without those of what was called within; the device is waited for at each border."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.spent: dict[str, float] = defaultdict(float)
        self._open: list[tuple[str, float]] = []

    def begin(self, name: str) -> None:
        """From here on it is this part's time."""
        now = self._now()
        if self._open:
            outer, since = self._open[-1]
            self.spent[outer] += now - since
        self._open.append((name, now))

    def end(self) -> None:
        """From here on it is the outer part's time again."""
        now = self._now()
        name, since = self._open.pop()
        self.spent[name] += now - since
        if self._open:
            self._open[-1] = self._open[-1][0], now

    def around(self, owner: Any, attribute: str, name: str) -> None:
        """Time every call of a method of one object."""
        method = getattr(owner, attribute)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.begin(name)
            try:
                return method(*args, **kwargs)
            finally:
                self.end()

        setattr(owner, attribute, timed)

    def _now(self) -> float:
        self.machine.settle()
        return time.perf_counter()


def by_part(machine: Machine, crowd: Crowd, pushes: int) -> list[Row]:
    """Seconds of tower, decoder, ranking, eviction and host for a push."""
    stream, watch = crowd.streams[0], Stopwatch(machine)
    whole = machine.seconds(partial(crowd.watch, stream, pushes))
    lm, loop, state = stream.lm, stream.loop, stream._state
    for owner, attribute, name in (
        (lm.adapter, "encode", "tower"),
        (loop, "_drop", "ranking"),
        (state.cache, "make_room", "eviction"),
        (state.cache, "truncate", "eviction"),
        (state.cache, "record", "eviction"),
        (state.cache, "slide", "eviction"),
    ):
        watch.around(owner, attribute, name)
    hooks: list[Any] = []
    for layer in loop.decoder.layers:
        hooks.append(layer.register_forward_pre_hook(lambda *_: watch.begin("decoder")))
        hooks.append(layer.register_forward_hook(lambda *_: watch.end()))
    try:
        for _ in range(pushes):
            watch.begin("host")
            crowd.push(stream)
            watch.end()
    finally:
        for hook in hooks:
            hook.remove()
        for owner, attribute in ((lm.adapter, "encode"), (loop, "_drop")):
            vars(owner).pop(attribute)
    total = sum(watch.spent.values())
    names = ("tower", "decoder", "ranking", "eviction", "host")
    rows: list[Row] = [
        {"part": name, "ms_per_push": 1e3 * watch.spent[name] / pushes, "share": watch.spent[name] / total}
        for name in names
    ]
    rows.append({"part": "a push without a stopwatch", "ms_per_push": 1e3 * whole / pushes, "share": None})
    return rows
