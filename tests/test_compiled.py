"""A compiled decoding step gives what the uncompiled one gives, wherever columns stand and however many there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from families import budget, build, video
from hybrids import build as build_hybrid
from torch._dynamo.utils import counters

import pdrop_video as pv
from pdrop_video.pyramid.compiled import CompiledStep

SLOW = pytest.mark.slow


def compiled(lm: pv.VideoLM) -> pv.VideoLM:
    torch._dynamo.reset()
    return pv.VideoLM(lm.model, lm.adapter, lm.prompt, lm.name, compile=True)


@pytest.fixture
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> Callable[[pv.VideoLM], None]:
    """Lets a model's norms compute in float64 like the rest of it, so that sums in another order are no difference."""

    def norm(module: Any, rows: torch.Tensor) -> torch.Tensor:
        return module.weight * rows * (rows.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()

    def patch(lm: pv.VideoLM) -> None:
        for kind in {type(each) for each in lm.model.get_decoder().modules()}:
            if kind.__name__.endswith("RMSNorm"):
                monkeypatch.setattr(kind, "forward", norm)

    return patch


def watched(lm: pv.VideoLM, frames: int = 4, **how: Any) -> pv.VideoStream:
    stream = lm.stream(**how)
    for at in range(frames // 2):
        stream.push(video(2, seed=at), [at, at + 0.5])
    return stream


def logits_of(stream: pv.VideoStream, tokens: int, pyramid: pv.Pyramid | None = None) -> torch.Tensor:
    """Behind the question, and behind each of the likeliest tokens [1 + tokens, vocabulary]."""
    with stream._access.whole():
        asked = stream._asked("what is shown first ?", "", pyramid)
        found = [asked.prefill()]
        for _ in range(tokens):
            logits = asked.advance(found[-1].argmax())
            assert logits is not None
            found.append(logits)
        asked.close()
    return torch.stack(found)


@pytest.mark.parametrize(
    "family", ["qwen2_5_vl", *(pytest.param(name, marks=SLOW) for name in ("llava_onevision", "qwen3_vl"))]
)
def test_logits_are_those_of_the_plain_step(
    family: str, exact_norms: Callable[[pv.VideoLM], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In full memories and small ones, with columns hidden or not, over storage that grows; by one function."""
    plain = build(family)
    exact_norms(plain)
    fast = compiled(plain)
    assert isinstance(fast.compiled, CompiledStep)
    graphs, steps = counters["stats"]["unique_graphs"], []
    run = fast.compiled._run
    monkeypatch.setattr(fast.compiled, "_run", lambda *given: steps.append(1) or run(*given))
    hiding = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25))
    for memory in (pv.Memory(tokens=budget(plain, 3)), pv.Memory(tokens=None)):
        for pyramid in (None, pv.Pyramid(stages=1), hiding):
            both = [logits_of(watched(lm, memory=memory), 90, pyramid) for lm in (fast, plain)]
            torch.testing.assert_close(*both, atol=1e-9, rtol=0)
    assert len(steps) == 6 * 90
    assert counters["stats"]["unique_graphs"] == graphs, "it was compiled anew"


def test_answers_kept_forks_and_files_go_on_as_without(tmp_path: Any) -> None:
    plain = build("qwen2_5_vl")
    fast, seen = compiled(plain), []
    for lm in (fast, plain):
        stream = watched(lm, memory=pv.Memory(tokens=budget(lm, 4)))
        fork = stream.fork()
        said = [stream.ask("how many ?", 12, keep=True).token_ids, fork.ask("how many ?", 12).token_ids]
        for each in (stream, fork):
            each.push(video(2, seed=9), [8.0, 8.5])
        stream.save(tmp_path / "saved")
        again = lm.resume(tmp_path / "saved")
        seen.append((said, *(each.next_logits("what is red ?") for each in (stream, fork, again))))
    assert seen[0][0] == seen[1][0]
    for mine, theirs in zip(seen[0][1:], seen[1][1:], strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=0)  # norms are in float32


def test_positions_that_move_take_the_keys_along(exact_norms: Callable[[pv.VideoLM], None]) -> None:
    """An answer goes on past the trained range: keys are held twice then, and move between two tokens."""
    plain = build("qwen2_5_vl", dtype=torch.float64)
    exact_norms(plain)
    text = plain.model.config.get_text_config()
    text.max_position_embeddings = 150
    fast = compiled(plain)
    memory = pv.Memory(tokens=60, positions="window")
    both = [logits_of(watched(lm, 12, memory=memory), 60) for lm in (fast, plain)]
    torch.testing.assert_close(*both, atol=1e-9, rtol=0)


@pytest.mark.parametrize("how", [dict(storage="int8"), dict(storage="int4")])
def test_other_storages_go_on_without(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = build("qwen2_5_vl")
    fast = compiled(plain)
    monkeypatch.setattr(fast.compiled, "_run", None)
    both = [logits_of(watched(lm, memory=pv.Memory(tokens=budget(lm, 3), **how)), 5) for lm in (fast, plain)]
    torch.testing.assert_close(*both, atol=0, rtol=0)


def test_what_can_not_be_is_said_at_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = build("qwen2_5_vl")
    with pytest.raises(pv.ConfigError, match="batch=8"):
        pv.load(compile=True, batch=8)
    with pytest.raises(pv.ConfigError, match="compile"):
        pv.load(compile="yes")  # type: ignore[arg-type]
    with pytest.raises(pv.ModelError, match=r"gemma4.*can't be compiled"):
        compiled(build_hybrid("gemma4"))

    def fail(*args: Any, **kwargs: Any) -> Any:
        def call(*given: Any) -> Any:
            raise RuntimeError("no C++ compiler")

        return call

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(pv.ModelError, match=r"no C\+\+ compiler.*without compile=True"):
        compiled(lm)
    assert lm.model.config.get_text_config()._attn_implementation == "sdpa"
