"""Attention by row, the budget that a scorer sees, the methods that need them, and what methods say of themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import torch
from families import FAMILIES, build, video
from reference import full_prompt
from test_one_shot import llama
from test_rank import tapped, transcription  # noqa: F401 - a fixture
from torch import Tensor

import pdrop_video as pv
from pdrop_video.pyramid import ALLOCATORS, SCORERS, LayerLoop, Layout
from pdrop_video.pyramid.rank import attention_by_row, attention_weights
from pdrop_video.pyramid.scorers import Ranking
from pdrop_video.pyramid.scorers.coast import Coast
from pdrop_video.pyramid.scorers.relevance_max import RelevanceMax
from pdrop_video.registry import Facts

QUESTION = "what is shown first ?"


@dataclass(frozen=True)
class Noting:
    """`relevance_max`, which notes what it was given; a scorer of one's own, that says no facts."""

    uses_probe: ClassVar[bool] = True
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = False
    asks: str = "all"
    noted: list[tuple[Ranking, Tensor]] = field(default_factory=list)

    def __call__(self, ranking: Ranking) -> Tensor:
        self.noted.append((ranking, RelevanceMax()(ranking)))
        return self.noted[-1][1]


# -- by row -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_rows_are_what_each_would_give_alone() -> None:
    """Over a memory and with padding; an empty place gives zeros; the mean of the rows is PyramidDrop's relevance."""
    text = build("qwen3_vl").model.get_decoder()
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 8, 64, dtype=torch.float64, generator=generator)
    past = torch.randn(2, 2, 5, 16, dtype=torch.float64, generator=generator)
    allowed = torch.ones(2, 13, dtype=torch.bool)
    allowed[1, 5:7] = False
    rope = text.rotary_emb(hidden, torch.arange(8).expand(3, 2, -1))
    given: dict[str, Any] = dict(past_keys=past, allowed=allowed)
    probe = torch.tensor([[3, 7, 5], [-1, 6, 7]])
    rows = attention_by_row(text.layers[1], hidden, rope, probe, **given)
    assert rows.shape == (2, 3, 13)
    for b in range(2):
        for at, row in enumerate(probe[b].tolist()):
            alone = attention_weights(text.layers[1], hidden, rope, torch.tensor([[max(row, 0)]] * 2), **given)[b]
            torch.testing.assert_close(rows[b, at], alone if row >= 0 else torch.zeros(13).double(), atol=1e-12, rtol=0)
            if row >= 0:
                assert float(rows[b, at].sum()) == pytest.approx(1) and not rows[b, at, 5 + row + 1 :].any()
    mean = attention_weights(text.layers[1], hidden, rope, probe, **given)
    torch.testing.assert_close(mean[0], rows[0].mean(0), atol=1e-12, rtol=0)
    torch.testing.assert_close(mean[1], rows[1, 1:].mean(0), atol=1e-12, rtol=0)


@pytest.mark.parametrize("scorer", ["relevance", "relevance_max", "coast"])
def test_nothing_is_projected_twice(scorer: str) -> None:
    """One projection of keys for the ranking, and one as the layer runs."""
    lm = build("qwen2_5_vl")
    stream = lm.stream(pv.Pyramid(layers=(3,), ratios=(0.5,), scorer=scorer), pv.Memory(tokens=None))
    calls: list[int] = []
    lm.model.get_decoder().layers[3].self_attn.k_proj.register_forward_hook(lambda *_: calls.append(1))
    stream.push(video(4), [0, 1, 2, 3])
    assert len(calls) == 2


# -- who asks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_relevance_max_by_the_formula(family: str, tapped: list) -> None:  # noqa: F811
    """In a prompt: the largest over all rows behind the visual ones of the mean over heads of the softmax."""
    lm = build(family)
    inputs, _, _ = full_prompt(lm, video(4), [0, 0.5, 1, 1.5], QUESTION)
    visual = inputs["input_ids"][0] == lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)
    with pv.pyramid_drop(lm.model, pv.Pyramid(layers=(2,), ratios=(0.3,), scorer="relevance_max")) as trace:
        lm.model(**inputs)
    lm.model.get_decoder().set_attn_implementation("tapped")
    lm.model(**inputs)
    query, key, scaling = [call[1:] for call in tapped if call[0] == 2][-1]
    last = int(visual.nonzero().max())
    text = range(last + 1, len(visual))
    rows = [transcription(query, key, scaling, row) for row in text]
    want = torch.stack([row[: last + 1] for row in rows]).amax(0)[visual[: last + 1]]
    torch.testing.assert_close(trace.scores[0][0], want, atol=1e-12, rtol=0)
    best = want.argsort(descending=True)[: int(len(want) * 0.3)]
    assert trace.kept[0][0].tolist() == sorted(best.tolist())


@pytest.mark.parametrize("question", [QUESTION, None])
@pytest.mark.parametrize("family", FAMILIES)
def test_relevance_max_in_a_stream_by_the_formula(family: str, question: str | None, tapped: list) -> None:  # noqa: F811
    """All tokens of the question, or of the template, and no frame's own text or newline; over a memory."""
    lm, scorer = build(family), Noting()
    lm.model.get_decoder().set_attn_implementation("tapped")
    pyramid = pv.Pyramid(layers=(2, 4), ratios=(1.0, 0.5), scorer=scorer)  # the probe stays until layer 4
    stream = lm.stream(pyramid, pv.Memory(tokens=None), standing_question=question)
    stream.push(video(4), [0, 1, 2, 3])
    tapped.clear()
    scorer.noted.clear()
    stream.push(video(4, seed=1), [4, 5, 6, 7])
    (query, key, scaling), *_ = (call[1:] for call in tapped if call[0] == 2)
    ranking, got = scorer.noted[0]
    rows, count = query.shape[2], len(lm.prompt.after(question or ""))
    assert key.shape[2] > rows and count > 1
    assert ranking.probe[0].tolist() == list(range(rows - count, rows))
    each = [transcription(query, key, scaling, row) for row in range(rows - count, rows)]
    seen = key.shape[2] - count
    want = torch.stack([row[:seen] for row in each]).amax(0)[key.shape[2] - rows :]
    torch.testing.assert_close(got[0, : rows - count], want, atol=1e-12, rtol=0)
    last = each[-1][key.shape[2] - rows : seen]
    assert (got[0, : rows - count] - last).abs().max() > 1e-3  # not the last row's alone


@torch.no_grad()
def test_who_asks_in_a_padded_batch() -> None:
    """Rows behind each sample's last visual row; the last one of all where none is, or where visual rows are last."""
    model, scorer = llama(), Noting()
    visual, mask = torch.zeros(4, 12, dtype=torch.bool), torch.ones(4, 12, dtype=torch.long)
    visual[0, 2:5], visual[0, 6:8], visual[1, 4:9], visual[3, 5:12] = True, True, True, True
    mask[1, :3] = 0
    ids = torch.randint(1, 60, (4, 12), generator=torch.Generator().manual_seed(0))
    with pv.pyramid_drop(model, pv.Pyramid(layers=(2,), ratios=(0.5,), scorer=scorer), visual=visual):
        model(input_ids=ids, attention_mask=mask)
    asking = [[row for row in sample if row >= 0] for sample in scorer.noted[0][0].probe.tolist()]
    assert asking == [[8, 9, 10, 11], [9, 10, 11], [11], [11]]
    assert scorer.noted[0][0].probe[:, -1].tolist() == [11] * 4  # the last row stands last
    assert scorer.noted[0][0].wanted == (2, 2, 0, 3)


def test_no_answer_asks_in_training() -> None:
    """The question's rows up to the first label, and the row before each later answer, which the labels tell."""
    model, scorer = llama().train(), Noting()
    visual = torch.zeros(2, 20, dtype=torch.bool)
    visual[:, 2:8] = True
    ids = torch.randint(1, 60, (2, 20), generator=torch.Generator().manual_seed(0))
    labels = torch.full((2, 20), -100)
    labels[0, 12:14], labels[0, 17:20] = ids[0, 12:14], ids[0, 17:20]
    with pv.pyramid_drop(model, pv.Pyramid(layers=(2,), ratios=(0.5,), scorer=scorer), visual=visual) as trace:
        model(input_ids=ids, labels=labels)
    asking = [[row for row in sample if row >= 0] for sample in scorer.noted[0][0].probe.tolist()]
    assert asking == [[8, 9, 10, 11, 16], []]
    assert scorer.noted[0][0].wanted == (3, 6)  # nobody asks in the second sample, of which nothing is dropped
    assert [len(kept) for kept in trace.kept[0]] == [3, 6]


def test_a_scorer_that_says_nothing_is_asked_by_the_last_row() -> None:
    model, scorer = llama(), Noting(asks="last")
    visual = torch.zeros(1, 12, dtype=torch.bool)
    visual[:, 2:8] = True
    with torch.no_grad(), pv.pyramid_drop(model, pv.Pyramid(layers=(2,), scorer=scorer), visual=visual):
        model(input_ids=torch.arange(1, 13)[None])
    assert scorer.noted[0][0].probe.tolist() == [[11]]


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_onevision"])
def test_the_budget_in_a_stream(family: str) -> None:
    """At each boundary, for each piece; and what is kept is what was said."""
    lm, scorer = build(family), Noting()
    stream = lm.stream(pv.Pyramid(layers=(0, 2, 4), ratios=(0.7, 0.4, 0.15), scorer=scorer), pv.Memory(tokens=None))
    pushed = stream.push(video(6), range(6))
    n = pushed.visual_tokens
    assert [ranking.wanted for ranking, _ in scorer.noted] == [(int(n * r),) for r in (0.7, 0.4, 0.15)]
    assert [int(stream.held(stage).visual.sum()) for stage in (1, 2, 3)] == [r.wanted[0] for r, _ in scorer.noted]


# -- COAST ------------------------------------------------------------------------------------------------------------


def waiting(hidden: Tensor, budget: int, attention: Tensor, monkeypatch: pytest.MonkeyPatch) -> Ranking:
    """All rows visual [tokens, hidden], with this attention of the rows of text [text, tokens]."""
    monkeypatch.setattr(Ranking, "attention", lambda ranking: attention[None])
    unused: Any = None
    visual = torch.ones(1, len(hidden), dtype=torch.bool)
    return Ranking(unused, hidden[None], unused, unused, visual, Layout.one_picture(visual), wanted=(budget,))


def chosen(scores: Tensor, budget: int) -> list[int]:
    return sorted(scores[0].argsort(descending=True)[:budget].tolist())


def coast(scorer: Coast, hidden: Tensor, attention: Tensor, budget: int, turn: list[int]) -> list[int]:
    """The groups, token by token; equals by their turn."""
    tokens, last = range(len(hidden)), attention[-1].tolist()
    strongest = [max(row[j] for row in attention.tolist()) for j in tokens]
    share = [s / sum(strongest) for s in strongest]
    evenness = -sum(p * math.log(p) for p in share) / math.log(len(share))
    count = max(1, int(scorer.anchors * budget))
    rest = budget - count
    unlike = int(rest * (scorer.least + (scorer.most - scorer.least) * evenness))
    unlike = rest if rest <= 1 else min(max(unlike, 1), rest - 1)
    anchors = sorted(tokens, key=lambda j: -last[j])[:count]
    wanted = max(1, min(len(hidden) // 10, len(hidden) - count - budget))
    references = sorted(tokens, key=lambda j: strongest[j])[:wanted]
    unit = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in hidden.tolist()]

    def cosine(i: int, j: int) -> float:
        return sum(x * y for x, y in zip(unit[i], unit[j], strict=True))

    def likeness(j: int) -> float:
        return max(cosine(j, a) for a in anchors) - sum(cosine(j, r) for r in references) / len(references)

    # a reference may be an anchor, too, and then whoever is nearest to it scores exactly 0
    others = sorted((j for j in tokens if j not in anchors), key=lambda j: (-round(likeness(j), 9), turn[j]))
    return sorted([*anchors, *others[: rest - unlike], *(others[-unlike:] if unlike else [])])


def test_coast_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen directions 20 degrees apart: eight anchors, the nearest to them, and the one that is least like them."""
    angle = torch.arange(16, dtype=torch.float64) * math.radians(20)
    hidden = torch.stack([angle.cos(), angle.sin()], 1)
    last = torch.tensor([1, 2, 3, 4, 16, 15, 14, 13, 12, 11, 10, 9, 5, 6, 7, 8], dtype=torch.float64)
    other = torch.tensor([8, *(1.01 + 0.01 * i for i in range(14)), 8.5], dtype=torch.float64)
    attention = torch.stack([other / other.sum(), last / last.sum()]) / 2
    scores = Coast()(waiting(hidden, 10, attention, monkeypatch))
    assert chosen(scores, 10) == [0, *range(4, 13)]
    assert chosen(attention[1:], 10) == [*range(4, 12), 14, 15]  # what the last row alone would keep
    torch.testing.assert_close(scores[0] % 1, attention[1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("scorer", [Coast(), Coast(anchors=0.3, least=0.2, most=0.6)])
@pytest.mark.parametrize("budget", [0, 1, 2, 5, 6, 20, 33, 39, 40])
def test_coast_by_loops(scorer: Coast, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn(40, 6, generator=generator, dtype=torch.float64)
        attention = (3 * torch.randn(5, 40, generator=generator, dtype=torch.float64)).softmax(-1) * 0.7
        ranking = waiting(hidden, budget, attention, monkeypatch)
        scores = scorer(ranking)
        want = coast(scorer, hidden, attention, budget, ranking.layout.spread()[0].tolist()) if budget else []
        assert chosen(scores, budget) == want
        rest = [row for row in range(40) if row not in want]
        assert not want or not rest or float(scores[0][want].min()) > 1.5 * float(scores[0][rest].max())
        if 5 < budget < 39:  # the groups follow from the budget: a larger one does not merely add to a smaller one's
            assert not torch.equal(scores, scorer(replace(ranking, wanted=(budget + 1,))))


def test_coast_of_samples_with_other_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample's anchors are nothing to another, however many it has."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 40, 6, generator=generator, dtype=torch.float64)
    attention = (3 * torch.randn(2, 5, 40, generator=generator, dtype=torch.float64)).softmax(-1)
    alone = []
    for sample, budget in enumerate((30, 4)):
        alone.append(Coast()(waiting(hidden[sample], budget, attention[sample], monkeypatch)))
    ranking = waiting(hidden[0], 0, attention[0], monkeypatch)
    monkeypatch.setattr(Ranking, "attention", lambda ranking: attention)
    visual = ranking.visual.expand(2, -1)
    both = replace(ranking, hidden=hidden, visual=visual, layout=Layout.one_picture(visual), wanted=(30, 4))
    torch.testing.assert_close(Coast()(both), torch.cat(alone), atol=1e-12, rtol=0)


def test_coast_in_the_loop() -> None:
    """A padded batch keeps what each sample keeps alone: exactly the groups, of the budget's size."""
    model = llama(1)
    spans, lengths, longest = [(3, 23), (2, 15)], [30, 24], 30
    generator = torch.Generator().manual_seed(1)
    ids, visual = torch.zeros(2, longest, dtype=torch.long), torch.zeros(2, longest, dtype=torch.bool)
    mask = torch.zeros(2, longest, dtype=torch.long)
    for b, (n, (first, end)) in enumerate(zip(lengths, spans, strict=True)):
        ids[b, -n:] = torch.randint(1, 60, (n,), generator=generator)
        visual[b, longest - n + first : longest - n + end], mask[b, -n:] = True, 1
    pyramid = pv.Pyramid(layers=(0, 3), ratios=(0.6, 0.35), scorer="coast", allocator="global")
    with torch.no_grad(), pv.pyramid_drop(model, pyramid, visual=visual) as trace:
        model(input_ids=ids, attention_mask=mask)
        together, scores = trace.kept, trace.scores
        for b, n in enumerate(lengths):
            with_one = visual[b : b + 1, -n:]
            model_alone = llama(1)
            with pv.pyramid_drop(model_alone, pyramid, visual=with_one) as alone:
                model_alone(input_ids=ids[b : b + 1, -n:])
            for stage in range(2):
                assert torch.equal(together[stage][b], alone.kept[stage][0])
    for stage, ratio in enumerate((0.6, 0.35)):
        for b, (first, end) in enumerate(spans):
            assert len(together[stage][b]) == int((end - first) * ratio) == int((scores[stage][b] >= 1).sum())


@pytest.mark.parametrize("wrong", [dict(anchors=1.5), dict(least=-0.1), dict(most="much")])
def test_shares_of_coast_are_shares(wrong: dict[str, Any]) -> None:
    with pytest.raises(pv.ConfigError, match=f"{next(iter(wrong))} is .* from 0 to 1"):
        Coast(**wrong)


# -- facts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [SCORERS, ALLOCATORS], ids=["scorers", "allocators"])
def test_every_method_says_what_it_is(listed: dict[str, Any]) -> None:
    """Who learns says what it carries, who asks that it needs a question; each in one plain phrase of its own."""
    for name, method in listed.items():
        facts = method.facts
        assert isinstance(facts, Facts) and facts.says and "facts" not in repr(method), name
        assert not facts.paper or "arXiv " in facts.paper
        assert bool(facts.carries) == hasattr(method, "learn"), name
        assert facts.needs_question == getattr(method, "uses_probe", False), name
    assert len({method.facts.says for method in listed.values()}) == len(listed)


def test_a_method_of_ones_own_needs_no_facts() -> None:
    text = build("llava_onevision").model.get_decoder()
    assert LayerLoop(text, pv.Pyramid(scorer=Noting())).scorer == Noting()
    with pytest.raises(pv.ConfigError, match="It lacks once, uses_layout, uses_probe"):
        pv.Pyramid(scorer=lambda ranking: ranking.hidden)
