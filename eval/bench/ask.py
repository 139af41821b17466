"""How long does a question wait for its first token, minute by minute? A random decoder of the 0.5 B shape.

    python -m eval.bench.ask --json

An hour of 1 fps video is pushed through a memory of 6,144 tokens a layer. At minute 1, 10 and 60 the stream is put
aside, and at the end each of the three is asked in turns within one run, against what a user of transformers does
today: prefill the same frames again, all tokens of them, with the question behind. The same frames are the newest ones
that fit into 6,144 tokens. What encodes pictures is left out on that side, and the prompt too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pandas as pd
import torch
import typer

import pdrop_video as pv

from .common import AsJson, Out, in_turns, random_lm, report

QUESTION = "what is shown first in the video?"
SIDE, STEP = 140, 25
"""Pixels of a frame's side; visual tokens of a step, which is two frames."""
CHUNK = 40
"""Frames a push."""


def watched(lm: pv.VideoLM, minutes: list[int], pyramid: pv.Pyramid, memory: pv.Memory) -> dict[int, pv.VideoStream]:
    """The stream as it was after so many minutes of random pictures, for each of `minutes`."""
    stream = lm.stream(pyramid, memory)
    shelf: dict[int, pv.VideoStream] = {}
    generator = torch.Generator().manual_seed(0)
    for first in range(0, 60 * max(minutes), CHUNK):
        shelf |= {minute: stream.fork() for minute in minutes if first - CHUNK < 60 * minute <= first}
        pictures = torch.randint(0, 256, (CHUNK, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
        stream.push(pictures, range(first, first + CHUNK))
    return shelf | {max(minutes): stream}


def again(lm: pv.VideoLM, visual: int) -> Callable[[], Any]:
    """One prefill of so many visual tokens and the question by the unmodified model, to the first token."""
    rows = visual + len(lm.prompt.after(QUESTION))
    inputs = {
        "inputs_embeds": torch.randn(1, rows, lm.model.config.get_text_config().hidden_size, dtype=lm.model.dtype),
        "position_ids": torch.arange(rows).expand(3, 1, -1),
        "use_cache": True,
        "logits_to_keep": 1,
    }

    def run() -> int:
        with torch.no_grad():
            return int(lm.model(**inputs).logits[0, -1].argmax())

    return run


def main(
    minutes: Annotated[str, typer.Option(help="When to ask, comma-separated.")] = "1,10,60",
    tokens: Annotated[int, typer.Option(help="Memory budget, in tokens a layer.")] = 6144,
    evictor: Annotated[str, typer.Option(help="What is forgotten.")] = "oldest",
    ratios: Annotated[str, typer.Option(help="Of the pyramid; 'none' drops nothing, so every layer is full.")] = "none",
    repeats: Annotated[int, typer.Option(help="Timed turns.", min=1)] = 5,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Time to first token over the memory, against prefilling the same window again."""
    lm = random_lm()
    pyramid = pv.Pyramid(stages=1) if ratios == "none" else pv.Pyramid(ratios=tuple(map(float, ratios.split(","))))
    streams = watched(lm, [int(m) for m in minutes.split(",")], pyramid, pv.Memory(tokens=tokens, evictor=evictor))
    asking = {str(m): lambda s=stream: s.ask(QUESTION, max_new_tokens=1) for m, stream in streams.items()}
    asked = in_turns(asking, 3 * repeats)
    windows = {m: min(30 * m * STEP, tokens // STEP * STEP) for m in streams}
    prefills = in_turns({str(n): again(lm, n) for n in sorted(set(windows.values()))}, repeats)
    first = next(iter(asking), "")
    rows = [
        {
            "minute": m,
            "remembered": max(stream.cache_tokens),
            "window_tokens": windows[m],
            "ask_s": asked[str(m)].median(),
            "prefill_s": prefills[str(windows[m])].median(),
            "speedup": prefills[str(windows[m])].median() / asked[str(m)].median(),
            "against_first": (asked[str(m)] / asked[first]).median(),
            "against_last": (asked[asked.columns[-1]] / asked[str(m)]).median(),
        }
        for m, stream in streams.items()
    ]
    report("ask", pd.DataFrame(rows), _draw, out, as_json)


def _draw(table: pd.DataFrame) -> Any:
    axes = table.plot(x="minute", y=["ask_s", "prefill_s"], marker="o", logy=True)
    axes.set(xlabel="minutes watched", ylabel="seconds to the first token", ylim=(table.ask_s.min() / 2, None))
    return axes


if __name__ == "__main__":
    typer.run(main)
