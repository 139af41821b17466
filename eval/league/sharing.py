"""What the league's rows share within one process: the model, decoded frames, and what the vision tower made of them.

Nothing of it changes a result: frames are those that decoding gives, and the tower gives the same tokens for the same
pictures. Knows workers of `eval.runner`; refuses to know systems.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from torch import Tensor

import pdrop_video as pv
from pdrop_video.stream.sight import sight_of

from ..runner.config import RunConfig
from ..runner.frames import Frames, Viewing
from ..runner.worker import StreamWorker, load_model
from ..tasks import Item

GIGABYTES = 1.0
"""Of decoded frames that stay in memory, and a quarter of that of visual tokens."""


class Bounded:
    """Values by key, up to a number of bytes; what was used least recently goes first.

    Parameters
    ----------
    most : int
        Bytes.
    """

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self._values: OrderedDict[object, tuple[Any, int]] = OrderedDict()

    def get(self, key: object) -> Any:
        """The value, or None."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: object, value: Any, size: int) -> None:
        """Keep a value; one that is larger than all that may be kept is not."""
        if size > self.most:
            return
        self._values[key] = value, size
        self.held += size
        while self.held > self.most:
            _, (_, freed) = self._values.popitem(last=False)
            self.held -= freed


class HeldFrames(Frames):
    """Viewings that were drawn to their end once are handed out again without decoding.

    Parameters
    ----------
    held : Bounded
        Where they stay.
    """

    def __init__(self, held: Bounded) -> None:
        super().__init__()
        self._held = held

    def __call__(self, viewing: Viewing) -> Iterator[pv.FrameChunk]:
        """Draw the chunks of a viewing."""
        self.warnings = []
        known = self._held.get(viewing)
        if known is not None:
            for chunk, warnings in known:
                self.warnings = warnings
                yield chunk
            return
        drawn, size = [], 0
        for chunk in super().__call__(viewing):
            size += chunk.frames.nbytes
            if size <= self._held.most:  # else a long video would fill the memory before it is refused
                drawn.append((chunk, self.warnings))
            yield chunk
        if drawn:
            drawn[-1] = drawn[-1][0], self.warnings  # what was missing is known at the end
        self._held.put(viewing, drawn, size)


def remember_tower(lm: pv.VideoLM, held: Bounded) -> None:
    """Let a model's vision tower look at a run of pictures once; the same run again gives the same tokens from memory.

    Runs are known by all their pixels. Where a reducer wants to know what went on within the tower, it looks anew.
    """
    adapter: Any = lm.adapter
    tokens, look = adapter.tokens, adapter.look
    anew = False

    def remembered(
        frames: Tensor, seconds: tuple[float, ...], worth: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], tuple[int, int, int]]:
        if anew:
            seen: tuple[tuple[Tensor, ...], tuple[int, int, int]] = tokens(frames, seconds, worth)
            return seen
        key = _name(frames), None if worth is None else _name(worth)
        known = held.get(key)
        if known is None:
            known = tokens(frames, seconds, worth)
            held.put(key, known, sum(each.nbytes for each in known[0]))
        return tuple(each.clone() for each in known[0]), known[1]

    def looked(frames: Tensor, seconds: tuple[float, ...], first: int = 0, worth: Any = None, knowing: Any = ()) -> Any:
        nonlocal anew
        anew = bool(knowing)
        try:
            return look(frames, seconds, first, worth, knowing)
        finally:
            anew = False

    adapter.tokens, adapter.look = remembered, looked


def _name(tensor: Tensor) -> tuple[Any, ...]:
    data = tensor.detach().cpu().contiguous().numpy()
    return tuple(data.shape), str(data.dtype), blake2b(data.tobytes()).hexdigest()


class Shared:
    """Models that are loaded once, for workers of many rows.

    Parameters
    ----------
    gigabytes : float
        Of decoded frames that stay in memory.
    """

    def __init__(self, gigabytes: float = GIGABYTES) -> None:
        self._frames = Bounded(int(gigabytes * 2**30))
        self._tokens = int(gigabytes * 2**28)
        self._models: dict[tuple[Any, ...], pv.VideoLM] = {}

    def model(self, config: RunConfig) -> pv.VideoLM:
        """The model of a run's settings, with its trained parts."""
        parts = tuple(getattr(config, "parts", ()))
        key = config.model, config.revision, config.dtype, config.attn, config.device, parts
        if key not in self._models:
            self._models[key] = load_model(config, 0)
            if sight_of(self._models[key].parts) is None:  # who reaches into the tower has to find it at work
                remember_tower(self._models[key], Bounded(self._tokens))
        return self._models[key]

    def worker(self, config: RunConfig) -> SharedWorker:
        """What does a row's items."""
        return SharedWorker(self.model(config), config, self._frames)


class SharedWorker(StreamWorker):
    """A worker with a model that is there already.

    Parameters
    ----------
    lm : VideoLM
    config : RunConfig
    held : Bounded
        Where decoded frames stay.
    """

    def __init__(self, lm: pv.VideoLM, config: RunConfig, held: Bounded) -> None:
        self.lm = lm
        self._begin(config)
        self.frames = HeldFrames(held)

    def watched(self, item: Item) -> Iterator[pv.FrameChunk]:
        """The whole of an item's video, chunk by chunk."""
        config, task = self.config, self.task
        motion = config.recipe_object().uses_motion
        return self.frames(
            Viewing(item.path, item.start, None, config.fps, config.frames, task.rule, config.chunk, motion)
        )
