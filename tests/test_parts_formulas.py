"""What trained parts compute, and the losses and labels that they are trained by, against formulas written plainly."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from asked import random_tokens, tokens_of
from families import build, video
from parts import random_part, with_parts
from test_parts import example

import pdrop_video as pv
from pdrop_video.parts.dualcomp import LEAST
from pdrop_video.reduce.dualcomp import DualComp
from pdrop_video.reduce.evocomp import EvoComp
from pdrop_video.reduce.relevance_pooling import RelevancePooling
from pdrop_video.training import TRAINERS, Line
from pdrop_video.training.dualcomp import LAMBDAS, lambda_truth, rho_truth
from pdrop_video.training.evocomp import apart_term, ghm_weights
from pdrop_video.training.learnpruner import straight_through
from pdrop_video.training.videorouter import relevant_steps


def test_straight_through() -> None:
    """Forwards the choice, backwards the soft share."""
    logits = torch.tensor([[0.0, 2.0], [1.0, -1.0], [0.3, 0.2]], requires_grad=True)
    keep = straight_through(logits)
    assert keep.tolist() == [1, 0, 0]
    keep.sum().backward()
    soft = [1 / (1 + math.exp(a - b)) for a, b in logits.tolist()]
    assert logits.grad is not None
    want = torch.tensor([[-s * (1 - s), s * (1 - s)] for s in soft])
    torch.testing.assert_close(logits.grad, want)


def test_weights_by_the_density_of_gradients() -> None:
    """GHM-C by counting; equal where all bins hold as many."""
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(50, generator=generator, dtype=torch.float64)
    label = (torch.rand(50, generator=generator) > 0.7).double()
    got = ghm_weights(probability, label)
    for i in range(50):
        norms = [abs(float(p - y)) for p, y in zip(probability, label, strict=True)]
        alike = sum(min(int(each * 10), 9) == min(int(norms[i] * 10), 9) for each in norms)
        assert float(got[i]) == pytest.approx(50 / (alike / 0.1))
    even = (torch.arange(10, dtype=torch.float64) + 0.5) / 10
    assert torch.equal(ghm_weights(even, torch.zeros(10).double()), torch.ones(10).double())


def test_kept_and_dropped_are_pushed_apart() -> None:
    states, label = torch.randn(7, 5, dtype=torch.float64), torch.tensor([1, 0, 0, 1, 0, 1, 0.0])
    pairs = [
        float(torch.nn.functional.cosine_similarity(states[i], states[j], dim=0))
        for i in range(7)
        for j in range(7)
        if label[i] > label[j]
    ]
    assert float(apart_term(states, label)) == pytest.approx(sum(pairs) / len(pairs))
    assert float(apart_term(states, torch.ones(7))) == 0


def test_lambda_and_rho() -> None:
    losses = (0.4, 0.1, 0.1, 0.9, 1.3)
    weights = [math.exp(-loss / 0.2) for loss in losses]
    llm = sum(w * each for w, each in zip(weights, LAMBDAS, strict=True)) / sum(weights)
    assert lambda_truth(losses, 0.7, 0.8) == pytest.approx(0.8 * llm + 0.2 * 0.7)
    assert lambda_truth(losses, 0.7, 0) == 0.7
    assert [rho_truth(each) for each in ((0.12, 0.3, 0.1), (0.3, 0.14, 0.1), (0.3, 0.2, 0.1))] == [LEAST, 0.5, 1.0]


def test_the_steps_of_the_evidence() -> None:
    lm = build("qwen2_5_vl")
    one = example(lm, 8)  # steps at 0, 1, 2 and 3 s
    for evidence, want in (((2.0,), [0, 0, 1, 0]), ((0.0, 3.7), [1, 0, 0, 1]), ((99.0,), [0, 0, 0, 1])):
        line = Line("", "?", "red", evidence)
        seen = relevant_steps(SimpleNamespace(line=line, chunk=one.chunk))  # type: ignore[arg-type]
        assert seen.tolist() == want


def test_the_compressor_by_hand() -> None:
    """One head after the other, row by row; every row sees every other, and the skip is over all of the layer."""
    lm = build("qwen2_5_vl")
    part = random_part(lm, "evocomp")
    features, words = torch.randn(9, 64), torch.randn(4, 64)
    rows = torch.nn.functional.layer_norm(torch.cat([features, words]), (64,))
    x = rows @ part.enter.weight.T + part.enter.bias + part.kind[[0] * 9 + [1] * 4]
    normed = part.norms[0](x)
    q, k, v = (normed @ part.qkv.weight.T + part.qkv.bias).split(96, dim=1)
    heads = []
    for head in range(4):
        at = slice(24 * head, 24 * head + 24)
        weight = (q[:, at] @ k[:, at].T / math.sqrt(24)).softmax(-1)
        heads.append(weight @ v[:, at])
    h = x + part.out(torch.cat(heads, dim=1))
    h = x + h + part.mlp(part.norms[1](h))
    want = (h[:9] @ part.classify.weight.T + part.classify.bias)[:, 0]
    logits, states = part(features, words)
    torch.testing.assert_close(states, h[:9], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(logits, want, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(part.score(features, words).float(), want.sigmoid(), atol=1e-4, rtol=1e-4)


def test_evocomp_keeps_the_best() -> None:
    lm = build("qwen2_5_vl")
    part, tokens = random_part(lm, "evocomp"), random_tokens(0, hidden=64, words=5, parts={})
    tokens.parts["evocomp"] = part  # type: ignore[index]
    reducer = EvoComp(keep=0.3)
    kept = reducer(tokens, {})[0].kept
    want = part.score(tokens.features, tokens.question).topk(reducer.left(60)).indices.sort().values
    assert torch.equal(kept, want) and len(kept) == 18 and reducer.flops(60, 64) > 0
    with pytest.raises(pv.ConfigError, match="reads the question while it watches"):
        with_parts(lm, part).stream(reducer="evocomp")


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_the_routers_layers_are_the_models_own(family: str) -> None:
    """E([Z_t; question]) of each frame by itself, as hidden states of the unmodified stack, which keeps its layers."""
    lm = build(family)
    part, one = random_part(lm, "videorouter"), example(lm)
    step = one.chunk.step()[one.chunk.visual_rows()]
    decoder, layers = lm.model.get_decoder(), part.shape["layers"]
    logits = []
    for number in range(len(one.chunk.steps)):
        rows = torch.cat([one.features[step == number], one.words])[None]
        with torch.no_grad():
            hidden = decoder(inputs_embeds=rows, use_cache=False, output_hidden_states=True).hidden_states[layers]
        logits.append(float(part.image(hidden[0, -1:].float())))
    got = part.relevance(one.features, step, len(one.chunk.steps), one.words)
    torch.testing.assert_close(got.float(), torch.tensor(logits).sigmoid(), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        hidden = decoder(inputs_embeds=one.words[None], use_cache=False, output_hidden_states=True).hidden_states[
            layers
        ]
    said = part.semantic(hidden.mean(1).float())[0]
    assert part.fragment(one.words) == bool(said[1] > said[0])
    assert len(decoder.layers) == lm.num_layers > layers and not any("stack" in name for name in part.state_dict())


def test_the_policies_tokens() -> None:
    """T n / 2 of Global at scale 2, and T n / 4 + 3 n r / 4 of Fragment with r relevant frames, the spec's numbers."""
    frames, places = 8, 16
    tokens = tokens_of(
        torch.randn(frames * places, 6, dtype=torch.float64), (4, 4), question=torch.randn(3, 6).double()
    )
    both = RelevancePooling(keep=0.5, policy="global")(tokens, {})[0]
    assert len(both.kept) == frames * places // 2 and both.weights is not None
    assert set(both.weights[both.weights > 0].tolist()) == {0.5}
    pairs = both.weights.nonzero()[:, 1].view(-1, 2)
    assert torch.equal(pairs[:, 1], pairs[:, 0] + 1) and (pairs[:, 0] % 2 == 0).all()
    assert len(RelevancePooling(keep=0.3, policy="global")(tokens, {})[0].kept) == frames * places // 4
    whole = RelevancePooling(keep=1.0, policy="global")(tokens, {})[0]
    assert len(whole.kept) == len(tokens)
    few = RelevancePooling(keep=0.1, policy="global")(tokens, {})[0]  # 12 tokens: three frames, pooled
    steps = tokens.step[few.kept].unique()
    assert len(few.kept) == 12 and len(steps) == 3 and int(steps.diff().min()) > 1
    for relevant in (0, 2, 5, 8):
        left = frames * places // 4 + 3 * places // 4 * relevant
        order = torch.arange(frames).flip(0).double() / 10
        routers = SimpleNamespace(relevance=lambda *of, order=order: order, fragment=lambda words: True)
        given = tokens_of(tokens.features, (4, 4), question=tokens.question, parts={"videorouter": routers})
        keep = left / len(tokens)
        kept = RelevancePooling(keep=keep, relevance="trained", policy="trained")(given, {})[0].kept
        sizes = torch.bincount(given.step[kept], minlength=frames).tolist()
        assert len(kept) == left and sizes == [places] * relevant + [places // 4] * (frames - relevant)
    routers = SimpleNamespace(fragment=lambda words: False)
    given = tokens_of(tokens.features, (4, 4), question=tokens.question, parts={"videorouter": routers})
    assert torch.equal(RelevancePooling(keep=0.5, policy="trained")(given, {})[0].kept, both.kept)


def test_the_router_of_dualcomp() -> None:
    """Its lambda is `geometric`, its rho a share of `keep`."""
    lm = build("qwen2_5_vl")
    part, tokens = random_part(lm, "dualcomp"), random_tokens(1, hidden=64, words=4, parts={}, dtype=torch.float32)
    tokens.parts["dualcomp"] = part  # type: ignore[index]
    rows = torch.nn.functional.layer_norm(tokens.question, (64,))
    said = part.mlp(torch.cat([rows.mean(0), rows.max(0).values])).sigmoid().tolist()
    geometric, needed = part.routed(tokens.question)
    assert geometric == pytest.approx(said[0], abs=1e-5) and needed == pytest.approx(0.25 + 0.75 * said[1], abs=1e-5)
    by_hand = DualComp(keep=0.5, geometric=geometric)(tokens, {})[0]
    assert torch.equal(DualComp(keep=0.5, router="lambda")(tokens, {})[0].kept, by_hand.kept)
    fewer = DualComp(keep=0.5, router="both")
    by_hand = DualComp(keep=0.5 * needed, geometric=geometric)(tokens, {})[0]
    assert torch.equal(fewer(tokens, {})[0].kept, by_hand.kept) and fewer.left(60) is None
    with pytest.raises(pv.ConfigError, match="both say lambda"):
        DualComp(geometric=0.3, router="both")
    with pytest.raises(pv.ConfigError, match="router is 'lamda'"):
        DualComp(router="lamda")


ASKING = {
    "evocomp": "evocomp:keep=0.4",
    "videorouter": "relevance_pooling:relevance=trained,policy=trained,keep=0.4",
    "dualcomp": "dualcomp:router=both,keep=0.6",
}


@pytest.mark.parametrize("name", list(ASKING))
def test_streams_of_those_that_ask(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """They need the part and a question, and go on from a file as they would have gone on."""
    lm, folder = build("qwen3_vl"), tmp_path_factory.mktemp(name)
    here = with_parts(lm, random_part(lm, name))
    with pytest.raises(pv.ConfigError, match=f"needs the trained part '{name}'"):
        lm.stream(reducer=ASKING[name], standing_question="what ?")
    with pytest.raises(pv.ConfigError, match="the question while"):
        here.stream(reducer=ASKING[name])
    stream = here.stream(pv.Pyramid(stages=1), reducer=ASKING[name], standing_question="what is shown first ?")
    frames = video(8)
    stream.push(frames[:4], [0, 1, 2, 3])
    stream.save(folder / "saved")
    resumed, fork = here.resume(folder / "saved"), stream.fork()
    for each in (stream, resumed, fork):
        each.push(frames[4:], [4, 5, 6, 7])
    one, two, three = (each.next_logits("how many ?") for each in (stream, resumed, fork))
    assert torch.equal(one, two) and torch.equal(one, three)
    assert 0 < int(stream.held().visual.sum()) < 36


def test_all_parts_have_a_trainer() -> None:
    from pdrop_video.parts import PARTS

    assert list(TRAINERS) == list(PARTS) and all(TRAINERS[name].part is part for name, part in PARTS.items())
