"""`pdrop-video calibrate hawk`: the paper's formula, heads switched off as if their weights were 0, and the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import build, cases, video
from hybrids import build as build_hybrid
from media import steady, write_video
from torch.nn.functional import kl_div
from typer.testing import CliRunner

import pdrop_video as pv
from pdrop_video import cli
from pdrop_video.pyramid.scorers.hawk import Hawk
from pdrop_video.search.heads import Heads, calibrate, head_weights
from pdrop_video.search.judge import Clip

QUESTIONS = ["what is shown first ?", "how many red ?"]


def test_the_specs_example() -> None:
    got = head_weights((80, 60), [(70, 57), (81, 58), (78, 60)])
    assert got == pytest.approx((0.692857, 0.2, 0.107143), abs=1e-6)
    assert head_weights([5], [[4], [4]]) == (0.5, 0.5)  # nothing tells them apart


@pytest.mark.parametrize("wrong", [((), []), ((1,), []), ((1, 2), [(1,)]), ((1,), [("a",)])])
def test_what_are_no_scores(wrong: tuple[Any, Any]) -> None:
    with pytest.raises(pv.ConfigError):
        head_weights(*wrong)


def clip(seed: int) -> Clip:
    chunks = [pv.FrameChunk(video(2, seed=seed + i), (2.0 * i, 2.0 * i + 1)) for i in range(2)]
    return Clip(str(seed), chunks, QUESTIONS)


def answers(lm: pv.VideoLM, one: Clip) -> list[torch.Tensor]:
    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
    for chunk in one.chunks:
        stream.push(chunk)
    return [stream.next_logits(question).log_softmax(-1) for question in QUESTIONS]


@pytest.mark.parametrize("family", cases(("qwen2_5_vl", "llava_onevision"), fast=lambda f: f == 0))
def test_heads_are_switched_off_as_if_their_weights_were_nothing(family: str) -> None:
    """In layer 0 alone; the KL divergence of what would be said, the mean over questions, clip by clip; no trace."""
    lm, clips, done = build(family), [clip(0), clip(5)], []
    full = [answers(lm, one) for one in clips]
    found = calibrate(lm, clips, lambda number, of: done.append((number, of)))
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(torch.equal(a, b) for a, b in zip(full[0], answers(lm, clips[0]), strict=True))
    weight = lm.model.get_decoder().layers[0].self_attn.o_proj.weight
    whole = weight.data.clone()
    for head in range(4):
        weight.data = whole.clone()
        weight.data[:, 16 * head : 16 * head + 16] = 0
        for number, one in enumerate(clips):
            lost = [
                float(kl_div(q, p, reduction="sum", log_target=True))
                for p, q in zip(full[number], answers(lm, one), strict=True)
            ]
            assert found.divergence[head][number] == pytest.approx(sum(lost) / 2, rel=1e-6) and sum(lost) > 1e-6
    assert found.weights == head_weights([0, 0], [[-lost for lost in row] for row in found.divergence])
    assert sum(found.weights) == pytest.approx(1)


def test_what_can_t_be_weighed() -> None:
    with pytest.raises(pv.ConfigError, match="no clip was given"):
        calibrate(build("qwen2_5_vl"), [])
    with pytest.raises(pv.ConfigError, match="hawk was to rank before layer 0"):
        calibrate(build_hybrid("qwen3_5"), [clip(0)])


def test_from_the_command_line(tmp_path: Path) -> None:
    """The file is what `Hawk` reads, and names what it was made of."""
    path, out = write_video(tmp_path / "a.mp4", steady(20, rate=10), rate=10), tmp_path / "hawk.json"
    options = ["--question", "what ?", "--frames", "2", "--chunk", "2", "--device", "cpu", "--dtype", "float32"]
    result = CliRunner().invoke(cli.app, ["calibrate", "hawk", str(path), "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    said = json.loads(out.read_text())["hawk"]
    assert said["layer"] == 0 and said["questions"] == ["what ?"] and said["videos"] == [str(path)]
    weights = Hawk(out).heads
    assert weights == tuple(said["weights"]) and len(said["divergence"]) == len(weights or ())
    lm = pv.load(device="cpu", dtype="float32")
    stream = lm.stream(pv.Pyramid(layers=(0,), ratios=(0.25,), scorer=f"hawk:weights={out}"))
    assert stream.push(video(2, height=96, width=128), [0, 1]).kept[1] > 0
    wrong = CliRunner().invoke(cli.app, ["calibrate", "hawk", str(path), "--out", str(tmp_path), *options])
    assert wrong.exit_code == 1 and "can't be written" in wrong.output
    with pytest.raises(pv.ConfigError, match="can't be written"):
        Heads((1.0,), ((0.0,),)).save(tmp_path)
