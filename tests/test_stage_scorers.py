"""COAST and LearnPruner's stage in streams: by the unmodified model's attention and hidden states, and by masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import build, cases, video
from reference import full_prompt, masked_forward, recorded, stream_masks
from test_one_shot import masks_of
from test_rows_that_ask import chosen, coast, waiting
from test_session import same
from torch import Tensor

import pdrop_video as pv
from pdrop_video.common.ties import spread
from pdrop_video.pyramid import LayerLoop
from pdrop_video.pyramid.scorers import SCORERS, scorer_named
from pdrop_video.pyramid.scorers.coast import Coast
from pdrop_video.pyramid.scorers.controls import Random
from pdrop_video.registry import name_of

QUESTION = "what is shown first ?"
FAMILIES = ("qwen2_5_vl", "llava_onevision", "internvl", "qwen3_vl")
RATIOS = (0.6, 0.25)


def before_layer(lm: pv.VideoLM, inputs: dict[str, Any], layer: int, rows: int) -> tuple[Tensor, Tensor]:
    """What enters a layer of the unmodified eager model [tokens, hidden], and its last rows' weights [rows, tokens]."""
    caught: list[Tensor] = []
    module = lm.model.get_decoder().layers[layer]
    hooks = [
        module.register_forward_pre_hook(lambda _, args, kwargs: caught.append(args[0][0]), with_kwargs=True),
        module.self_attn.register_forward_hook(lambda m, a, out: caught.append(out[1][0, :, -rows:].mean(0))),
    ]
    masked_forward(lm, inputs, None)
    for hook in hooks:
        hook.remove()
    return caught[0], caught[1]


def who_stays(scorer: str, hidden: Tensor, weights: Tensor, visual: list[int], turn: list[int]) -> list[int]:
    """The tokens of a first chunk that stay at its first boundary."""
    budget = int(len(visual) * RATIOS[0])
    if scorer == "coast":
        return [visual[j] for j in coast(Coast(), hidden[visual], weights[:, visual], budget, turn)]
    score = weights.mean(0)[visual].tolist()
    return sorted(sorted(visual, key=lambda n: -score[visual.index(n)])[:budget])


@pytest.mark.parametrize(
    ("family", "scorer", "standing"),
    cases(FAMILIES, ("coast", "text_mean"), (QUESTION, None), fast=lambda f, s, q: s == f % 2 and q == f // 2),
)
def test_a_stream(
    family: str, scorer: str, standing: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first chunk by the formula, all by masks; through a failed push, a fork and a file."""
    lm = build(family, "eager")
    per = lm.adapter.frames_per_step
    frames, seconds = video(6 * per), [0.5 * i for i in range(6 * per)]
    inputs, prefix, _ = full_prompt(lm, frames, seconds, QUESTION)
    pyramid = pv.Pyramid(layers=(2, 4), ratios=RATIOS, scorer=scorer, allocator="global")
    snapshots = recorded(monkeypatch, None)
    stream = lm.stream(pyramid, pv.Memory(tokens=None), standing_question=standing)
    parts = [slice(2 * per * i, 2 * per * (i + 1)) for i in range(3)]
    stream.push(frames[parts[0]], seconds[parts[0]])
    table = stream._state.cache.tables[2].in_time()
    before = stream._state.cache.tables[0].in_time()
    alone, _, _ = full_prompt(lm, frames[parts[0]], seconds[parts[0]], standing or "")
    hidden, weights = before_layer(lm, alone, 2, len(lm.prompt.after(standing or "")))
    rows = before.visual
    turn = spread(before.step[rows], before.row[rows], before.column[rows]).tolist()
    want = who_stays(scorer, hidden, weights, before.index[rows].tolist(), turn)
    assert table.index[table.visual].tolist() == want

    stream.save(tmp_path / "a.pdrop")
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr(LayerLoop, "_drop", lambda *args, **kwargs: 1 / 0)
        stream.push(frames[parts[1]], seconds[parts[1]])
    resumed, twin = lm.resume(tmp_path / "a.pdrop"), stream.fork()
    for part in parts[1:]:
        stream.push(frames[part], seconds[part])
    del snapshots[3:]
    for other in (resumed, twin):
        for part in parts[1:]:
            other.push(frames[part], seconds[part])
        same(stream, other)
    with torch.no_grad():
        got = stream.next_logits(QUESTION)
    held = [each.index for each in stream._state.cache.tables]
    allowed = stream_masks(snapshots[:3], prefix, inputs["input_ids"].shape[1], held)
    torch.testing.assert_close(got, masked_forward(lm, inputs, allowed)[-1], atol=2e-5, rtol=0)


@pytest.mark.parametrize("scorer", ["coast", "coast:far=random", "text_mean"])
@pytest.mark.parametrize("family", ["qwen2_vl", "llava_next_video"])
@torch.no_grad()
def test_a_prompt_equals_masks(family: str, scorer: str) -> None:
    lm = build(family)
    inputs, _, _ = full_prompt(lm, video(4), [0, 0.5, 1, 1.5], QUESTION)
    visual = inputs["input_ids"][0] == lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)
    with pv.pyramid_drop(lm.model, pv.Pyramid(layers=(2, 4), ratios=RATIOS, scorer=scorer)) as trace:
        got = lm.model(**inputs).logits[0, -1]
    allowed = masks_of(trace, visual, lm.num_layers, (2, 4))
    torch.testing.assert_close(got, masked_forward(lm, inputs, allowed)[-1], atol=1e-9, rtol=0)


# -- how large COAST's groups are, and its control ---------------------------------------------------------------------


def groups(scorer: Coast, budget: int, even: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int, list[int]]:
    """Anchors, aligned and complementary tokens of 576, of directions that turn away from the anchors."""
    angle = torch.linspace(0, 2, 576, dtype=torch.float64)
    hidden = torch.stack([angle.cos(), angle.sin()], 1)
    last = torch.linspace(1, 0.5, 576, dtype=torch.float64)[None]
    strongest = torch.ones(1, 576, dtype=torch.float64) if even else torch.zeros(1, 576, dtype=torch.float64)
    strongest[0, 0] = 1.0
    kept = chosen(scorer(waiting(hidden, budget, torch.cat([strongest, last * 1e-9]), monkeypatch)), budget)
    anchors = max(1, int(0.8 * budget))
    aligned = sum(1 for a, b in zip(kept, range(len(kept)), strict=True) if a == b) - anchors
    return anchors, aligned, len(kept) - anchors - aligned, kept


@pytest.mark.parametrize(("budget", "rest", "least", "most"), [(192, 39, 1, 5), (128, 26, 1, 3), (64, 13, 1, 1)])
def test_the_groups_of_the_papers_budgets(
    budget: int, rest: int, least: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The far tail is 3 % at most, also where the question looks at all alike; one token at least."""
    for even, far in ((False, least), (True, most)):
        anchors, aligned, complementary, kept = groups(Coast(), budget, even, monkeypatch)
        assert (anchors, aligned, complementary) == (budget - rest, rest - far, far)
        assert kept[-far:] == list(range(576 - far, 576))


def test_a_far_tail_by_lot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other two groups are the same; the third is any of the rest, the same at each run."""
    _, aligned, far, kept = groups(Coast(far="random"), 192, True, monkeypatch)
    assert (aligned, far) == (34, 5) and kept[:187] == list(range(187))
    assert kept[-5:] != list(range(571, 576))
    ranking = waiting(torch.ones(576, 2), 192, torch.ones(1, 576), monkeypatch)
    lots = Random()(ranking)[0].tolist()
    assert kept[187:] == sorted(sorted(range(187, 576), key=lambda j: -lots[j])[:5])
    with pytest.raises(pv.ConfigError, match="far is 'near'"):
        Coast(far="near")


def test_learnpruner_is_another_name_for_text_mean() -> None:
    """Of a schedule with one boundary, as the paper has it; a saved file names what ranks."""
    pyramid = pv.Pyramid(layers=(3,), ratios=(1 / 3,), scorer="learnpruner")
    stream = build("qwen2_5_vl").stream(pyramid, reducer="learnpruner:keep=0.5")
    assert stream.loop.scorer is scorer_named("text_mean") and name_of(SCORERS, stream.loop.scorer) == "text_mean"
    recipe = pv.Recipe(reducer="learnpruner", pyramid=pyramid)
    assert pv.Recipe.from_dict(recipe.as_dict()) == recipe
