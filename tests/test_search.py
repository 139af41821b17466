"""Schedule search: divergences by hand, budgets kept, nothing chosen that the held-out clips find worse."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import pdrop_video as pv
from eval.synthetic.render import write_clip
from eval.synthetic.world import sample_clip
from pdrop_video import cli
from pdrop_video.costs.decoder import DecoderShape, prefill_flops
from pdrop_video.search.budget import Costs
from pdrop_video.search.judge import Objective
from pdrop_video.search.search import Clip, Judge, Tried, search

QUESTIONS = ["Which color is the first thing in the video?", "What digit is shown last in the video?"]


@pytest.fixture(scope="module")
def lm() -> pv.VideoLM:
    return pv.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("clips")
    for index in range(4):
        write_clip(sample_clip("dev", 11, index, seconds=4), folder / f"{index}.mp4")
    return [str(folder / f"{index}.mp4") for index in range(4)]


@pytest.fixture(scope="module")
def clips(paths: list[str]) -> list[Clip]:
    made = []
    for path in paths:
        with pv.open_video(path, frames=4, chunk=4) as video:
            made.append(Clip(path, list(video), QUESTIONS))
    return made


def watched(lm: pv.VideoLM, clip: Clip, pyramid: pv.Pyramid) -> pv.VideoStream:
    stream = lm.stream(pyramid, pv.Memory(tokens=None))
    for chunk in clip.chunks:
        stream.push(chunk)
    return stream


def test_next_logits_are_those_that_answers_come_from(lm: pv.VideoLM, clips: list[Clip]) -> None:
    stream = watched(lm, clips[0], pv.Pyramid())
    before = stream.cache_tokens
    logits = stream.next_logits(QUESTIONS[0])
    assert logits.argmax() == stream.ask(QUESTIONS[0], 1).token_ids[0]
    (token,) = lm.prompt.words("green")
    assert stream.likelihood(QUESTIONS[0], ["green"])[0] == pytest.approx(float(logits.log_softmax(-1)[token]))
    assert stream.cache_tokens == before


def test_logits_of_an_answer_are_those_that_it_was_decoded_by(lm: pv.VideoLM, clips: list[Clip]) -> None:
    stream = watched(lm, clips[0], pv.Pyramid())
    before = stream.cache_tokens, stream.cache_bytes
    answer = stream.ask(QUESTIONS[1], 6)
    logits = stream.answer_logits(QUESTIONS[1], answer.token_ids)
    assert len(logits) == len(answer.token_ids) + 1
    assert logits[:-1].argmax(-1).tolist() == list(answer.token_ids)  # greedy, one by one
    assert answer.finished and int(logits[-1].argmax()) not in answer.token_ids  # behind them it ends
    given = lm.prompt.words("green and red")
    rows = stream.answer_logits(QUESTIONS[0], given[:-1]).log_softmax(-1)
    mean = float(rows[range(len(given)), given].mean())
    assert stream.likelihood(QUESTIONS[0], ["green and red"])[0] == pytest.approx(mean, rel=1e-5)
    assert torch.equal(stream.answer_logits(QUESTIONS[0], [])[0], stream.next_logits(QUESTIONS[0]))
    assert (stream.cache_tokens, stream.cache_bytes) == before
    with pytest.raises(pv.ConfigError, match="token_ids"):
        stream.answer_logits(QUESTIONS[0], [10**9])


def test_divergence_over_the_answer_by_its_definition(lm: pv.VideoLM, clips: list[Clip]) -> None:
    pyramid, clip = pv.Pyramid(ratios=(0.2, 0.1)), clips[0]
    for most in (1, 2, 8):
        judge, means = Judge(lm, [clip], Objective("answer", most)), []
        full, pruned = watched(lm, clip, pv.Pyramid(stages=1)), watched(lm, clip, pyramid)
        for question in QUESTIONS:
            answer, each = full.ask(question, most), []
            for n in range(len(answer.token_ids) + answer.finished):  # its end counts, if it came to that
                known = answer.token_ids[:n]
                p, q = (s.answer_logits(question, known)[-1].double().log_softmax(-1) for s in (full, pruned))
                each.append(float((p.exp() * (p - q)).sum()))
            means.append(sum(each) / len(each))
        assert judge.divergence(pyramid) == pytest.approx(sum(means) / 2, rel=1e-4)
    assert Judge(lm, [clip], Objective("answer", 4)).divergence(pv.Pyramid(stages=1)) == 0


def test_divergence_by_its_definition(lm: pv.VideoLM, clips: list[Clip]) -> None:
    pyramid, means = pv.Pyramid(ratios=(0.2, 0.1)), []
    for clip in clips[:2]:
        full, pruned = watched(lm, clip, pv.Pyramid(stages=1)), watched(lm, clip, pyramid)
        each = []
        for question in QUESTIONS:
            p, q = (np.exp((x := s.next_logits(question).double().numpy()) - x.max()) for s in (full, pruned))
            p, q = p / p.sum(), q / q.sum()
            each.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))
        means.append(sum(each) / 2)
    judge = Judge(lm, clips[:2])
    assert judge.divergence(pyramid) == pytest.approx(sum(means) / 2, rel=1e-6) and sum(means) > 1e-4
    assert judge.divergence(pv.Pyramid(stages=1)) == 0
    assert judge.visual == watched(lm, clips[0], pyramid).ask(QUESTIONS[0], 1).visual_tokens


@pytest.mark.parametrize("budget", [0.25, 0.46, 0.8])
def test_schedules_use_up_the_budget_and_no_more(budget: float) -> None:
    shape = DecoderShape(layers=28, hidden=128, heads=4, kv_heads=2, head_dim=32, mlp=256, vocabulary=1000)
    costs, visual = Costs(shape, 4096), 4096
    full = prefill_flops(shape, pv.Pyramid(stages=1).resolve(28), visual, 0)
    paper = costs.paper(pv.Pyramid(), 4, budget)
    scaled = costs.scaled(pv.Pyramid(scorer="novelty"), (3, 9, 20), (0.9, 0.3, 0.1), budget)
    for pyramid in (paper, scaled):
        share = prefill_flops(shape, pyramid.resolve(28), visual, 0) / full
        assert costs.share(pyramid) == share and budget - 0.005 < share <= budget
    first, second, third = paper.ratios  # at a quarter the boundaries are shallower
    assert paper.layers == ((7, 14, 21) if budget > 0.3 else (6, 13, 20)) and (second, third) == pytest.approx(
        (first**2, first**3)
    )
    assert scaled.layers == (3, 9, 20) and scaled.scorer == "novelty"
    assert costs.scaled(pv.Pyramid(), (20, 24), (0.5, 0.2), 0.1) is None  # twenty whole layers cost more


def test_what_is_chosen(lm: pv.VideoLM, clips: list[Clip]) -> None:
    seen: list[Tried] = []
    found = search(lm, clips, 0.5, stages=3, trials=3, steps=3, seed=3, watch=seen.append)
    searched, held = Judge(lm, clips[::2]), Judge(lm, clips[1::2])
    for tried in (found.chosen, found.paper, found.best_random):
        assert tried.divergence == searched.divergence(tried.pyramid)
        assert tried.held_out == held.divergence(tried.pyramid)
    assert found.chosen.held_out <= min(found.paper.held_out, found.best_random.held_out)
    assert found.best_random.pyramid == min(seen[1:4], key=lambda tried: tried.divergence).pyramid
    assert found.chosen.pyramid in [tried.pyramid for tried in seen]
    for tried in seen:
        assert 0.4 < tried.flops <= 0.5
        assert all(a < b for a, b in pairwise(tried.pyramid.layers))
        assert all(a >= b for a, b in pairwise(tried.pyramid.ratios))
    # each step starts at the best so far: one boundary moves, or ratios do
    best = min(seen[:4], key=lambda tried: tried.divergence)
    for tried in seen[4:]:
        assert sum(a != b for a, b in zip(tried.pyramid.layers, best.pyramid.layers, strict=True)) <= 1
        best = min(best, tried, key=lambda one: one.divergence)


def test_what_can_t_be_searched(lm: pv.VideoLM, clips: list[Clip]) -> None:
    for arguments, said in (
        ((clips[:1], 0.5), "1 clip was given; expected two or more"),
        ((clips, 1.5), "expected a budget between 0 and 1"),
        ((clips, 0.01), "can't be brought to 1.0% of the FLOPs"),
    ):
        with pytest.raises(pv.ConfigError, match=said):
            search(lm, *arguments)
    with pytest.raises(pv.ConfigError, match="stages were asked of a model"):
        search(lm, clips, 0.5, stages=99)


def test_pyramids_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "pyramid.json"
    for pyramid in (
        pv.Pyramid(),
        pv.Pyramid(layers=(3, 9), ratios=(0.5, 0.2), scorer="novelty", allocator="uniform", positions="compact"),
        pv.Pyramid.for_average(192, of=576),
    ):
        pyramid.save(path, seed=3)
        assert pv.Pyramid.load(path) == pyramid and json.loads(path.read_text())["seed"] == 3
    for text in ("{", "[]", "{}", '{"pyramid": {"ratio": 3}}', '{"pyramid": {"depth": 3}}'):
        path.write_text(text)
        with pytest.raises(pv.ConfigError, match="holds no pyramid"):
            pv.Pyramid.load(path)
    with pytest.raises(pv.ConfigError, match="can't be read"):
        pv.Pyramid.load(tmp_path / "missing.json")


def test_from_the_command_line(lm: pv.VideoLM, clips: list[Clip], paths: list[str], tmp_path: Path) -> None:
    out = tmp_path / "schedule.json"
    options = ["--budget", "0.5", "--stages", "3", "--trials", "2", "--steps", "1", "--frames", "4", "--chunk", "4"]
    asked = [part for question in QUESTIONS for part in ("--question", question)]
    command = ["search", *paths, *asked, *options, "--out", str(out), "--device", "cpu", "--dtype", "float32"]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0, result.output
    found = search(lm, clips, 0.5, stages=3, trials=2, steps=1)
    assert pv.Pyramid.load(out) == found.chosen.pyramid
    notes = json.loads(out.read_text())["search"]
    assert notes["paper's shape"]["held_out"] == pytest.approx(found.paper.held_out)
    assert notes["best of 2 random"]["divergence"] == pytest.approx(found.best_random.divergence)
