"""FLOPs of answers that look again, and of reading what is stored in fewer bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import FAMILIES, build, cases, video
from hybrids import HYBRIDS
from hybrids import build as build_hybrid
from test_flops_stream import QUESTION, counting
from torch.utils._python_dispatch import TorchDispatchMode

import pdrop_video as pv
from eval.runner.clock import Clock
from eval.runner.metered import Metered
from eval.runner.steps import stepwise
from pdrop_video.costs.decoder import DecoderShape, layer_flops
from pdrop_video.costs.looking import Looked, Scored
from pdrop_video.costs.stream import StreamShape
from pdrop_video.memory import STORAGES
from pdrop_video.memory.storages import SIDES, reading_flops
from pdrop_video.stream.limits import reading_of

HALF = pv.Pyramid(ratios=(0.5, 0.25))
LOOKS = (
    ("dstp:tau=0", HALF),
    ("dstp:tau=1,steps=2", HALF),
    ("dstp:tau=1,steps=3,joint=false", HALF),
    ("fixation:keep=0.2,count=2,warm=2,refresh=4,least=1", HALF),
    ("fixation:keep=0.2,focal=3,refresh=3,least=1", None),
)


def watched(lm: pv.VideoLM) -> tuple[pv.VideoStream, Metered]:
    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
    metered = Metered(stream, DecoderShape.of(lm.model.config), Clock(), causal=False)
    for i in range(3):
        pictures = video(4, seed=i)
        metered.push(pv.FrameChunk(pictures, tuple(2.0 * i + j / 2 for j in range(len(pictures)))))
    return stream, metered


@pytest.mark.parametrize(
    ("family", "look"),
    cases(FAMILIES | HYBRIDS, range(len(LOOKS)), fast=lambda f, s: f == 0 or (f == len(FAMILIES) and s == 1)),
)
def test_an_answer_that_looks_again_costs_what_pytorch_counts(family: str, look: int) -> None:
    """Columns seen by each token, and what is scored to choose them: while nothing shifts and while all is shown."""
    lm = (build_hybrid if family in HYBRIDS else build)(family, attn="eager", dtype=torch.float32)
    decode, pyramid = LOOKS[look]
    stream, metered = watched(lm)
    with counting() as asked:
        answer = stream.ask(QUESTION, 9, pyramid=pyramid, decode=decode)
    rows, tokens = metered.rows(QUESTION), len(answer.token_ids) + answer.finished
    assert tokens > 6 and answer.looked is not None
    assert asked.total == metered.asking_flops(rows, tokens, pyramid, looked=answer.looked)
    assert asked.total != metered.asking_flops(rows, tokens, pyramid)


@pytest.mark.parametrize("decode", [None, "dstp:tau=1,steps=100", "fixation:focal=2,least=1"])
def test_options_behind_two_steps_see_what_the_answer_does(decode: str | None) -> None:
    lm = pv.load(attn="eager", dtype="float32")
    stream, metered = watched(lm)
    says, options = ("top left", "What colour is the key?"), ("red", "top left")
    with counting() as asked:
        stepped = stepwise(stream, QUESTION, says, options, pyramid=HALF, decode=decode)
    how: dict[str, Any] = {"options": options, "looked": stepped.looked, "seen": stepped.seen}
    assert asked.total == metered.asking_flops(metered.rows(QUESTION), 1 + stepped.fed, HALF, **how)


def test_what_was_looked_at_by_the_formula() -> None:
    """Twelve columns more of 2 heads of 16 and 16 numbers, read from a storage of 3 FLOPs a column; and one score."""
    decoder = DecoderShape(layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, mlp=160, vocabulary=96)
    shape = StreamShape(decoder, pv.Pyramid(stages=1).resolve(2), reading=(3, 3))
    plain, looked = shape.answer_flops((50, 50), 7, 4), Looked({1: 4 * 50 + 12})
    assert shape.answer_flops((50, 50), 7, 4, looked) - plain == 12 * (2 * 4 * (16 + 16) + 3)
    looked = Looked(scored={0: Scored(queries=2, keys=5, read=30, pairs=64)})
    more = 2 * (2 * 64 * 64 + 5 * 64 * 32 + 64 * 64) + 30 * 3
    assert shape.answer_flops((50, 50), 7, 4, looked) - plain == more
    assert (
        plain
        == sum(layer_flops(decoder, i, 1, 57 + done) for i in range(2) for done in range(4))
        + 4 * 2 * 64 * 96
        + 4 * 100 * 3
    )


class Arithmetic(TorchDispatchMode):
    """Counts numbers that sums, differences and products of floating point make."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__.rstrip("_") in ("mul", "add", "sub") and found.is_floating_point():
            self.total += found.numel()
        return found


@pytest.mark.parametrize(("storage", "each"), [("int8", 6), ("int4", 6), ("int8_per_token", 2), ("full", 0)])
def test_reading_fewer_bits_costs_so_much_a_number(storage: str, each: int) -> None:
    """Of a key's and a value's number together: what is run, what is counted, and that streams count it."""
    total, states = 0, torch.randn(1, 2, 30, 64)
    for side in SIDES:
        codec = STORAGES[storage](side)
        learned = codec.learn(states)
        parts = codec.encode(states, learned)
        with Arithmetic() as counter:
            codec.decode(parts, learned, torch.float32)
        total += counter.total
    assert total == each * 2 * 30 * 64 == 30 * reading_flops(STORAGES[storage], 2, 64, 64)
    shape = DecoderShape(layers=4, hidden=64, heads=4, kv_heads=2, head_dim=16, mlp=160, vocabulary=96)
    assert reading_of(STORAGES[storage], shape) == (each * 2 * 16,) * 4
