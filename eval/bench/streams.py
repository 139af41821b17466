"""Eight streams on one model: what is gained by computing their rows together, and what a question waits for.

Each figure is a ratio within one run, of the random 0.5 B model: with the engine (``load(..., batch=8)``) to streams
that take turns, which read the weights once for each of them. `decode8` is of tokens behind the first ones, `push8` of
pushes of two frames, `first_token8` what a question waits while the others watch, to what it waits alone, and `alone` a
push and an answer with the engine to the same without. Takes about 4 minutes on two cores.

What can be gained is bounded by the processor: `decode8_products` and `push8_products` are what the decoder's products
alone gain if the rows of eight streams are computed in one call each. Where 56 rows already keep it busy, eight times
as many take eight times as long.

python -m eval.bench.streams --json
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from threading import Event
from typing import Annotated, Any, TypeVar

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import typer
from torch import nn

import pdrop_video as pv

from .common import AsJson, Out, in_turns, measure_in, random_lm, report
from .threads import at_once

T = TypeVar("T")
STREAMS = 8
WAYS = {"apart": 1, "together": STREAMS}
PICTURE = (196, 224)
"""Of 56 visual tokens for two frames."""
QUESTION = "what is shown first in the video ?"


class Answering:
    """An answer behind its first token, which goes on for ever: what the random model says is no text."""

    def __init__(self, stream: pv.VideoStream) -> None:
        self.stream = stream
        with stream._access.whole():
            self.question = stream._asked(QUESTION, "", None)
            self.logits = self.question.prefill()

    def token(self) -> None:
        """The next token, in a turn of its own."""
        with self.stream._access.turn():
            logits = self.question.advance(self.logits.argmax())
            assert logits is not None, "no position is left"
            self.logits = logits


class Crowd:
    """Some full streams on one model.

    Parameters
    ----------
    lm : VideoLM
    tokens : int
        Budget of each stream, in tokens a layer.
    answer : int
        Tokens of an answer.
    """

    def __init__(self, lm: pv.VideoLM, tokens: int, answer: int) -> None:
        self.streams = [lm.stream(memory=pv.Memory(tokens=tokens)) for _ in range(STREAMS)]
        self.tokens, self.answer = tokens, answer
        self.frames = np.random.default_rng(0).integers(0, 256, (2, *PICTURE, 3), dtype=np.uint8)
        self.seconds = count(step=1.0)
        while max(self.streams[-1].cache_tokens) < tokens * 0.9:
            for stream in self.streams:
                self.push(stream)
        forks = [stream.fork() for stream in self.streams]  # which go on while the streams themselves are pushed into
        self.answers = [Answering(fork) for fork in forks]

    def push(self, stream: pv.VideoStream) -> None:
        """Two more frames."""
        at = next(self.seconds)
        stream.push(self.frames, [at, at + 0.5])
        assert max(stream.cache_tokens) <= self.tokens, "over budget"

    def ask(self, stream: pv.VideoStream) -> None:
        """A whole answer."""
        answer = stream.ask(QUESTION, self.answer)
        assert len(answer.token_ids) == self.answer

    def go_on(self, answer: Answering) -> None:
        """Some more tokens of an answer."""
        for _ in range(self.answer):
            answer.token()

    def waits(self, stream: pv.VideoStream) -> float:
        """Seconds to the first token of a question."""
        return stream.ask(QUESTION, 1).timings.first_token

    def waits_while_others_watch(self, repeats: int) -> list[float]:
        """The same while the other streams watch without a pause."""
        over, waited = Event(), []

        def watch(stream: pv.VideoStream) -> None:
            while True:  # at least once, however late this thread comes
                self.push(stream)
                if over.is_set():
                    return

        def ask() -> None:
            try:
                for turn in range(repeats + 1):
                    over.wait(0.1 + 0.07 * turn)  # at another moment of the others' forwards each time
                    waited.append(self.waits(self.streams[0]))
            finally:
                over.set()

        watching = [partial(watch, stream) for stream in self.streams[1:]]
        at_once([ask, *watching])
        return waited[1:]


def each(do: Callable[[T], None], those: Sequence[T]) -> Callable[[], None]:
    """Something for one after another."""

    def run() -> None:
        for one in those:
            do(one)

    return run


def everyone(do: Callable[[T], None], those: Sequence[T]) -> Callable[[], None]:
    """The same for all at once."""
    return lambda: at_once([partial(do, one) for one in those])


def products(model: Any, rows: int, calls: int) -> Callable[[], None]:
    """The products of the decoder's linear maps with so many rows, so many times one after another."""
    maps = [each for layer in model.get_decoder().layers for each in layer.modules() if type(each) is nn.Linear]
    given = {size: torch.randn(1, rows, size, dtype=model.dtype) for size in {each.in_features for each in maps}}

    def run() -> None:
        for _ in range(calls):
            for each in maps:
                F.linear(given[each.in_features], each.weight)

    return run


def shared(batch: int) -> pv.VideoLM:
    """The random model, whose answers never end by themselves; `batch` is as `load` takes it."""
    lm = random_lm()
    lm.model.generation_config.eos_token_id = None
    return pv.VideoLM(lm.model, lm.adapter, lm.prompt, "random", batch=batch)


def main(
    repeats: Annotated[int, typer.Option(help="Timed turns.", min=1)] = 5,
    tokens: Annotated[int, typer.Option(help="Budget of each stream, in tokens a layer.")] = 1024,
    answer: Annotated[int, typer.Option(help="Tokens of an answer.", min=2)] = 16,
    dtype: Annotated[str, typer.Option(help="Number type; auto is what load takes.")] = "auto",
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Answers, chunks and a question, of eight streams with the engine against streams that take turns."""
    measure_in(dtype)
    turns, engine = Crowd(shared(1), tokens, answer), Crowd(shared(STREAMS), tokens, answer)

    def alone(crowd: Crowd) -> Callable[[], None]:
        def run() -> None:
            crowd.push(crowd.streams[0])
            crowd.ask(crowd.streams[0])

        return run

    times = in_turns(
        {
            "answers, turns": each(turns.go_on, turns.answers),
            "answers, engine": everyone(engine.go_on, engine.answers),
            "chunks, turns": each(turns.push, turns.streams),
            "chunks, engine": everyone(engine.push, engine.streams),
            "one stream, turns": alone(turns),
            "one stream, engine": alone(engine),
        },
        repeats,
    )
    model = turns.streams[0].lm.model
    bounds = in_turns(
        {
            f"{rows} rows, {name}": products(model, rows * n, STREAMS // n)
            for rows in (1, 56)
            for name, n in WAYS.items()
        },
        repeats,
    )
    still = [engine.waits(engine.streams[0]) for _ in range(repeats + 1)][1:]
    busy = engine.waits_while_others_watch(3 * repeats)
    median = times.median()
    table = pd.DataFrame(
        {"what": median.index, "seconds": median.to_numpy()}
        | {"streams": [1 if name.startswith("one") else STREAMS for name in median.index]}
    )
    waits = {"first token": still, "first token, 7 others watch": busy}
    more = [{"what": name, "seconds": float(np.median(each)), "streams": 1} for name, each in waits.items()]
    table = pd.concat([table, pd.DataFrame(more)], ignore_index=True)
    figures = {
        "decode8": float((times["answers, turns"] / times["answers, engine"]).median()),
        "push8": float((times["chunks, turns"] / times["chunks, engine"]).median()),
        "first_token8": float(np.median(busy) / np.median(still)),
        "first_token8_most": float(np.max(busy) / np.median(still)),
        "decode8_products": float((bounds["1 rows, apart"] / bounds["1 rows, together"]).median()),
        "push8_products": float((bounds["56 rows, apart"] / bounds["56 rows, together"]).median()),
        "alone": float((times["one stream, engine"] / times["one stream, turns"]).median()),
    }
    draw = lambda shown: shown.plot.barh(x="what", y="seconds", legend=False)  # noqa: E731
    report("streams", table, draw, out, as_json, figures)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    typer.run(main)
