"""Proofs for training with dropping: what a lesson's pass leaves out, whom it ranks like, and how runs go on."""

from __future__ import annotations

import itertools
import json
import math
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_compare import record, written
from torch.testing import assert_close
from transformers import Qwen2_5_VLForConditionalGeneration

import pdrop_video as pv
from eval.stats.record import read_run
from eval.synthetic import dropping_run, train_moving
from eval.synthetic.bank import Bank, bank_clip, labels_of
from eval.synthetic.dropped import draws, planned, teachers, train
from eval.synthetic.dropping import answers_loss, run_dropping, scorer_for
from eval.synthetic.dropping_run import Run, Trapezoid, Turns, seconds_a_step, spending
from eval.synthetic.language_stage import run
from eval.synthetic.lessons import PREFIX, Teacher
from eval.synthetic.log import Log
from eval.synthetic.mixed_stage import LESSONS, Teachers
from eval.synthetic.model import build_config, initialise, patches
from eval.synthetic.moving_lessons import MovingTeacher
from eval.synthetic.offline import prompt
from eval.synthetic.tokenizer import build_tokenizer
from eval.synthetic.world import sample_clip
from eval.tables import dropped as dropped_table
from eval.tables.dropped import by_share, checkpoints, compared, step_times
from pdrop_video.video import FrameChunk

PYRAMID = pv.Pyramid(layers=(2, 4, 6), ratios=(0.5, 0.25, 0.125), scorer="contrast")
TOKENIZER = build_tokenizer()


def taught(split="train", width=128, dtype=torch.float64):
    """A teacher on random features."""
    labels = np.concatenate([labels_of(sample_clip("train", 8, n, seconds=8, dense=True)) for n in range(40)])
    source = torch.Generator().manual_seed(3)
    return Teacher(torch.randn(len(labels), 16, width, generator=source).to(dtype), labels, TOKENIZER, split)


def fresh(dtype=torch.float64):
    """A model without training, of width 128, as a run takes it."""
    config = build_config(TOKENIZER)
    text, tower = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_attention_heads, text.num_key_value_heads = 128, 128, 2, 1
    tower.out_hidden_size, tower.depth = 128, 1
    model = Qwen2_5_VLForConditionalGeneration(config).float()
    initialise(model, 0)
    model.set_attn_implementation("bf16_softmax")
    return model.to(dtype)


def lesson_of(grids=10, form="words"):
    return taught().lesson(np.random.default_rng(1), 3, grids, gaps=True, form=form, blindness=0.5)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in model.model.language_model.named_parameters()}


@pytest.mark.parametrize("pyramid", [pv.Pyramid(stages=1), pv.Pyramid(layers=(2, 5), ratios=(1.0, 1.0))])
def test_with_everything_kept_it_is_the_plain_pass(pyramid):
    model, lesson = fresh(), lesson_of()
    seen, plain = run_dropping(model, lesson, pyramid), run(model, lesson)
    assert all(torch.equal(one, other) for one, other in zip(seen.after, plain, strict=True))
    learned = lesson.targets >= 0
    assert torch.equal(answers_loss(model, seen, lesson, "words")[2], model.lm_head(plain[-1][learned]).float())


@pytest.mark.parametrize("form", ["words", "letters"])
def test_what_is_dropped_is_as_if_it_were_masked(form):
    """Loss and gradients are those of all rows with, in each layer, the dropped columns hidden."""
    model, lesson = fresh(), lesson_of(form=form)
    seen = run_dropping(model, lesson, PYRAMID)
    loss, extra, scores = answers_loss(model, seen, lesson, form)
    found = gradients(model, loss + extra)
    visual, total = lesson.visual.shape[1], lesson.ids.shape[1]
    assert [each.shape[1] for each in seen.kept] == [160, 160, 80, 80, 40, 40, 20, 20]
    assert [each.shape[1] for each in seen.after] == [each.shape[1] + total - visual for each in seen.kept]

    text = model.model.language_model
    hidden = text.embed_tokens(lesson.ids)
    hidden = torch.cat([hidden[:, :PREFIX], lesson.visual, hidden[:, PREFIX + visual :]], 1)
    angles = text.rotary_emb(hidden, lesson.positions)
    after = []
    for layer, kept in zip(text.layers, seen.kept, strict=True):
        there = torch.ones(lesson.ids.shape, dtype=torch.bool)
        there[:, PREFIX : PREFIX + visual] = torch.zeros(len(kept), visual, dtype=torch.bool).scatter(1, kept, True)
        sees = lesson.mask & (there[:, None, None] | torch.eye(total, dtype=torch.bool))
        mask = torch.zeros(sees.shape, dtype=hidden.dtype).masked_fill(~sees, -1e4)
        hidden = layer(hidden, attention_mask=mask, position_embeddings=angles)
        after.append(hidden)
    masked = replace(seen, after=[*after[:-1], text.norm(hidden)])
    loss_masked, extra_masked, scores_masked = answers_loss(model, masked, lesson, form)
    assert_close(scores, scores_masked)
    assert_close(loss + extra, loss_masked + extra_masked)
    for name, wanted in gradients(model, loss_masked + extra_masked).items():
        assert_close(found[name], wanted, msg=name)


@pytest.mark.parametrize("scorer", ["contrast", "novelty"])
@pytest.mark.parametrize("grids", [8, 10])
def test_a_lesson_ranks_and_answers_as_a_stream_does(scorer, grids):
    """The same grids pushed four at a time into a stream: the same tokens stay, and the same is said next."""
    lm = pv.load(dtype="float32")
    pyramid = replace(PYRAMID, scorer=scorer)
    frames = torch.randint(0, 255, (grids, 2, 112, 112, 3), generator=torch.Generator().manual_seed(5)).to(torch.uint8)
    with torch.no_grad():
        pixels = patches(frames).flatten(0, 1)
        features = lm.model.model.visual(pixels, torch.tensor([[grids, 8, 8]])).pooler_output
    teacher = taught("dev", dtype=torch.float32)
    lesson = teacher.lesson(np.random.default_rng(2), 1, grids, gaps=False)
    lesson = replace(lesson, visual=features[None])
    lm.model.set_attn_implementation("bf16_softmax")
    with torch.no_grad():
        seen = run_dropping(lm.model, lesson, pyramid)
    clip, slot, *_ = lesson.asked[0]
    own = lesson.mask[clip, 0, slot].nonzero()[:, 0]
    said = TOKENIZER.decode(lesson.ids[clip, own[own >= PREFIX + 16 * grids]][1:-3])
    assert prompt(TOKENIZER, said)[1] == lesson.ids[clip, own[own >= PREFIX + 16 * grids]].tolist()
    behind = slot - PREFIX - 16 * grids
    mine = lm.model.lm_head(seen.tails()[-1][clip, behind])

    lm.model.set_attn_implementation("sdpa")
    with lm.stream(pyramid, pv.Memory(tokens=None)) as stream:
        flat = frames.flatten(0, 1)
        for first in range(0, 2 * grids, 8):
            seconds = tuple((first + n) / 2 for n in range(len(flat[first : first + 8])))
            stream.push(FrameChunk(flat[first : first + 8], seconds))
        for stage, layer in enumerate((0, 2, 4, 6)):
            held = stream.held(stage)
            held = held.take(held.visual.nonzero()[:, 0])
            assert (16 * held.step + 4 * held.row + held.column).tolist() == seen.kept[layer][clip].tolist()
        logits = stream.next_logits(said)
    assert_close(mine, logits, atol=2e-3, rtol=0)


def test_scorers_that_ask_a_question_are_refused():
    with pytest.raises(pv.ConfigError, match="questions of a lesson share one video"):
        scorer_for(pv.Pyramid(scorer="relevance"))


def test_the_rate_rises_stays_and_falls():
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    optimiser = Trapezoid([weight], 0.1, 1, warmup=4)
    optimiser.end, optimiser.cooling = 20, 5
    rates = []
    for optimiser.done in range(21):
        rates.append(round(optimiser.rate() / 0.1, 9))
    assert rates[:5] == [0.25, 0.5, 0.75, 1, 1] and rates[4:16] == [1] * 12
    assert rates[16:] == [0.8, 0.6, 0.4, 0.2, 0]
    optimiser.end = math.inf
    assert optimiser.rate() == 0.1


def test_random_schedules_are_drawn_evenly_and_spend_what_they_say():
    config = build_config(TOKENIZER)
    draw = draws(config, "contrast")["random"]
    drawn = [draw(np.random.default_rng([0, 6, step])) for step in range(2000)]
    kinds = {pyramid: drawn.count(pyramid) for pyramid in set(drawn)}
    assert len(kinds) == 18 and min(kinds.values()) > 60
    assert all(pyramid.scorer == "contrast" for pyramid in kinds if pyramid.stages is None)
    assert spending(config, 1, "contrast") == pv.Pyramid(stages=1)
    assert draws(config, "novelty")["dropping"](np.random.default_rng(0)) == pv.Pyramid(scorer="novelty")


class Small:
    """Runs on a narrow model, and lessons of one short video."""

    def __init__(self, work, monkeypatch):
        monkeypatch.setattr(dropping_run, "DEV_BATCHES", 1)
        monkeypatch.setattr(dropping_run, "DEV_CLIPS", 1)
        clock = SimpleNamespace(monotonic=itertools.count(0, 50).__next__, process_time=time.process_time)
        monkeypatch.setattr(dropping_run, "time", clock)  # a checkpoint every few steps
        monkeypatch.setattr(dropping_run, "clips_for", lambda grids, form: 1)
        monkeypatch.setattr(dropping_run, "grids_of", lambda late, rng: int(rng.integers(2, 6)))
        self.work = work
        drops = {"without": pv.Pyramid(stages=1), "dropping": PYRAMID, "random": PYRAMID}
        self.runs = [
            Run(name, fresh(torch.bfloat16), lambda rng, pyramid=pyramid: pyramid, 1e-3)
            for name, pyramid in drops.items()
        ]
        work.mkdir(exist_ok=True)
        both = Teachers(taught(dtype=torch.bfloat16), taught("dev", dtype=torch.bfloat16))
        self.turns = Turns({"still": both}, work, Log(work / "log.csv"), 0, "contrast")

    def train(self, steps):
        return train(self.runs, self.turns, planned(self.turns, self.runs, steps, 1.0, {}))


def test_a_stopped_training_ends_as_one_that_ran_through(tmp_path, monkeypatch):
    """Stopped within the turns, within an end and between ends; equal seconds are held still, as clocks differ."""
    monkeypatch.setattr(
        "eval.synthetic.dropped.seconds_a_step", lambda runs: dict(without=3.0, dropping=2.0, random=2.5)
    )
    Small(tmp_path / "whole", monkeypatch).train(6)
    learn, left = Run.learn, [7, 6, 9, 1000]

    def stops(self, *given):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return learn(self, *given)

    monkeypatch.setattr(Run, "learn", stops)
    while True:
        try:
            found = Small(tmp_path / "stopped", monkeypatch).train(6)
            break
        except KeyboardInterrupt:
            left.pop(0)
    assert len(left) == 1
    ends = {"without_steps": 6, "dropping_steps": 6, "dropping_time": 9, "random_steps": 6, "random_time": 7}
    assert {name: figures["steps"] for name, figures in found["checkpoints"].items()} == ends
    for name in ends:
        whole, stopped = (torch.load(tmp_path / each / f"{name}.pt") for each in ("whole", "stopped"))
        for one, other in zip(whole["optimiser"]["master"], stopped["optimiser"]["master"], strict=True):
            assert torch.equal(one, other), name
        assert (tmp_path / "stopped" / name / "model.safetensors").read_bytes() == (
            tmp_path / "whole" / name / "model.safetensors"
        ).read_bytes()
    assert json.loads((tmp_path / "stopped" / "dropped.json").read_text())["times_faster"]["dropping"] == 1.5
    with pytest.raises(pv.ConfigError, match="take another --work"):
        Small(tmp_path / "stopped", monkeypatch).train(8)


def test_every_run_learns_the_same_lessons_and_its_seconds_hold_them(tmp_path, monkeypatch):
    small, learned = Small(tmp_path, monkeypatch), []

    def learn(self, lesson, form, pyramid):
        learned.append((self.name, self.optimiser.done, lesson.ids.sum().item(), lesson.visual.sum().item()))
        self.optimiser.done += 1
        return {}

    monkeypatch.setattr(Run, "learn", learn)
    small.turns.together(small.runs, 4)
    by_step = {step: {each[2:] for each in learned if each[1] == step} for step in range(4)}
    assert all(len(each) == 1 for each in by_step.values()) and len(set().union(*by_step.values())) == 4
    assert [name for name, *_ in learned[:6]] == ["random", "dropping", "without", "without", "dropping", "random"]
    assert min(seconds_a_step(small.runs).values()) > 0


def test_checkpoints_are_compared_share_by_share(tmp_path):
    """Each with the run without dropping at the same share, by videos."""
    scores = {"without_steps": [1, 1, 0, 1, 1, 0], "start": [1, 0, 0, 1, 0, 0], "dropping_steps": [1, 1, 1, 1, 1, 0]}
    done = {}
    for share, turned in (("100%", False), ("50%", True)):
        done[share] = []
        for name, right in scores.items():
            records = [record(f"v{n // 2}-{n % 2}", s) for n, s in enumerate(right[::-1] if turned else right)]
            done[share].append(read_run(written(tmp_path / f"{name} {share}", records)))
    table, said = compared(done, 0.03)
    assert table.share.tolist() == ["100%", "100%", "50%", "50%"] and len(said) == 4
    assert table.against.tolist() == ["without_steps 100%"] * 2 + ["without_steps 50%"] * 2
    assert table.difference.tolist() == pytest.approx([-2 / 6, 1 / 6, -2 / 6, 1 / 6])
    wide = by_share(done).set_index("checkpoint")
    assert wide.columns.tolist() == ["100%", "50%"] and wide.loc["dropping_steps", "50%"].startswith("83.3 ± ")


def test_step_times_are_taken_in_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(dropped_table, "GRIDS", (2, 3))
    monkeypatch.setattr(dropped_table, "clips_for", lambda grids, form: 1)
    monkeypatch.setattr(dropped_table, "WIDTH", 128)
    times = step_times(Small(tmp_path, monkeypatch).runs, TOKENIZER, 1)
    assert times.grids.tolist() == [2, 3]
    assert (times["dropping_times_faster"] > 0).all()
    assert times["dropping_times_faster"].to_numpy() == pytest.approx((times.without_s / times.dropping_s).to_numpy())


def test_nothing_is_measured_before_all_is_trained(tmp_path):
    with pytest.raises(pv.ConfigError, match=r"finish python -m eval\.synthetic\.dropped"):
        checkpoints(tmp_path)


def test_teachers_of_both_worlds_share_a_bank(tmp_path, monkeypatch):
    """The bank's first clips are of still cameras, and each world is taught on its own."""
    monkeypatch.setattr(train_moving, "DEV_CLIPS", 14)
    monkeypatch.setattr(train_moving, "DEV_STILL", 7)
    monkeypatch.setattr(train_moving, "features", lambda model, bank: torch.zeros(len(bank.labels), 16, 128).bfloat16())
    monkeypatch.setattr(
        train_moving, "open_bank", lambda folder, split, seed, clips, workers, still: labelled(clips, still)
    )
    found = teachers(tmp_path, tmp_path, 60, 30, TOKENIZER, None, 1)
    assert list(found) == ["still", "moving"] and isinstance(found["moving"].train, MovingTeacher)
    assert not isinstance(found["still"].train, MovingTeacher)
    assert [len(found[w].train.labels) for w in found] == [240, 240]
    assert [len(found[w].dev.labels) for w in found] == [56, 56]
    turns = Turns(found, tmp_path, Log(tmp_path / "log.csv"), 0, "contrast")
    monkeypatch.setattr(dropping_run, "clips_for", lambda grids, form: 1)
    monkeypatch.setattr(dropping_run, "grids_of", lambda late, rng: int(rng.integers(4, 9)))
    assert turns.lessons == LESSONS and {turns.lesson(step)[1] for step in range(6)} <= {"words", "letters"}
    assert turns.lesson(3)[0].ids.equal(turns.lesson(3)[0].ids)
    (tmp_path / "other").mkdir()
    assert list(teachers(tmp_path, tmp_path / "other", 60, 60, TOKENIZER, None, 1)) == ["still"]


def labelled(clips, still):
    """A bank without its pictures."""
    rows = [labels_of(bank_clip("train", 5, n, still)) for n in range(clips)]
    return Bank(np.zeros((8 * clips, 0), np.uint8), np.concatenate(rows))
