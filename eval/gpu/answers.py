"""How long does a question wait for its first token, and how fast is an answer decoded? At the 7 B shape.

A stream remembers 6,144 tokens a layer, or what a pyramid leaves of them. The other side is what a user of
transformers does today: prefill as many tokens again with the question behind, and decode over a `DynamicCache`, each
token read by the host as whoever prints it does. What encodes pictures is left out on that side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from transformers import DynamicCache

import pdrop_video as pv

from .machine import Machine
from .parts import Setting
from .shapes import PYRAMID, QUESTION, WHOLE, large, pictures
from .state import Row

SIDE, CHUNK = 140, 40
"""Pixels of a frame's side, two of which are 25 visual tokens; frames a push."""


def cases(setting: Setting) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """First tokens, then decoding, by one way after another."""
    machine = Machine.of(setting)
    remembered, tokens = (256, 8) if machine.small else (6144, 96)
    lm = partial(large, machine)

    @cache
    def watch(name: str) -> pv.VideoStream:
        return watched(lm(), {"ours": WHOLE, "ours, pyramid": PYRAMID}[name], remembered)

    yield "first token", lambda: first_token(machine, lm(), watch, remembered)
    yield "decode, transformers", lambda: [decoded(*by_transformers(machine, lm(), remembered, tokens))]
    yield "decode, ours", lambda: [decoded(*by_stream("ours", watch("ours"), tokens))]
    yield "decode, ours, pyramid", lambda: [decoded(*by_stream("ours, pyramid", watch("ours, pyramid"), tokens))]
    yield "decode, ours, compiled", lambda: [decoded(*compiled(lm(), remembered, tokens))]


def watched(lm: pv.VideoLM, pyramid: pv.Pyramid, tokens: int) -> pv.VideoStream:
    """A stream that holds as much as it may."""
    stream = lm.stream(pyramid, pv.Memory(tokens=tokens, evictor="oldest"))
    at = 0
    while at == 0 or stream.visual_tokens < 1.2 * tokens:
        stream.push(pictures(CHUNK, SIDE, SIDE, at), range(at, at + CHUNK))
        at += CHUNK
    return stream


def prompt_again(machine: Machine, lm: pv.VideoLM, visual: int) -> dict[str, Any]:
    """Inputs of a prefill of so many visual tokens and the question by the unmodified model."""
    rows = visual + len(lm.prompt.after(QUESTION))
    size = 1, rows, lm.model.config.get_text_config().hidden_size
    return {
        "inputs_embeds": torch.randn(size, dtype=lm.model.dtype, device=machine.device),
        "position_ids": torch.arange(rows, device=machine.device).expand(3, 1, -1),
        "use_cache": True,
        "logits_to_keep": 1,
    }


@torch.no_grad()
def first_token(machine: Machine, lm: pv.VideoLM, watch: Callable[[str], pv.VideoStream], remembered: int) -> list[Row]:
    """From a question to its first token."""
    inputs, model = prompt_again(machine, lm, remembered), lm.model
    streams = {name: watch(name) for name in ("ours", "ours, pyramid")}
    runs: dict[str, Callable[[], Any]] = {"prefill again": lambda: int(model(**inputs).logits[0, -1].argmax())}
    runs |= {name: partial(stream.ask, QUESTION, max_new_tokens=1) for name, stream in streams.items()}
    times = machine.in_turns(runs, 2 if machine.small else 7)
    again = times["prefill again"]
    return [
        {
            "way": name,
            "layer_0_holds": remembered if name not in streams else streams[name].cache_tokens[0],
            "last_layer_holds": remembered if name not in streams else streams[name].cache_tokens[-1],
            "first_token_ms": 1e3 * spent,
            "speedup": again / spent,
        }
        for name, spent in times.items()
    ]


def decoded(name: str, tokens: int, seconds: float | None, note: str = "") -> Row:
    """One line of the report."""
    rate = None if not seconds else tokens / seconds
    return {"way": name, "tokens": tokens, "tokens_per_second": rate, "note": note}


@torch.no_grad()
def by_transformers(machine: Machine, lm: pv.VideoLM, remembered: int, tokens: int) -> tuple[str, int, float]:
    """Greedy decoding by the unmodified model over its own cache; the first of two rounds warms up."""
    model, spent = lm.model, 0.0
    for _ in range(2):
        cache_ = DynamicCache(config=model.config.get_text_config())
        inputs = prompt_again(machine, lm, remembered)
        token = int(model(**inputs, past_key_values=cache_).logits[0, -1].argmax())
        begins = inputs["inputs_embeds"].shape[1]

        def run(token: int = token, begins: int = begins, cache_: Any = cache_) -> None:
            for i in range(tokens):
                ids = torch.tensor([[token]], device=machine.device)
                place = torch.full((3, 1, 1), begins + i, device=machine.device)
                logits = model(input_ids=ids, position_ids=place, past_key_values=cache_, use_cache=True).logits
                token = int(logits[0, -1].argmax())

        spent = machine.seconds(run)
    return "transformers, DynamicCache", tokens, spent


def by_stream(name: str, stream: pv.VideoStream, tokens: int) -> tuple[str, int, float]:
    """An answer of a stream, from its first token to its last; the first of two warms up."""
    answer = [stream.ask(QUESTION, max_new_tokens=tokens + 1) for _ in range(2)][1]
    return name, len(answer.token_ids) - 1, answer.timings.decode


def compiled(lm: pv.VideoLM, remembered: int, tokens: int) -> tuple[str, int, float | None, str]:
    """The same where one compiled step makes all tokens of an answer."""
    name = "ours, compiled"
    try:
        again = pv.VideoLM(lm.model, lm.adapter, lm.prompt, lm.name, compile=True)
    except pv.ModelError as error:
        return name, 0, None, str(error)
    return *by_stream(name, watched(again, WHOLE, remembered), tokens), ""
