"""Reducers that go by the standing question, in streams: what enters is what they say, and the question decides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from clips import clip
from families import build, video
from reference import full_prompt
from test_exact import next_logits
from test_front import Entered, assert_equal, decoder_logits, watched

import pdrop_video as pv
from pdrop_video.reduce import REDUCERS
from pdrop_video.reduce.sppruner import SPpruner

QUESTION, OTHER = "what is shown first ?", "red blue"
SECONDS = [0.5 * i for i in range(12)]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("clip")
    clip(folder)
    return str(folder)


def asked(lm: pv.VideoLM, reducer: str, question: str | None) -> pv.VideoStream:
    return lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), reducer=reducer, standing_question=question)


def places(stream: pv.VideoStream) -> list[list[int]]:
    """Step, row and column of what is held."""
    table = stream.held()
    return [each[table.visual].tolist() for each in (table.step, table.row, table.column)]


@pytest.mark.parametrize("keep", [0.6, 0.2])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl"])
def test_pooled_tokens_equal_a_mask_over_means(family: str, keep: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unmodified decoder on all rows, those that stay with their new features and the others hidden."""
    lm = build(family)
    entered = Entered(monkeypatch, None)
    stream = watched(lm, {"reducer": f"relevance_pooling:keep={keep}"}, video(12), [4, 8])
    inputs, prefix, _ = full_prompt(lm, video(12), SECONDS, QUESTION)
    rows = entered.rows(prefix)
    assert len(rows) < prefix + sum(sum(piece.whole_steps) for piece in entered.pieces)
    whole = lm.adapter.look(video(12), tuple(SECONDS)).embeds[rows[prefix:] - prefix]
    assert (torch.cat([piece.embeds for piece in entered.pieces]) - whole).abs().max() > 1e-3  # some are means
    want = decoder_logits(lm, entered, entered.masks(prefix, inputs["input_ids"].shape[1]), inputs, video(12), SECONDS)
    torch.testing.assert_close(next_logits(stream), want, atol=1e-9, rtol=0)


@pytest.mark.parametrize("reducer", ["relevance_pooling:keep=0.6", "sppruner:keep=0.3"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_next_video"])
def test_the_question_decides(family: str, reducer: str, tmp_path: Path) -> None:
    """Who stays depends on it, is the same once more, and is so when a stream goes on from a file."""
    lm = build(family)
    held = []
    for question in (QUESTION, OTHER, None, QUESTION):
        stream = asked(lm, reducer, question)
        stream.push(video(24), [0.5 * i for i in range(24)])
        held.append(places(stream))
    assert held[0] == held[3] and held[0] != held[1] and held[0] != held[2] != held[1]
    stream.save(tmp_path / "a.pdrop")
    resumed = lm.resume(tmp_path / "a.pdrop")
    for each in (stream, resumed):
        each.push(video(4, seed=1), [20, 21, 22, 23])
    assert_equal(stream, resumed)


def test_a_seeded_stream_carries_one_step(tmp_path: Path) -> None:
    """Saved and resumed bit for bit, within its bound however long it is."""
    lm = build("llava_onevision")
    stream = asked(lm, "learnpruner:keep=0.5,diverse=0.5,seeded=true", None)
    for i in range(4):
        stream.push(video(3, seed=i), [3 * i, 3 * i + 1, 3 * i + 2])
        places = lm.adapter.grid(60, 72)
        bound = REDUCERS["learnpruner"].__class__(seeded=True).most_bytes(places[0] * places[1], 64, 8)
        assert 0 < stream.status.carried_bytes["reducer"] <= bound
    stream.save(tmp_path / "a.pdrop")
    resumed = lm.resume(tmp_path / "a.pdrop")
    for each in (stream, resumed):
        each.push(video(3, seed=9), [20, 21, 22])
    assert_equal(stream, resumed)


def test_desap_equals_a_mask_over_means(half: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = build("llava_next_video")
    entered = Entered(monkeypatch, None)
    stream = lm.stream(
        pv.Pyramid(stages=1),
        pv.Memory(tokens=None),
        reducer=f"desap:keep=0.3,text_tower={half}",
        standing_question="red ?",
    )
    stream.push(video(12), SECONDS)
    inputs, prefix, _ = full_prompt(lm, video(12), SECONDS, QUESTION)
    assert len(entered.rows(prefix)) == prefix + 12 * int(16 * 0.3)
    want = decoder_logits(lm, entered, entered.masks(prefix, inputs["input_ids"].shape[1]), inputs, video(12), SECONDS)
    torch.testing.assert_close(next_logits(stream), want, atol=1e-9, rtol=0)


def test_the_towers_attention_is_used_where_it_is_known() -> None:
    """Another choice than by what stands out, with the same weights."""
    lm = build("llava_next_video")
    kept = []
    for wants in (("attention",), ()):

        class Told(SPpruner):
            pass

        Told.wants = wants
        stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), reducer=Told(0.3))
        stream.push(video(8), SECONDS[:8])
        kept.append(places(stream))
    assert len(kept[0][0]) == len(kept[1][0]) == 8 * 16 * 3 // 10 and kept[0] != kept[1]
