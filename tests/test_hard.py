"""Harder videos: what is hard about them, that they follow from their seed, and that others are what they were."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from eval.synthetic import make as making
from eval.synthetic.hard import Hardness, hard_clip
from eval.synthetic.make import TASK_TYPES, make, quiz, row, video
from eval.synthetic.render import frames
from eval.synthetic.scenes import LONGEST, RESTLESS, SHORTEST, Scene
from eval.synthetic.world import sample_clip
from eval.tasks.videomme import VideoMME

NUMBERS = {"short": 3, "medium": 1, "long": 1}


def test_what_other_options_give_is_what_it_was() -> None:
    """Figures written down before there were harder videos: all that is asked, and pictures frame by frame."""
    videos = [video("test", 907, name, n) for name, most in NUMBERS.items() for n in range(most)]
    counts: Counter[str] = Counter()
    rows = [row(made, n, q) for made in videos for n, q in enumerate(quiz(made, 10, counts))]
    said = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    assert said == "d5de165649c7c328df35aec48ce8c23856ff6f15bc02e2ecc0663dcfdba068cf"
    means = "80.665 80.849 80.553 80.71 80.636 80.849 80.639 80.871 83.441 83.294 80.701 80.493 80.662 80.794 80.679 "
    means += "80.558 80.857 80.668 80.7 80.656 80.773 81.023 80.613 80.597"
    drawn = frames(sample_clip("test", 907, 3, 12), 2).mean((1, 2, 3))
    np.testing.assert_allclose(drawn, [float(mean) for mean in means.split()], atol=0.05)  # fonts differ in a last bit


def test_hard_videos_are_as_hard_as_they_say() -> None:
    hardness = Hardness()
    for index in range(50):
        seconds = 16 + 6 * index
        clip = hard_clip("test", 4, index, seconds, hardness)
        when, glyphs = [thing.second for thing in clip.things], [thing.glyph for thing in clip.things]
        room = int((seconds - 1) * (1 - hardness.tail))
        assert len(set(glyphs)) == len(glyphs) == min(hardness.things, room) and when == sorted(set(when))
        assert when[-1] < room and clip.restless
        assert clip == hard_clip("test", 4, index, seconds, hardness) != hard_clip("test", 5, index, seconds, hardness)
        if clip.marker:
            assert clip.marker != sample_clip("test", 4, index, seconds).marker
    few = replace(hardness, things=3, tail=0.9)
    assert len(hard_clip("test", 4, 0, 50, few).things) == 3 and hard_clip("test", 4, 0, 50, few).things[-1].second < 4


def test_restless_scenes_are_short_and_move() -> None:
    plain, restless = (
        [Scene(np.random.default_rng(n), "test", 224, 0, more) for n in range(60)] for more in (False, True)
    )
    assert {RESTLESS[0], RESTLESS[1]} == {min(s.end for s in restless), max(s.end for s in restless)}
    assert min(s.end for s in plain) >= SHORTEST and max(s.end for s in plain) <= LONGEST
    for scene in restless:
        assert scene._drift is not None and scene._clutter
        assert not np.array_equal(scene.at(0.0), scene.at(1.0))
    assert any(scene._drift is None for scene in plain) and any(not scene._clutter for scene in plain)


def test_what_is_asked_needs_what_was_shown_long_ago() -> None:
    hardness, counts = Hardness(), Counter()
    assert set(hardness.kinds) <= set(TASK_TYPES)
    for number in range(30):
        made = video("test", 6, "medium", number, hardness)
        asked = quiz(made, 24, counts, hardness.kinds)
        assert len({q.text for q in asked}) == len(asked) == 24
        for q in asked:
            assert len(q.options) == 4 and q.answer in q.options and q.kind in hardness.kinds
            assert all(
                made.clip.seconds - 1 - moment >= hardness.tail * (made.clip.seconds - 1) for moment in q.moments
            )
    assert max(counts.values()) <= 1.2 * min(counts.values())


def test_no_answer_is_likelier_than_others() -> None:
    """Always the same letter, or the best single answer of a kind, is right in about a quarter."""
    hardness, letters, kinds = Hardness(), [], {}
    for number in range(60):
        for q in quiz(video("dev", 6, "short", number, hardness), 24, Counter(), hardness.kinds):
            letters.append(q.options.index(q.answer))
            kinds.setdefault(q.kind, []).append(q)
    assert np.abs(np.bincount(letters, minlength=4) / len(letters) - 0.25).max() < 0.05
    for kind, of_kind in kinds.items():
        offered = Counter(word for q in of_kind for word in q.options)
        answers = Counter(q.answer for q in of_kind)
        assert max((answers[word] / n for word, n in offered.items() if n >= 40), default=0) < 0.5, kind


def test_a_hard_set_beside_a_plain_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "LENGTHS", {**making.LENGTHS, "short": (18, 20)})
    app_of = making.typer.Typer()
    app_of.command()(making.main)
    call = ["--out", str(tmp_path), "--split", "dev", "--seed", "3", "--short", "1", "--medium", "0", "--long", "0"]
    call += ["--questions", "12", "--workers", "1"]
    assert CliRunner().invoke(app_of, call).exit_code == 0
    plain = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    ran = CliRunner().invoke(app_of, [*call, "--hard"])
    assert ran.exit_code == 0 and "12 questions about 1 videos" in ran.output
    both = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert len(both) == 2 and plain.items() < both.items()  # neither is taken for the other
    items = list(VideoMME(tmp_path).items())
    assert len(items) == 12 and {item.category["sub_category"] for item in items} <= set(Hardness().kinds)
    again = tmp_path / "again"
    make(again, "dev", 3, {"short": 1, "medium": 0, "long": 0, "very long": 0}, 12, 1, Hardness())
    assert {path.name: path.read_bytes() for path in (again / "data").iterdir()}.items() < both.items()
