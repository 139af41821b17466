"""The search by gradients: the specification's numbers, masks that do as they say, schedules that spend the budget."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from families import build, video
from hybrids import build as build_hybrid
from torch.testing import assert_close
from typer.testing import CliRunner

import pdrop_video as pv
from eval.synthetic.render import write_clip
from eval.synthetic.world import sample_clip
from pdrop_video import cli
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.search.budget import Costs
from pdrop_video.search.gradient import fitted, gradient_search
from pdrop_video.search.judge import Clip, Objective
from pdrop_video.search.lagrangian import UNITS, Lagrangian, Spending, smooth
from pdrop_video.search.learners import BUDGETS, Learner, Network, learn, spending
from pdrop_video.search.soft import HIDDEN, Laid, SoftPass, kept, lay_out, straight_through, threshold
from pdrop_video.video import FrameChunk

QUESTION = "what is shown ?"
KINDS = ["qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl", "molmo2"]


def clip_of(seed: int = 3) -> Clip:
    whole = FrameChunk.checked(video(6, seed=seed), tuple(i / 2 for i in range(6)))
    return Clip("a", [whole.part(0, 4), whole.part(4, 6)], [QUESTION])


def laid_of(lm: pv.VideoLM, tokens: int = 3) -> Laid:
    (laid,) = lay_out(lm, clip_of(), Objective("answer", tokens))
    return laid


def test_the_numbers_of_the_specification() -> None:
    shares = smooth(8, torch.tensor(2.5, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64))
    assert shares.tolist() == pytest.approx([1, 1, 0.995315, 0.304685, 0.3, 0.3, 0.3, 0.3], abs=1e-6)
    spent = Spending(visual=100, text=20, hidden=64, mlp=128)
    assert spent.target(0.5, 8) == 25_927_680
    assert float(spent.flops(shares)) == pytest.approx(27_109_740.3, abs=0.1)
    gap = spent.target(0.5, 8) - float(spent.flops(shares))
    assert gap == pytest.approx(-1_182_060.3, abs=0.1)
    assert float(spent.gap(shares, 0.5)) == pytest.approx(UNITS * gap / (46_202_880 - 5_652_480))
    rule, found = Lagrangian(before=0.4), []
    for g in (0.3, 0.12, 0.05):
        rule.update(g)
        found.append((rule.sigma, pytest.approx(rule.w)))
    assert found == [(500, -149), (500, -209), (500, -234)] and not rule.done
    for g in (0.009, -0.001, 0.0):
        rule.update(g)
    assert rule.done
    loss = Lagrangian(w=2.0, sigma=100).loss(torch.tensor(0.026812), torch.tensor(-0.4))
    assert float(loss) == pytest.approx(1000 * 0.026812 + 0.1 * 2 * 0.4 + 100 * 0.16)


def test_a_threshold_is_the_mean_of_scores_around_a_rank() -> None:
    scores, count = [3.0, 1.5, 1.0, -2.0, -5.0], 2.3
    weights = [math.exp(-((rank - count) ** 2) / 5) for rank in range(5)]
    wanted = sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)
    assert float(threshold(torch.tensor(scores).double(), torch.tensor(count).double())) == pytest.approx(wanted)


def test_masks_are_hard_and_their_gradients_soft() -> None:
    scores = torch.tensor([0.3, 0.05, -0.02, -0.4], dtype=torch.float64)
    at = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    mask = straight_through(scores, at)
    assert mask.tolist() == [1, 1, 0, 0]
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    (found,) = torch.autograd.grad((mask * weights).sum(), at)
    soft = torch.sigmoid(scores / 0.1)
    assert float(found) == pytest.approx(float(-(weights * soft * (1 - soft) / 0.1).sum()))


def test_about_so_many_tokens_stay_and_text_does() -> None:
    visual = torch.arange(120) % 6 > 0  # a hundred among twenty
    scores = torch.rand(120, generator=torch.Generator().manual_seed(1)).double()
    for share in (0.2, 0.5, 0.8):
        mask = kept(scores, visual, torch.tensor(share, dtype=torch.float64, requires_grad=True))
        assert mask[~visual].tolist() == [1] * 20
        stay = mask[visual] > 0.5
        assert abs(int(stay.sum()) - 100 * share) <= 3
        assert scores[visual][stay].min() > scores[visual][~stay].max()
    share = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    (more,) = torch.autograd.grad(kept(scores, visual, share).sum(), share)
    assert float(more) > 0  # a larger share lets more through


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("family", KINDS)
def test_with_nothing_hidden_it_says_what_a_stream_says(family: str, attn: str) -> None:
    lm = build(family, attn=attn)
    laid = laid_of(lm)
    says_the_same(lm, laid)


def test_windows_stand() -> None:
    lm = build_hybrid("exaone4_5")
    laid = laid_of(lm)
    kinds = SoftPass(lm, pv.Pyramid()).decoder.kinds
    windows = [kind.window for kind in kinds if kind.window is not None]
    assert windows and min(windows) < laid.hidden.shape[1]
    says_the_same(lm, laid)


def says_the_same(lm: pv.VideoLM, laid: Laid) -> None:
    with torch.no_grad():
        found = SoftPass(lm, pv.Pyramid()).logits(laid).log_softmax(-1)
    assert len(found) == len(laid.reference.known) > 1
    assert_close(found, laid.reference.known, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("family", KINDS)
def test_what_is_hidden_is_as_if_it_had_been_dropped(family: str) -> None:
    """A boundary behind which the soft masks hide some tokens says what the layers say without these rows."""
    lm = build(family)
    laid, soft = laid_of(lm), SoftPass(lm, pv.Pyramid(scorer="value_norm"))
    shares = torch.ones(soft.layers, dtype=torch.float64)
    shares[3:] = 0.4
    hidden: list[torch.Tensor] = []
    run = soft.decoder.run

    def note(i: int, rows: torch.Tensor, mask: torch.Tensor, **given: object) -> tuple[torch.Tensor, None]:
        hidden.append(mask[0, 0, -1] < math.log(HIDDEN) / 2)  # the last row sees all else
        return run(i, rows, mask, **given)

    soft.decoder.run = note  # type: ignore[method-assign, assignment]
    with torch.no_grad():
        found = soft.logits(laid, shares)
    gone = [int(each.sum()) for each in hidden]
    assert gone[0] == 0 and gone[3] > 0.4 * int(laid.visual.sum()) and not (hidden[3] & ~laid.visual[0]).any()

    rows, extra = soft.decoder.parted(laid.hidden)
    stands = torch.ones(rows.shape[1], dtype=torch.bool)
    with torch.no_grad():
        for i in range(soft.layers):
            there, now = stands & ~hidden[i], (~hidden[i])[stands]
            rows, stands = rows[:, now], there
            mask = soft._mask(i, laid, laid.hidden[..., : rows.shape[2]])[..., stands, :][..., stands]
            rope = soft.decoder.rope(i, rows, laid.positions[..., stands])
            beside = None if extra is None else extra[:, stands, i]
            rows, _ = run(i, rows, mask, rope=rope, cache=None, extra=beside)
            if i < len(laid.deepstack):
                rows = rows + laid.deepstack[i][:, stands]
        compared = len(laid.reference.known)
        wanted = lm.model.get_output_embeddings()(soft.decoder.norm(rows[0, -compared:]))
    assert_close(found, wanted, atol=1e-3, rtol=1e-3)


def test_gradients_reach_depth_and_ratio() -> None:
    lm = build("qwen2_5_vl")
    laid, soft = laid_of(lm), SoftPass(lm, pv.Pyramid())
    number = torch.tensor([0.1, -0.3], dtype=torch.float64, requires_grad=True)
    shares = smooth(soft.layers, soft.layers * torch.sigmoid(number[0]), torch.sigmoid(number[1]))
    far = soft.divergence(laid, shares)
    found = torch.autograd.grad(far, number)[0]
    assert float(far.detach()) > 0 and found.isfinite().all() and found.abs().min() > 0


def test_a_multiplied_softmax_is_what_masks_add() -> None:
    """Weights exp(a) m / sum exp(a) m, as the released code has them, by what is added: their gradients, too."""
    scores = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.randn(7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    both = []
    for added in (True, False):
        stays = torch.tensor([1, 0, 1, 1, 0, 1, 1], dtype=torch.float64, requires_grad=True)
        if added:
            weights = (scores + (stays + HIDDEN * (1 - stays)).log()).softmax(0)
        else:
            weights = scores.exp() * stays / (scores.exp() * stays).sum()
        out = (weights * values).sum()
        both.append((out.detach(), torch.autograd.grad(out, stays)[0]))
    assert_close(both[0], both[1], atol=1e-5, rtol=1e-4)


def test_the_network_sees_the_budget_and_the_input() -> None:
    torch.manual_seed(0)
    network, rows = Network(64), torch.randn(9, 64)
    one, other = network(rows, 0.2), network(rows, 0.8)
    assert one.shape == (2,) and not torch.allclose(one, other)
    assert not torch.allclose(one, network(rows + 1, 0.2))
    assert_close(network(rows.flip(0), 0.2), one)  # a mean over rows
    assert len(BUDGETS) == 20 and BUDGETS[:3] == (0.01, 0.05, 0.1) and BUDGETS[-1] == 0.95


@pytest.mark.parametrize("name", ["free", "network"])
def test_learning_comes_to_the_budget_and_is_the_same_again(name: str) -> None:
    lm = build("qwen2_5_vl")
    laid, soft = [laid_of(lm)], SoftPass(lm, pv.Pyramid())
    shape = DecoderShape.of(lm.model.config)
    assert spending(laid[0], shape).visual == int(laid[0].visual.sum())
    begun = abs(Learner(name, 64, soft.layers, 0).gap(laid, shape, 0.3))
    lines: list[str] = []
    found = [learn(soft, laid, name, 0.3, 10, 3, 0, lines.append) for _ in range(2)]
    assert abs(found[0].gap(laid, shape, 0.3)) < begun and found[0].passes == 30
    assert found[0].settled(laid, 0.3) == found[1].settled(laid, 0.3)
    assert len(lines) == 6 and lines[0].startswith(f"{name}, epoch 1: ")
    depth, ratio, spread = found[0].settled(laid, 0.3)
    assert 0 < depth < soft.layers and 0 < ratio < 1 and spread == 0


@pytest.mark.parametrize("depth", [0.2, 2.5, 2.93, 7.5, 11.9])
@pytest.mark.parametrize("budget", [0.3, 0.6])
def test_a_learned_depth_uses_the_budget_up(depth: float, budget: float) -> None:
    shape = DecoderShape(layers=12, hidden=128, heads=4, kv_heads=2, head_dim=32, mlp=256, vocabulary=1000)
    costs = Costs(shape, 1024)
    found = fitted(costs, pv.Pyramid(scorer="novelty"), depth, budget)
    assert 0.97 * budget < costs.share(found) <= budget and found.scorer == "novelty"
    assert found.layers and abs(found.layers[0] - min(depth, 12 * budget)) <= 1.5


def test_what_is_compared(tmp_path: Path) -> None:
    lm = build("qwen2_5_vl")
    clips = [clip_of(seed) for seed in range(2)]
    found = gradient_search(lm, clips, 0.5, steps=2, epochs=1)
    assert set(found.learned) == {"network", "free"}
    for one in (*(each.tried for each in found.learned.values()), found.front, found.paper):
        assert 0.4 < one.flops <= 0.5 and one.divergence >= 0 and one.held_out >= 0
    assert found.chosen.held_out == min(each.tried.held_out for each in found.learned.values())
    assert found.learned["free"].passes == 2 and found.front_passes > 0
    with lm.stream(found.chosen.pyramid, pv.Memory(tokens=None)) as stream:
        stream.push(clips[0].chunks[0])
        assert stream.next_logits(QUESTION).isfinite().all()


def test_what_cannot_be_learned() -> None:
    lm, clips = build("qwen2_5_vl"), [clip_of(seed) for seed in range(2)]
    with pytest.raises(pv.ConfigError, match="learners"):
        gradient_search(lm, clips, 0.5, learners=["tree"])
    with pytest.raises(pv.ConfigError, match="two or more"):
        gradient_search(lm, clips[:1], 0.5)
    with pytest.raises(pv.ModelError, match="without gradients"):
        SoftPass(build_hybrid("qwen3_5"), pv.Pyramid())


def test_the_command(tmp_path: Path) -> None:
    for index in range(2):
        write_clip(sample_clip("dev", 11, index, seconds=4), tmp_path / f"{index}.mp4")
    out, runner = tmp_path / "found.json", CliRunner()
    videos = [str(tmp_path / f"{index}.mp4") for index in range(2)]
    given = ["search", *videos, "--question", "What is shown last?", "--out", str(out), "--by", "gradient"]
    said = runner.invoke(cli.app, [*given, "--steps", "1", "--frames", "4", "--dtype", "float32", "--device", "cpu"])
    assert said.exit_code == 0, said.output
    saved = json.loads(out.read_text())
    assert pv.Pyramid.load(out).layers and set(saved["search"]["learned"]) == {"network", "free"}
    assert saved["search"]["front"]["pyramid"]["layers"] and "passes" in said.output
    wrong = runner.invoke(cli.app, [*given, "--kernel", "linear"])
    assert wrong.exit_code and "leave --space and --kernel out" in wrong.output
