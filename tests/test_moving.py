"""Proofs for the third synthetic set: cameras and things that move, near-duplicates, codes, questions of two steps."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.synthetic import language_stage, mixed_stage
from eval.synthetic.bank import FIRST_CODE, NO_GLYPH, cell_of, glyph_number, labels_of
from eval.synthetic.camera import MovingScene
from eval.synthetic.fresh import Fresh
from eval.synthetic.known import FACTS, facts_by_name
from eval.synthetic.lessons import Teacher
from eval.synthetic.log import Log
from eval.synthetic.make import make
from eval.synthetic.mixing import class_maps
from eval.synthetic.model import build_model
from eval.synthetic.moving import CODES, FEWEST, MOST, MOST_IN_ALL, moving_clip
from eval.synthetic.moving_lessons import MovingTeacher
from eval.synthetic.photographs import FOOTAGE, PHOTOGRAPHS, film, photograph
from eval.synthetic.phrasings import phrasings
from eval.synthetic.puzzles import PUZZLES, puzzle, split_by_name
from eval.synthetic.quiz import KINDS
from eval.synthetic.render import frames
from eval.synthetic.tokenizer import build_tokenizer, vocabulary
from eval.synthetic.world import COLOURS, GLYPHS, SPLITS, Clip, Thing, generator, sample_clip

BY_HAND = Clip(
    "train",
    14,
    (
        Thing(0, "star", "red", 0.3, 0.3),
        Thing(2, "k7", "blue", 0.7, 0.3, 3, (0.02, 0.0), (3,)),
        Thing(6, "star", "green", 0.3, 0.7, 2),
        Thing(9, "k2", "orange", 0.3, 0.4, 2, (0.0, 0.15)),
        Thing(13, "moon", "yellow", 0.7, 0.7),
    ),
    None,
    (3, 4, 29),
    moving=True,
)
"""A star twice, in two colours; two codes of one letter; the orange one leaves its corner; k7 is hidden once."""


def asked(kind: str) -> set[tuple[str, str]]:
    drawn = [puzzle(BY_HAND, kind, np.random.default_rng(n), "test") for n in range(200)]
    return {(one.slots["x"], one.answer) for one in drawn if one is not None}


def test_answers_of_a_clip_made_by_hand():
    assert asked("colour_first") == {("", "red")} and asked("shape_last") == {("", "star")}
    assert asked("code_first") == {("", "k7")} and asked("code_last") == {("", "k2")}
    assert asked("now") == {("", "moon")}
    assert asked("colour_of") == {("moon", "yellow")}
    assert asked("code_colour") == {("code k7", "blue"), ("code k2", "orange")}
    assert asked("where") == {("code k7", "top right"), ("moon", "bottom right")}  # k2 changes its corner
    assert asked("where_twin") == {("red star", "top left"), ("green star", "bottom left")}
    assert asked("before") == {("code k7", "star"), ("code k2", "star"), ("moon", "k2")}
    assert asked("after_twin") == {("red star", "k7"), ("green star", "k2")}
    assert asked("before_twin") == {("green star", "k7")}
    assert asked("colour_after") == {
        ("red star", "blue"),
        ("code k7", "green"),
        ("green star", "orange"),
        ("code k2", "yellow"),
    }
    assert asked("where_before") == {
        ("code k7", "top left"),
        ("green star", "top right"),
        ("code k2", "bottom left"),
    }
    assert asked("order") == set()  # three names tell alone which thing is meant


def test_one_of_four_near_duplicates_was_shown():
    names = {"red star", "blue code k7", "green star", "orange code k2", "yellow moon"}
    for n in range(100):
        which = puzzle(BY_HAND, "which_twin", np.random.default_rng(n), "train")
        absent = puzzle(BY_HAND, "absent_twin", np.random.default_rng(n), "train")
        code = puzzle(BY_HAND, "code_which", np.random.default_rng(n), "train")
        assert which is not None and absent is not None and code is not None
        assert set(which.options) & names == {which.answer} and set(absent.options) - names == {absent.answer}
        assert set(code.options) & {"k7", "k2"} == {code.answer}
        for one in (which, absent, code):
            assert len(set(one.options)) == 4
        right = which.answer
        alike = [(one.split()[0] == right.split()[0], one[-4:] == right[-4:]) for one in which.options if one != right]
        assert sorted(alike) == [(False, False), (False, True), (True, False)]  # the other corners of a square


def test_the_world_keeps_its_rules():
    rates = []
    for index in range(120):
        clip = moving_clip("dev", 5, index)
        assert clip == moving_clip("dev", 5, index)
        pairs = [(thing.glyph, thing.colour) for thing in clip.things]
        assert len(set(pairs)) == len(pairs) >= 1
        for thing, after in zip(clip.things, clip.things[1:], strict=False):
            assert thing.second + thing.lasts <= after.second and thing.glyph != after.glyph
        for thing in clip.things:
            assert thing.second + thing.lasts <= clip.seconds and 1 <= len(thing.seen) <= 3
            for second in (thing.second, thing.second + thing.lasts):
                assert all(0.19 <= v <= 0.81 for v in thing.at(second))
        rates.append(60 * len(clip.things) / clip.seconds)
    assert min(rates) > 0.6 * FEWEST and max(rates) <= MOST and np.percentile(rates, 90) > 0.6 * MOST
    assert any(thing.hidden for index in range(20) for thing in moving_clip("dev", 5, index).things)
    twins = [len(split_by_name(moving_clip("dev", 5, index).things)[1]) for index in range(40)]
    assert np.mean(twins) > 3


def test_an_hour_has_things_at_both_ends_only():
    for index in range(10):
        clip = moving_clip("test", 5, index, 3700)
        when = np.array([thing.second for thing in clip.things])
        assert len(when) <= MOST_IN_ALL and (when < 450).sum() >= 4
        assert ((when < 450) | (when >= 3670)).all()


def test_no_answer_can_be_told_from_its_options():
    """Nothing but the video tells which of four is right: not its place, not how it is called."""
    places, lengths = Counter(), []
    for index in range(150):
        clip = moving_clip("test", 6, index)
        for number, kind in enumerate(PUZZLES):
            one = puzzle(clip, kind, generator("test", 6, index, number), "test")
            if one is not None:
                assert len(one.options) == len(set(one.options)) == 4 and one.answer in one.options
                places[one.options.index(one.answer)] += 1
                lengths.append(len(one.answer) - np.mean([len(option) for option in one.options]))
                if kind in ("which_twin", "code_which"):  # none of four near-duplicates is in their middle
                    plain = [option.replace("code ", "") for option in one.options]
                    names = [set(name.split() if " " in name else name) for name in plain]
                    assert len({sum(len(name & other) for other in names) for name in names}) == 1
    total = sum(places.values())
    assert all(abs(count / total - 0.25) < 0.03 for count in places.values())
    assert abs(np.mean(lengths)) < 0.25


def test_sentences_are_held_out_and_use_known_words():
    words = set(vocabulary())
    for kind in set(PUZZLES) - set(KINDS):
        sentences = {split: phrasings(kind, split) for split in SPLITS}
        assert not set(sentences["train"]) & {*sentences["dev"], *sentences["test"]}
        assert not set(sentences["dev"]) & set(sentences["test"])
        for sentence in (s for split in SPLITS for s in sentences[split]):
            assert set(re.findall(r"[a-z]+", re.sub(r"{\w+}", "", sentence).lower())) <= words, sentence


def test_pictures_are_held_out_by_split_and_come_from_packages():
    for table in (PHOTOGRAPHS, FOOTAGE):
        names = [name for split in SPLITS for name in table[split]]
        assert len(set(names)) == len(names)
    for split in SPLITS:
        assert all(photograph(name, 64).shape == (64, 64, 3) for name in PHOTOGRAPHS[split])
        for name in FOOTAGE[split]:
            seen = film(name, 48)
            assert seen.shape[1:] == (48, 48, 3) and np.abs(np.diff(seen.astype(int), axis=0)).mean() > 0.2


def test_cameras_move_and_stay_inside():
    """A still photograph seen by a moving camera: the second picture is the first one's, shifted as the window is."""
    found = 0
    for seed in range(40):
        scene = MovingScene(np.random.default_rng(seed), "train", 224, 0)
        windows = [scene.window(t / 4) for t in range(4 * scene.end)]
        assert all(left >= 0 and top >= 0 and max(left, top) + size <= 1 + 1e-9 for left, top, size in windows)
        assert np.std([left for left, _, _ in windows]) + np.std([top for _, top, _ in windows]) > 0.002
        scene._clutter, scene._mirrored, scene._zoom = [], False, 0.0
        if len(scene._frames) > 1 or min(scene.window(0)[:2]) > 0.9:
            continue
        first, later = scene.at(0.0).mean(-1), scene.at(0.5).mean(-1)
        (x0, y0, size), (x1, y1, _) = scene.window(0.0), scene.window(0.5)
        dx, dy = round((x1 - x0) / size * 224), round((y1 - y0) / size * 224)
        here = first[max(dy, 0) : 224 + min(dy, 0), max(dx, 0) : 224 + min(dx, 0)]
        there = later[max(-dy, 0) : 224 + min(-dy, 0), max(-dx, 0) : 224 + min(-dx, 0)]
        if dx or dy:
            found += 1
            assert np.abs(here - there).mean() < 0.75 * np.abs(first - later).mean() + 0.5
    assert found >= 10


def test_things_are_drawn_where_the_world_says_and_not_while_hidden():
    shown = frames(BY_HAND, 4).astype(int)
    bare = frames(replace(BY_HAND, things=()), 4).astype(int)

    def centre(number: int) -> np.ndarray:
        changed = np.abs(shown[number] - bare[number]).max(-1) > 40
        return np.argwhere(changed).mean(0)[::-1] / 224

    for thing in BY_HAND.things:
        if thing.second == 0:  # nothing was drawn at random before it, so that the scenes are the same
            assert np.abs(centre(0) - thing.at(0)).max() < 0.03
    hidden = shown[3 * 4 + 1]
    x, y = (int(224 * v) for v in BY_HAND.things[1].at(3.25))
    wall = hidden[y - 40 : y + 40, x - 30 : x + 30]
    assert wall.std((0, 1)).max() < 1.0  # one tone: no trace of the thing


def test_labels_say_what_is_to_be_seen_second_by_second():
    rows = labels_of(BY_HAND)
    assert rows[:, 1].tolist() == [
        glyph_number(g) if g else NO_GLYPH
        for g in ("star", "", "k7", "", "k7", "", "star", "star", "", "k2", "k2", "", "", "moon")
    ]
    assert rows[4, 2] == cell_of(0.7 + 2.25 * 0.02, 0.3)
    code = glyph_number("k7") - FIRST_CODE
    assert CODES[code] == "k7"
    maps = class_maps(rows)
    place = rows[2, 2]
    assert maps[2, place].tolist() == [COLOURS.index("blue"), -100, 4, "efhknprt".index("k"), 7]
    assert (maps[2, np.arange(16) != place] == [6, NO_GLYPH, 4, 8, 10]).all()


def test_what_is_known_of_a_thing_by_its_names():
    known = facts_by_name(BY_HAND)

    def told(name: tuple[str | None, str]) -> dict[str, str | None]:
        values = zip(FACTS.items(), known[name], strict=True)
        return {fact: (*words, None)[value] for (fact, words), value in values if value >= 0}

    assert set(known[None, "star"]) == {-100} and (None, "cross") not in known
    assert told(("red", "star")) == {
        "colour": "red",
        "corner": "top left",
        "before": None,
        "before_digit": None,
        "number": "1",
        "after": "k",
        "after_digit": "7",
        "colour_before": None,
        "colour_after": "blue",
        "corner_before": None,
        "corner_after": "top right",
    }
    assert "corner" not in told((None, "k2")) and told((None, "k2"))["after"] == "moon"


@pytest.fixture(scope="module")
def teacher() -> MovingTeacher:
    labels = np.concatenate([labels_of(moving_clip("train", 9, n, 8, True)) for n in range(400)])
    features = torch.arange(len(labels))[:, None, None].expand(-1, 16, 256).float()  # a row's features are its number
    return MovingTeacher(features, labels, build_tokenizer(), "train")


def test_lessons_show_what_their_answers_say(teacher):
    lesson = teacher.lesson(np.random.default_rng(3), 6, 30, gaps=False, weights=dict.fromkeys(PUZZLES, 1.0))
    rows = lesson.visual[:, ::16, 0].long().numpy()
    for n, clip in enumerate(teacher._shown):
        labels = teacher.labels[rows[n]]
        shown = {second: thing for thing in clip.things for second in thing.seen}
        for second, (colour, glyph) in enumerate(labels[:, :2].tolist()):
            thing = shown.get(second)
            wanted = (6, NO_GLYPH) if thing is None else (COLOURS.index(thing.colour), glyph_number(thing.glyph))
            assert (colour, glyph) == wanted
    named = [
        (teacher._name(row, at), lesson.facts[n, at])
        for n, row in enumerate(lesson.ids.tolist())
        for at in range(len(row))
        if (lesson.facts[n, at] >= 0).any()
    ]
    assert {colour is None for (colour, _), _ in named} == {True, False}
    assert any(glyph in CODES for (_, glyph), _ in named) and all(glyph in (*GLYPHS, *CODES) for (_, glyph), _ in named)
    for name, facts in named:
        assert any(facts.tolist() == facts_by_name(clip).get(name) for clip in teacher._shown) or int(facts[0]) == 6


def test_a_stopped_training_in_both_worlds_goes_on_bit_for_bit(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(mixed_stage, "clips_for", lambda grids, form: 1)
    monkeypatch.setattr(mixed_stage, "GRIDS", {1.0: {1.0: (3, 6)}})
    labels = np.concatenate([labels_of(sample_clip("train", 9, n, 8, True)) for n in range(60)])
    features = torch.randn(len(labels), 16, 256, generator=torch.Generator().manual_seed(1)) / 16
    still = Teacher(features, labels, teacher.tokenizer, "train")
    moving = MovingTeacher(torch.randn(len(teacher.labels), 16, 256) / 16, teacher.labels, teacher.tokenizer, "train")
    teachers = {"moving": mixed_stage.Teachers(moving, moving), "still": mixed_stage.Teachers(still, still)}

    def trained(stops: tuple[int, ...], work: Path) -> dict[str, torch.Tensor]:
        for stop in stops:  # the planned length, and so the learning rate, stays 5
            model = build_model(teacher.tokenizer, 3).bfloat16()
            monkeypatch.setattr(mixed_stage, "accuracy", lambda *_, **__: {"all": 0.0})
            with monkeypatch.context() as patch:
                if stop < 5:
                    patch.setattr(language_stage, "EVERY_SECONDS", -1.0)
                    patch.setattr(language_stage, "follow", _stopping(stop))
                    with pytest.raises(KeyboardInterrupt):
                        mixed_stage.train_mixed(model, teachers, work, Log(work / "log.csv"), 5, 0)
                else:
                    mixed_stage.train_mixed(model, teachers, work, Log(work / "log.csv"), 5, 0)
        return model.state_dict()

    whole, pieces = trained((5,), tmp_path / "whole"), trained((3, 5), tmp_path / "pieces")
    assert all(torch.equal(value, pieces[name]) for name, value in whole.items())
    fresh = build_model(teacher.tokenizer, 3).bfloat16().state_dict()
    moved = {name for name, value in whole.items() if not torch.equal(value, fresh[name])}
    assert moved and all("visual" not in name for name in moved)


def _stopping(stop: int):
    """What `follow` does, until a run is stopped as by Ctrl-C in its step `stop` + 1."""
    done, original = [], language_stage.follow

    def follow(wrong, right):
        done.append(right)
        if len(done) > stop:
            raise KeyboardInterrupt
        original(wrong, right)

    return follow


def test_a_set_of_the_third_kind(tmp_path):
    table = make(tmp_path, "dev", 3, {"short": 3, "hour": 0}, 6, 1, moving=True)
    assert len(table) == 18 and set(table["sub_category"]) <= set(PUZZLES)
    assert sorted(p.stem for p in (tmp_path / "data").glob("*.mp4")) == sorted(set(table["videoID"]))
    assert all("moving" in name for name in table["videoID"])


def test_fresh_things_stand_where_their_classes_say():
    rng = np.random.default_rng(4)
    frames_ = np.full((40, 2, 112, 112, 3), 120, np.uint8)
    labels = np.tile(np.array([6, NO_GLYPH, -1, 4, -1]), (40, 1))
    labels[:10, :3] = 2, 7, 5  # these have a thing of their own in cell 5
    classes = class_maps(labels)
    where = np.full((40, 3, 2), np.nan, np.float32)
    where[:10, 0] = 42, 42
    before = classes.copy()
    Fresh(rng, "train", 60).put(rng, frames_, classes, where)
    changed = (classes != before).any(-1)
    assert (changed.sum(1) <= 1).all() and 12 < changed.any(1).sum() < 36
    assert (classes[:10, 5] == before[:10, 5]).all()
    for n in np.flatnonzero(changed.any(1)):
        drawn = np.argwhere(np.abs(frames_[n].astype(int) - 120).max((0, -1)) > 25)
        y, x = (drawn.min(0) + drawn.max(0)) / 2 / 112
        (cell,) = np.flatnonzero(changed[n])
        assert np.abs(np.array([cell % 4 + 0.5, cell // 4 + 0.5]) / 4 - (x, y)).max() < 0.125 + 0.05
        colour, glyph, _, letter, digit = classes[n, cell]
        assert colour < 6 and (glyph == -100) == (letter < 8) == (digit < 10)
    assert (frames_[~changed.any(1)] == 120).all()
