"""What a program sets for all of torch, a default dtype or device, changes nothing: bit for bit the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from families import FAMILIES, build, video
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import EVICTORS
from pdrop_video.pyramid import ALLOCATORS, SCORERS

DTYPES = (torch.float64, torch.float16, torch.bfloat16)
PICTURES = [video(4, seed=seed) for seed in range(5)]
METHODS = [
    *(dict(scorer=scorer) for scorer in SCORERS),
    *(dict(allocator=allocator) for allocator in ALLOCATORS),
    *(dict(evictor=evictor) for evictor in EVICTORS),
    *(dict(decode=decode) for decode in ("dstp:tau=1,steps=1", "fixation:keep=0.2,warm=1,jump=1,least=1")),
]


@contextmanager
def default(dtype: torch.dtype | None = None, device: str | None = None) -> Iterator[None]:
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype or before)
        torch.set_default_device(device)
        yield
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)


def everything(
    lm: pv.VideoLM, tokens: int, evictor: str = "pyramid", decode: str | None = None, **pyramid: Any
) -> list[Tensor]:
    """Whatever a stream does, with an archive, positions that move, told text and a kept turn; what it came to."""
    memory = pv.Memory(tokens=tokens, evictor=evictor, archive=1_000_000)
    stream = lm.stream(pv.Pyramid(stages=3, **pyramid), memory)
    for i, pictures in enumerate(PICTURES[:3]):
        stream.push(pictures, [10.25 * i + j for j in range(4)])
    answer = stream.ask("what is shown ?", 3, keep=True, pyramid=pv.Pyramid(stages=3), retrieve=2, decode=decode)
    stream.add_text("red")
    stream.push(PICTURES[3][:3], [100, 100.1, 100.2])
    stream.push(PICTURES[4], [5000, 5001, 5002, 5003])
    found = [stream.next_logits("what ?", retrieve=2), *stream.held(2).columns()]
    again = [weight for stage in answer.evidence for look in stage.again for weight in look.weight]
    numbers = [*answer.evidence[0].weight, *again, *stream.likelihood("what ?", ["red blue", "blue"])]
    return [*found, torch.tensor(numbers, dtype=torch.float64, device="cpu")]


def same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_of_every_family_is_the_same(family: str) -> None:
    lm, tokens = build(family), 300 if family == "smolvlm" else 120
    expected = everything(lm, tokens)
    for dtype in DTYPES:
        with default(dtype):
            same(everything(lm, tokens), expected)
    if family != "qwen2_5_vl":  # transformers' own vision tower counts its windows on the default device
        with default(device="meta"):  # whatever is made without a device has no values
            same(everything(lm, tokens), expected)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_stream_with_every_method_is_the_same(method: dict[str, str]) -> None:
    lm = build("qwen2_vl", dtype=torch.float32)
    expected = everything(lm, 90, **method)
    for how in (dict(dtype=torch.float16), dict(device="meta")):
        with default(**how):
            same(everything(lm, 90, **method), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_shot_is_the_same(family: str) -> None:
    lm = build(family)
    visual = torch.zeros(2, 30, dtype=torch.bool)
    visual[:, 4:24] = True
    ids = torch.randint(0, 100, (2, 30), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    ids[0, 0] = 7

    def logits() -> list[Tensor]:
        with torch.no_grad(), pv.pyramid_drop(lm.model, pv.Pyramid(stages=3), visual=visual) as trace:
            output = lm.model(input_ids=ids, attention_mask=mask)
        assert trace.rows is not None and trace.rows.shape[1] < 30
        return [output.logits, trace.rows]

    expected = logits()
    for dtype in DTYPES:
        with default(dtype):
            same(logits(), expected)


def test_loading_resuming_and_watching_a_file_are_the_same(tmp_path: Any) -> None:
    lm = pv.load()

    def answered(lm: pv.VideoLM) -> list[Tensor]:
        stream = lm.stream(memory=pv.Memory(tokens=200))
        with pv.open_video("demos/clips/clip.mp4", fps=1) as reader:
            for chunk in reader:
                stream.push(chunk)
        stream.save(tmp_path / "a.pdrop")
        resumed = lm.resume(tmp_path / "a.pdrop")
        logits = resumed.next_logits("What is shown first?")
        assert torch.equal(logits, stream.next_logits("What is shown first?"))
        return [logits, *stream.held().columns()]

    expected = answered(lm)
    for dtype in DTYPES:
        with default(dtype):
            for each in (lm, pv.load()):
                same(answered(each), expected)
