"""A `pyramid_drop` block: its door, threads that share it, and caches that come from outside or are carried out."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from typing import Any

import pytest
import torch
from families import build, video
from reference import full_prompt, masked
from test_one_shot import PYRAMID, QUESTION, llama, masks_of
from torch import Tensor
from transformers import DynamicCache, StaticCache

import pdrop_video as pv
from pdrop_video import pyramid_drop

THREADS, ROUNDS = 8, 6


def prompt(length: int = 20, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Ids [1, length], and visual rows from the third to the fifth before the end."""
    ids = torch.randint(1, 60, (1, length), generator=torch.Generator().manual_seed(seed))
    visual = torch.zeros(1, length, dtype=torch.bool)
    visual[:, 3:-5] = True
    return ids, visual


# -- the door ---------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[Any, ...]] = {
    "model": (None, 5, "llama", [llama()], torch.zeros(1)),
    "pyramid": (5, 0.5, "relevance", {"ratio": 0.5}, [0.5], pv.Memory()),
    "visual": ([True], "all", 1, torch.zeros(1, 20), torch.full((1, 20), 2), torch.zeros(1, 1, 20) > 0,
               torch.tensor(True), torch.zeros(0, dtype=torch.bool)),
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_arguments_are_refused_where_they_are_given(name: str, value: Any) -> None:
    """By the call, before any block is entered."""
    given: dict[str, Any] = dict(model=llama(), pyramid=PYRAMID, visual=prompt()[1]) | {name: value}
    with pytest.raises(pv.ConfigError, match=f"^{name} is "):
        pyramid_drop(given["model"], given["pyramid"], visual=given["visual"])


def test_a_video_lm_is_told_which_part_to_give() -> None:
    lm = build("smolvlm")
    with pytest.raises(pv.ConfigError, match=r"VideoLM\('smolvlm'.*lm\.model"):
        pyramid_drop(lm)
    with pytest.raises(pv.ModelError, match="no transformers model"):
        pyramid_drop(torch.nn.Linear(2, 2))


def test_a_refused_model_can_be_tried_again() -> None:
    model, (ids, visual) = llama(), prompt()
    for pyramid in (pv.Pyramid(layers=(9,)), pv.Pyramid(scorer="novelty")):
        with pytest.raises(pv.ConfigError), pyramid_drop(model, pyramid, visual=visual):
            pass
    with pyramid_drop(model, PYRAMID, visual=visual) as trace:
        model(input_ids=ids)
    assert len(trace.kept) == 2


def test_a_stack_without_a_head_drops_as_it_does_with_one() -> None:
    model, (ids, visual) = llama(), prompt()
    with torch.no_grad():
        with pyramid_drop(model, PYRAMID, visual=visual) as trace:
            want = model(input_ids=ids).logits
        kept = [of[0] for of in trace.kept]
        with pyramid_drop(model.model, PYRAMID, visual=visual) as trace:
            got = model.lm_head(model.model(ids).last_hidden_state)
    assert torch.equal(got, want) and all(torch.equal(of[0], k) for of, k in zip(trace.kept, kept, strict=True))
    assert "forward" not in vars(model.model)


# -- threads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def restless(watchdog: None) -> Iterator[None]:
    """Threads that change at nearly every step."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_share_a_block(restless: None) -> None:
    """Prompts of different lengths with different visual rows, with and without labels: each gets its own."""
    lm = build("llava_onevision", dtype=torch.float32)
    cases: list[dict[str, Any]] = []
    for i in range(THREADS):
        inputs, _, _ = full_prompt(lm, video(1 + i % 3, seed=i), [0.0, 1.0, 2.0][: 1 + i % 3], QUESTION)
        if i % 2:
            inputs["labels"] = inputs["input_ids"].clone()
            inputs["labels"][:, : -2 - i] = -100
        cases.append(inputs)

    def made(inputs: dict[str, Any]) -> list[Tensor]:
        output = lm.model(**inputs)
        return [output.logits] if output.loss is None else [output.logits, output.loss]

    start = Barrier(THREADS)

    def wrong(number: int) -> int:
        with torch.no_grad():
            start.wait()
            got = [made(cases[number]) for _ in range(ROUNDS)]
        return sum(not all(map(torch.equal, each, want[number])) for each in got)

    with pyramid_drop(lm.model, PYRAMID) as trace, torch.no_grad():
        want = [made(inputs) for inputs in cases]
        rows = [of.shape[1] for of, *_ in want]
        with ThreadPoolExecutor(THREADS) as pool:
            assert sum(pool.map(wrong, range(THREADS))) == 0
    assert len(set(rows)) > 2
    assert trace.rows is not None and len(trace.kept) == len(trace.scores) == 2  # of one call, and all of it
    assert len(trace.kept[1][0]) == len([r for r in trace.rows[0].tolist() if r >= 0]) - _texts(cases, trace.rows)


def _texts(cases: list[dict[str, Any]], rows: Tensor) -> int:
    """Rows of text of the case that ended with these rows."""
    ends = {int((inputs["input_ids"] != 191).sum()) for inputs in cases if inputs["input_ids"].shape[1] > rows.max()}
    assert len(ends) == 1  # the question is the same
    return ends.pop()


def test_one_of_many_threads_opens_the_block(restless: None) -> None:
    model, (_, visual) = llama(), prompt()
    start = Barrier(THREADS)

    def opened(_: int) -> bool:
        start.wait()
        with suppress(pv.ConfigError), pyramid_drop(model, PYRAMID, visual=visual):
            tried.wait()
            return True
        tried.wait()
        return False

    tried = Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(opened, range(THREADS))) == 1


# -- caches -----------------------------------------------------------------------------------------------------------


def pruned(model: Any) -> Any:
    ids, visual = prompt()
    with torch.no_grad(), pyramid_drop(model, PYRAMID, visual=visual):
        return model(input_ids=ids, use_cache=True).past_key_values


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("copied", [False, True])
@torch.no_grad()
def test_a_pruned_cache_is_refused_outside(rows: int, copied: bool) -> None:
    """Before a layer has run: inside it then goes on as if nothing had been."""
    model, more = llama(), torch.full((1, rows), 5)
    cache = pruned(model)
    cache = copy.deepcopy(cache) if copied else cache
    held = [layer.keys.clone() for layer in cache.layers]
    for refused in (
        lambda: model(input_ids=more, past_key_values=cache),
        lambda: model.generate(input_ids=torch.full((1, 21), 5), past_key_values=cache, max_new_tokens=2),
    ):
        with pytest.raises(pv.ModelError, match="inside pyramid_drop"):
            refused()
    assert all(torch.equal(layer.keys, keys) for layer, keys in zip(cache.layers, held, strict=True))
    _, visual = prompt()
    again = pruned(model)
    with pyramid_drop(model, PYRAMID, visual=visual):  # a later block, which knows nothing of the first
        got, want = (model(input_ids=more, past_key_values=each).logits for each in (cache, again))
    assert torch.equal(got, want)


@torch.no_grad()
def test_padding_of_a_pruned_cache_is_known_to_copies_and_later_blocks() -> None:
    model, (ids, visual) = llama(), prompt()
    padded, seen = (torch.nn.functional.pad(of, (4, 0)) for of in (ids, visual))
    batch, both = torch.cat([padded, torch.arange(1, 25)[None]]), torch.cat([seen, seen])
    mask = torch.ones(2, 24, dtype=torch.long)
    mask[0, :4] = 0
    with pyramid_drop(model, PYRAMID, visual=both):
        cache = model(input_ids=batch, attention_mask=mask, use_cache=True).past_key_values
    more = torch.full((2, 3), 5)
    grown = torch.nn.functional.pad(mask, (0, 3), value=1)
    with pyramid_drop(model, PYRAMID, visual=visual):
        alone = model(input_ids=ids, use_cache=True).past_key_values
        want = model(input_ids=more[:1], past_key_values=alone).logits[0]
    for each in (copy.deepcopy(cache), cache):
        with pyramid_drop(model, PYRAMID, visual=both):
            got = model(input_ids=more, attention_mask=grown, past_key_values=each).logits
        torch.testing.assert_close(got[0], want, atol=1e-5, rtol=0)  # angles are float32, and four further on


@torch.no_grad()
def test_a_cache_from_outside_goes_on_inside() -> None:
    """A plain prefill, then one with visual rows in a block: the unmodified model under masks that hide what went."""
    model = llama()
    first, _ = prompt(9, seed=2)
    ids, visual = prompt()
    cache = model(input_ids=first, use_cache=True).past_key_values
    with pyramid_drop(model, PYRAMID, visual=visual) as trace:
        got = model(input_ids=ids, past_key_values=cache).logits[0, -1]
    assert [len(kept[0]) for kept in trace.kept] == [6, 3]
    whole, rows = torch.cat([first, ids], 1), torch.nn.functional.pad(visual[0], (9, 0))
    masks = masks_of(trace, rows, 6)
    with masked(model.model, masks):
        want = model(input_ids=whole).logits[0, -1]
    torch.testing.assert_close(got, want, atol=1e-9, rtol=0)
    with masked(model.model, masks.roll(1, 0)):
        assert (model(input_ids=whole).logits[0, -1] - got).abs().max() > 1e-3


@pytest.mark.parametrize("rows", [1, 3])
@torch.no_grad()
def test_a_padded_cache_from_outside_goes_on_inside(rows: int) -> None:
    """As the model itself goes on, which hides the padding by the mask."""
    model, (_, visual) = llama(), prompt()
    batch, mask = torch.cat([prompt()[0], prompt(seed=3)[0]]), torch.ones(2, 20, dtype=torch.long)
    mask[0, :6] = 0
    more, grown = torch.full((2, rows), 5), torch.nn.functional.pad(mask, (0, rows), value=1)
    cache = model(input_ids=batch, attention_mask=mask, use_cache=True).past_key_values
    given = dict(input_ids=more, attention_mask=grown)
    want = model(**given, past_key_values=copy.deepcopy(cache)).logits
    unseen = model(**given | dict(attention_mask=None), past_key_values=copy.deepcopy(cache)).logits
    with pyramid_drop(model, PYRAMID, visual=visual):
        if rows > 1:
            with pytest.raises(pv.ConfigError, match=r"attention mask has 3 columns.*20 tokens"):
                model(**given | dict(attention_mask=torch.tensor([[0, 1, 1]] * 2)), past_key_values=cache)
        got = model(**given, past_key_values=cache).logits
    torch.testing.assert_close(got, want, atol=1e-9, rtol=0)
    assert (unseen - want)[0].abs().max() > 1e-3


def _of(layers: int, samples: int = 1) -> DynamicCache:
    cache = DynamicCache()
    for i in range(layers):
        cache.update(torch.zeros(samples, 2, 4, 8), torch.zeros(samples, 2, 4, 8), i)
    return cache


UNFIT: dict[str, tuple[Any, str]] = {
    "of pairs": (lambda model: tuple((torch.zeros(1, 2, 4, 8),) * 2 for _ in range(6)), "expected one of transformers"),
    "of fewer layers": (lambda model: _of(4), "4 layers of 1 samples, but the model has 6"),
    "of more samples": (lambda model: _of(6, 2), "6 layers of 2 samples.*call 1 samples"),
    "static": (lambda model: StaticCache(model.config, 64), "static caches"),
    "sliding": (
        lambda model: DynamicCache(config=type(model.config)(num_hidden_layers=6, sliding_window=4)),
        "DynamicSlidingWindowLayer",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
@torch.no_grad()
def test_caches_that_do_not_fit_are_refused(case: str) -> None:
    model, (ids, visual) = llama(), prompt()
    made, said = UNFIT[case]
    with pyramid_drop(model, PYRAMID, visual=visual):
        want = model(input_ids=ids).logits
        with pytest.raises(pv.ModelError, match=said):
            model.model(input_ids=ids, past_key_values=made(model))
        assert torch.equal(model(input_ids=ids).logits, want)


# -- gradient checkpointing -------------------------------------------------------------------------------------------


def test_a_stream_refuses_gradient_checkpointing_and_goes_on_without() -> None:
    lm = build("qwen2_5_vl")
    stream, twin = (lm.stream(pv.Pyramid(layers=(2,), ratios=(0.5,))) for _ in range(2))
    for each in (stream, twin):
        each.push(video(4), [0, 1, 2, 3])
    lm.model.train()
    lm.model.gradient_checkpointing_enable()
    for refused in (
        lambda: stream.push(video(2), [4, 5]),
        lambda: stream.next_logits(QUESTION),
        lambda: stream.ask(QUESTION, 2),
        lm.stream,
    ):
        with pytest.raises(pv.ModelError, match=r"gradient checkpointing.*model\.eval\(\)"):
            refused()
    lm.model.gradient_checkpointing_disable()
    for each in (stream, twin):
        each.push(video(2), [4, 5])
    assert torch.equal(stream.next_logits(QUESTION), twin.next_logits(QUESTION))


def test_generating_under_gradient_checkpointing() -> None:
    """Refused with a cache, which would stay empty; a forward that asks for one gets none, as from the model itself."""
    model, (ids, visual) = llama(), prompt()
    with pyramid_drop(model, PYRAMID, visual=visual):
        want = model(input_ids=ids).logits
        model.train()
        model.gradient_checkpointing_enable()
        with pytest.raises(pv.ModelError, match=r"gradient checkpointing.*model\.eval\(\)"):
            model.generate(input_ids=ids, max_new_tokens=2)
        output = model(input_ids=ids, use_cache=True)
    assert output.past_key_values is None
    torch.testing.assert_close(output.logits, want, atol=1e-12, rtol=0)
