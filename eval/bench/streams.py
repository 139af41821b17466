"""Do many streams share a model without loss? Frames a second of 1, 2, 4 and 8 streams, each pushed by its own thread.

python -m eval.bench.streams --json
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Annotated

import pandas as pd
import typer

import pdrop_video as pv

from .common import AsJson, Out, in_turns, report
from .soak import CHUNK, frames_of

COUNTS = (1, 2, 4, 8)


class Crowd:
    """Some streams on one model, all full, and a thread for each that pushes.

    Parameters
    ----------
    lm : VideoLM
    count : int
        How many streams.
    tokens : int
        Budget of each, in tokens a layer.
    """

    def __init__(self, lm: pv.VideoLM, count: int, tokens: int) -> None:
        self.streams = [lm.stream(memory=pv.Memory(tokens=tokens)) for _ in range(count)]
        self.tokens, self.pictures = tokens, [frames_of(CHUNK * i, seed=0) for i in range(8)]
        self.errors: list[BaseException] = []
        self.behind = 0
        while max(self.streams[-1].cache_tokens) < tokens * 0.9:
            self.push(count)

    def push(self, chunks: int) -> None:
        """Push so many chunks in all, as many to each stream."""
        each = chunks // len(self.streams)
        self.done = dict.fromkeys(range(len(self.streams)), 0)
        threads = [Thread(target=self._work, args=(number, each)) for number in self.done]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _work(self, number: int, chunks: int) -> None:
        stream = self.streams[number]
        try:
            for i in range(chunks):
                first = stream.status.frames
                stream.push(self.pictures[i % len(self.pictures)], range(first, first + CHUNK))
                assert max(stream.cache_tokens) <= self.tokens, "over budget"
                self.done[number] += 1
                if self.done[number] == chunks:
                    self.behind = max(self.behind, chunks - min(list(self.done.values())))
        except BaseException as error:  # raised in the thread that measures
            self.errors.append(error)

    @property
    def cache_bytes(self) -> int:
        """Held by all streams."""
        return sum(stream.cache_bytes for stream in self.streams)


def main(
    chunks: Annotated[int, typer.Option(help="Chunks of 8 frames a turn, over all streams.", min=8)] = 160,
    repeats: Annotated[int, typer.Option(help="Timed turns.", min=1)] = 7,
    tokens: Annotated[int, typer.Option(help="Budget of each stream, in tokens a layer.")] = 1024,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """The same number of frames through 1, 2, 4 and 8 streams on one copy of the weights."""
    chunks -= chunks % max(COUNTS)
    lm = pv.load()
    crowds = {count: Crowd(lm, count, tokens) for count in COUNTS}

    def run(crowd: Crowd) -> Callable[[], None]:
        return lambda: crowd.push(chunks)

    times = in_turns({str(count): run(crowd) for count, crowd in crowds.items()}, repeats)
    budget = tokens * lm.num_layers * crowds[1].streams[0].token_bytes
    table = pd.DataFrame(
        {
            "streams": count,
            "frames_per_second": chunks * CHUNK / times[str(count)].median(),
            "to_one_stream": float((times["1"] / times[str(count)]).median()),
            "most_chunks_behind": crowd.behind,
            "cache_bytes": crowd.cache_bytes,
            "budget_bytes": count * budget,
        }
        for count, crowd in crowds.items()
    )
    assert (table.cache_bytes <= table.budget_bytes).all(), "over budget"
    weights = sum(parameter.nbytes for parameter in lm.model.parameters())
    figures = {"to_one_stream": float(table.to_one_stream.iloc[-1]), "weights_bytes": weights}
    draw = lambda shown: shown.plot.bar(x="streams", y="frames_per_second", legend=False, rot=0)  # noqa: E731
    report("streams", table, draw, out, as_json, figures)


if __name__ == "__main__":
    typer.run(main)
