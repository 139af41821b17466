"""What a recipe costs on a model, the whole way from frames into the memory. Needs sizes, never weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..costs.decoder import DecoderShape
from ..costs.stream import StreamShape, stream_flops
from ..costs.way import WayFlops, video_flops
from ..errors import ConfigError
from ..gate import gate_named
from ..memory import Limits
from ..models import Adapter
from ..parts import Part, taken
from ..pyramid import Schedule
from ..reduce import asks_for, reducer_named
from .limits import Sizes, reading_of, steps_at_once
from .recipe import Recipe
from .sight import Sight, left_of, look_flops, reaches, sight_of
from .state import StreamState
from .watching import Watching


def recipe_flops(
    recipe: Recipe,
    config: Any,
    adapter: Adapter,
    *,
    frames: int,
    height: int,
    width: int,
    chunk: int = 8,
    parts: Mapping[str, Part] | None = None,
) -> WayFlops:
    """FLOPs of watching so many frames with a recipe, by part.

    Parameters
    ----------
    recipe : Recipe
    config : PretrainedConfig
        The model's, as `pdrop_video.models.describe` gives it with the adapter.
    adapter : Adapter
        Its family.
    frames, height, width : int
        Of the video.
    chunk : int
        Frames a push.
    parts : mapping of str to Part, optional
        Trained parts that are loaded beside the model. What the tower costs through one that reaches into it is None
        where it is not given.

    Returns
    -------
    WayFlops

    Raises
    ------
    ConfigError
        If the memory can't hold one step.

    Notes
    -----
    Keys, values and states are of 16 bits before they are stored (some states of 32). A chunk that would fill a
    layer's budget runs in pieces of half of it, as in a stream. What a gate leaves out depends on the video: every
    frame counts. So does what a method inside layers leaves out: every layer counts whole. A reducer that can't say
    how much it leaves is taken to leave everything. Neither prompt nor glue nor probe are counted.
    """
    shape, step, grid = DecoderShape.of(config), adapter.frames_per_step, adapter.grid(height, width)
    schedule = recipe.pyramid.resolve(shape.layers, shape.rank_at)
    in_bytes = Sizes.of(recipe.memory.stored, shape, torch.bfloat16, shape.state_bytes())
    shares = [share if i in shape.rank_at else None for i, share in enumerate(schedule.per_layer_shares())]
    limits, tier = in_bytes.budgets(recipe.memory, shares)
    scorer = recipe.pyramid.scorer or "contrast"  # as where no question is known
    reading = reading_of(recipe.memory.stored, shape)
    stream = StreamShape(shape, schedule, scorer, limits=limits, reading=reading)
    gate = 0 if recipe.gate is None else gate_named(recipe.gate).flops(frames, height, width)
    steps, places = -(-frames // step), grid[0] * grid[1]
    at_once = _at_once(schedule, Limits(limits, limits, tier=tier).entering, max(chunk // step, 1), places)
    left, reducer = None, 0
    knowing: tuple[str, ...] = ()
    sight: Sight | None = None
    reaching = False
    if recipe.reducer is not None:
        method = reducer_named(recipe.reducer)
        sight, reaching = sight_of(taken(parts, method) if parts else {}), reaches(method)
        knowing = asks_for(method, adapter.knows)
        sizes = [places * min(at_once, steps - first) for first in range(0, steps, at_once)]
        reducer = sum(method.flops(tokens, shape.hidden) for tokens in sizes)
        whole = method.left(places * at_once)
        left = None if whole is None else whole // at_once
        if sight is not None:
            left = left_of(sight, grid, getattr(method, "full", False))
    way = video_flops(
        adapter, stream, steps, grid, chunk=at_once, left=left, gate=gate, reducer=reducer, knowing=knowing
    )
    if not reaching:
        return way
    return replace(way, tower=None if sight is None else look_flops(sight, adapter, grid, steps))


def _at_once(schedule: Schedule, limits: tuple[int, ...] | None, steps: int, places: int) -> int:
    """How many steps run together."""

    def fits(steps: int, share: float) -> bool:
        incoming = schedule.per_layer(steps * places)
        return limits is None or all(n <= most * share for n, most in zip(incoming, limits, strict=True))

    if not fits(1, 1.0):
        raise ConfigError(
            f"a memory of {min(limits or ()):,} tokens a layer can't hold one step of {places:,}; give more."
        )
    return steps_at_once(steps, fits)


def shape_of(stream: Watching, decoder: DecoderShape, causal: bool = True) -> StreamShape:
    """What the cost of a stream's next piece depends on, with the budget of each layer as it is now.

    Parameters
    ----------
    stream : VideoStream
    decoder : DecoderShape
        Of its model.
    causal : bool
        See `layer_flops`.
    """
    ingest, layers = stream._ingest, stream._state.cache.layers
    tokens, moved = ingest.limits.tokens, ingest.limits.moved
    limits = None
    if tokens is not None and moved is not None:
        entered = [layer.moved for layer in layers]
        limits = tuple(m if there else t for t, m, there in zip(tokens, moved, entered, strict=True))
    return StreamShape.of(
        decoder,
        stream.loop,
        len(ingest.probe),
        asks=ingest.looks,
        limits=limits,
        causal=causal,
        closing=len(stream.lm.adapter.closing()),
        reading=reading_of(ingest.storage, decoder),
    )


def pushed_flops(
    stream: Watching,
    decoder: DecoderShape,
    before: StreamState,
    held: Sequence[int],
    size: tuple[int, int, int],
    causal: bool = True,
) -> WayFlops:
    """FLOPs of a stream's last push, by part: what was run, counted from its sizes.

    Parameters
    ----------
    stream : VideoStream
        Right behind the push.
    decoder : DecoderShape
        Of its model.
    before : StreamState
        What it was before.
    held : sequence of int
        Tokens that each layer held then.
    size : (frames, height, width)
        Of the frames.
    causal : bool
        See `layer_flops`.
    """
    cost, after, front, flops = shape_of(stream, decoder, causal), stream._state, stream._ingest.front, 0
    waits = after.noted[: len(before.noted)] == before.noted and after.told == before.told
    for text in () if waits else (*before.noted, *before.told):  # it enters in front of the first frame behind it
        rows = len(stream.lm.adapter.closing()) + len(stream.lm.prompt.between(text))
        held = cost.room(held, [rows] * len(held))
        flops += cost.text_flops(held, rows)
        held = cost.with_text(held, rows)
    return WayFlops(
        tower=after.looked,
        decoder=flops + stream_flops(cost, after.pieces, held=held).flops,
        gate=0 if front.gate is None else front.gate.flops(*size),
        reducer=0
        if front.reducer is None
        else sum(front.reducer.flops(tokens, decoder.hidden) for tokens in after.reduced),
    )
