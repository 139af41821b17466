"""What do forgetting, moving positions and the cache itself cost? A random decoder of the 0.5 B shape.

    python -m eval.bench.evict --json

Every evictor keeps a full memory of 6,144 tokens a layer within its budget while chunks come; the share of a chunk's
time is the time spent in `StreamCache.make_room`, which evicts and re-rotates, over that of the whole push. In a window
of positions keys move once in hours; with "compact" they move in every chunk, which is the dearest that it gets.
Before that, one decoding step of the unmodified model over a full cache of the library's own, in turns with one over
transformers' `DynamicCache` of the same length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from torch import Tensor
from transformers import DynamicCache

import pdrop_video as pv
from pdrop_video.common.kinds import kinds_of
from pdrop_video.memory import EVICTORS, Ahead, Limits, StreamCache

from .common import AsJson, Out, in_turns, random_lm, report, seconds

SIDE, STEP = 336, 144
"""Pixels of a frame's side; visual tokens of a step, which is two frames."""
CHUNK = 8
"""Frames a push."""
WARM = 2
"""Chunks before the clock runs."""
PYRAMID = pv.Pyramid(stages=1)
"""Nothing is dropped, so that every layer's memory is full."""


class Stopwatch:
    """Times one cache's `make_room`, and counts how often it moved positions."""

    def __init__(self, cache: StreamCache) -> None:
        self.seconds, self.moves = 0.0, 0
        self._cache, self._make_room = cache, cache.make_room
        cache.make_room = self  # type: ignore[method-assign]

    def __call__(self, incoming: list[int], ahead: Ahead) -> None:
        """Make room."""
        before = self._cache.shifts[0]
        self.seconds += seconds(lambda: self._make_room(incoming, ahead))
        self.moves += self._cache.shifts[0] != before


def pictures(first: int) -> tuple[Tensor, range]:
    """Random frames of so many seconds on."""
    generator = torch.Generator().manual_seed(first)
    shape = (CHUNK, SIDE, SIDE, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8), range(first, first + CHUNK)


def full(lm: pv.VideoLM, tokens: int) -> pv.VideoStream:
    """A stream without a budget that remembers as much as the others may, and what a probe asked last."""
    stream = lm.stream(PYRAMID, pv.Memory(tokens=None, evictor="stream_mem"))
    while min(stream.cache_tokens) < tokens:
        stream.push(*pictures(CHUNK * stream._state.chunks))
    return stream


def forgetting(donor: pv.VideoStream, memory: pv.Memory, chunks: int) -> dict[str, Any]:
    """One row: an evictor takes over what `donor` remembers and goes on for some chunks."""
    stream = donor.lm.stream(PYRAMID, memory)
    state, own = donor._state.fork(), stream._state.cache
    state.cache.limits, state.cache.evictor = own.limits, own.evictor
    stream._state = state
    for _ in range(WARM):  # the first makes the memory its own, the next ones have what a probe asked
        stream.push(*pictures(CHUNK * stream._state.chunks))
    watch = Stopwatch(stream._state.cache)
    pushes = [seconds(lambda: stream.push(*pictures(CHUNK * stream._state.chunks))) for _ in range(chunks)]
    return {
        "evictor": memory.evictor,
        "positions": memory.positions,
        "chunk_s": sum(pushes) / chunks,
        "evict_s": watch.seconds / chunks,
        "fraction": watch.seconds / sum(pushes),
        "moves_per_chunk": watch.moves / chunks,
        "bytes_per_token": stream.cache_bytes / sum(stream.cache_tokens),
    }


def decoding(lm: pv.VideoLM, tokens: int, repeats: int) -> dict[str, float]:
    """One step over `tokens` in every layer: the library's cache against `DynamicCache`, in the unmodified model."""
    text = lm.model.config.get_text_config()
    size = (1, text.num_key_value_heads, tokens, text.hidden_size // text.num_attention_heads)
    ours = StreamCache(kinds_of(text), Limits((tokens,) * lm.num_layers), EVICTORS["oldest"])
    theirs = DynamicCache(config=text)
    for i in range(lm.num_layers):
        keys, values = (torch.randn(size, dtype=lm.model.dtype) for _ in range(2))
        ours.update(keys, values, i), theirs.update(keys, values, i)

    def step(cache: Any) -> Callable[[], Any]:
        ids = torch.tensor([[7]])

        def run() -> Any:
            place = torch.full((3, 1, 1), cache.get_seq_length())
            with torch.no_grad():
                return lm.model(input_ids=ids, position_ids=place, past_key_values=cache, use_cache=True)

        return run

    times = in_turns({"ours": step(ours), "dynamic": step(theirs)}, repeats)
    return {"step_s": times.ours.median(), "against_dynamic": (times.ours / times.dynamic).median()}


def main(
    tokens: Annotated[int, typer.Option(help="Memory budget, in tokens a layer.")] = 6144,
    evictors: Annotated[str, typer.Option(help="Which, comma-separated.")] = ",".join(EVICTORS),
    chunks: Annotated[int, typer.Option(help="Measured chunks of each.", min=1)] = 6,
    steps: Annotated[int, typer.Option(help="Measured decoding steps.", min=1)] = 40,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """The share of a chunk's time that forgetting takes, and the price of the cache in a decoding step."""
    lm = random_lm()
    figures = decoding(lm, tokens, steps)
    typer.echo(f"a decoding step over {tokens} tokens: {figures['against_dynamic']:.3f} of DynamicCache's")
    donor = full(lm, tokens)
    rows = []
    for name in evictors.split(","):
        own = pv.Memory(tokens=tokens, evictor=name)
        for positions in {own.positions: None, "compact": None}:
            memory = pv.Memory(tokens=tokens, evictor=name, positions=positions)
            rows.append(forgetting(donor, memory, chunks))
            typer.echo(f"{name}, {positions}: {rows[-1]['fraction']:.2%} of a chunk")
    report("evict", pd.DataFrame(rows), _draw, out, as_json, figures)


def _draw(table: pd.DataFrame) -> Any:
    bars = table.assign(name=table.evictor + ", " + table.positions, percent=100 * table.fraction)
    axes = bars.plot.barh(x="name", y="percent", legend=False)
    axes.axvline(5, linestyle="--", color="grey")
    axes.set(xlabel="per cent of a chunk's time", ylabel="")
    return axes


if __name__ == "__main__":
    typer.run(main)
