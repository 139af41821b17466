"""Proofs for what the built-in model's language part is taught: questions, what is known, who sees what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from eval.synthetic.bank import labels_of
from eval.synthetic.curve import draw, read
from eval.synthetic.lessons import BLOCKS, Teacher, shortened
from eval.synthetic.log import Log
from eval.synthetic.model import video_positions
from eval.synthetic.offline import prompt
from eval.synthetic.tokenizer import build_tokenizer
from eval.synthetic.world import sample_clip


@pytest.mark.parametrize("form", BLOCKS)
def test_lessons_are_what_the_library_says_to_the_model(form):
    """A lesson's row, without its other questions, is the chat template's text of one clip and one question."""
    labels = np.concatenate([labels_of(sample_clip("train", 8, n, seconds=8, dense=True)) for n in range(40)])
    tokenizer = build_tokenizer()
    features = torch.randn(len(labels), 16, 8)
    lesson = Teacher(features, labels, tokenizer, "train").lesson(np.random.default_rng(1), 2, 6, gaps=False, form=form)
    ids, positions = lesson.ids, lesson.positions
    video = slice(3, 3 + 6 * 16)
    assert len(lesson.asked) == 2 * BLOCKS[form]
    for clip, slot, length, _ in lesson.asked:
        sees = lesson.mask[clip, 0, slot].nonzero()[:, 0]
        text = sees[(sees < video.start) | (sees >= video.stop)]
        assert set(range(video.start, video.stop)) <= set(sees.tolist())
        before, after = prompt(tokenizer, tokenizer.decode(ids[clip, text[4:-3]]))
        assert ids[clip, text].tolist() == before + after
        where, at = video_positions(3, torch.arange(6).float())
        assert torch.equal(positions[:, clip, video], where)
        assert positions[:, clip, text[3:]].tolist() == [list(range(at, at + len(after)))] * 3
        answer = lesson.targets[clip, slot : slot + length]
        (asks,) = text[lesson.words[clip, text] >= 0].tolist()
        word = int(lesson.words[clip, asks])
        assert tokenizer.decode([ids[clip, asks]]) in ".?:"
        assert word == int(answer[0]) if form == "words" else word in ids[clip, asks:slot]
        assert torch.equal(answer[1:], ids[clip, slot + 2 : slot + 1 + length])
        assert lesson.targets[clip, slot + length] == tokenizer.eos_token_id
        flags = lesson.options[clip, text]
        if form == "words":
            assert (flags == -100).all()
            continue
        letter, lines = tokenizer.decode(answer), text[(flags >= 0)]
        assert letter in "ABCD" and flags[flags >= 0].tolist() == [int(x == letter) for x in "ABCD"]
        nexts = tokenizer.convert_ids_to_tokens(ids[clip, lines + 1])
        assert nexts == ["B", "C", "D", "the"]
    assert (lesson.targets >= 0).sum() == sum(length + 1 for _, _, length, _ in lesson.asked)


@pytest.mark.parametrize("form", BLOCKS)
def test_a_blind_answer_sees_its_question_and_not_the_video(form):
    labels = np.concatenate([labels_of(sample_clip("train", 8, n, seconds=8, dense=True)) for n in range(40)])
    tokenizer = build_tokenizer()
    teacher = Teacher(torch.randn(len(labels), 16, 8), labels, tokenizer, "dev")
    other, lesson = (
        teacher.lesson(np.random.default_rng(1), 2, 6, gaps=False, form=form, blindness=b) for b in (0.0, 1.0)
    )
    seeing, blind = other.mask[:, 0], lesson.mask[:, 0]
    video = slice(3, 3 + 6 * 16)
    assert lesson.targets.shape == blind.shape[:2]
    for clip, slot, length, _ in lesson.asked:
        own = seeing[clip, slot].nonzero()[:, 0]
        words = tokenizer.convert_ids_to_tokens(lesson.ids[clip, own])
        # what sees: the question, and with options each of them, up to the line that asks for the letter
        ends = "".join(words).rindex("thebestansweris") if form == "letters" else "".join(words).rindex("<|im_end|>")
        lengths = np.cumsum([len(w) for w in words])
        told = own[: int((lengths <= ends).sum())]
        rest = [*own[len(told) :].tolist(), *range(slot + 1, slot + length)]
        assert not blind[clip, rest][:, video].any() and seeing[clip, rest][:, video].all()
        assert blind[clip, told[-2:]][:, video].all()
    seeing[:, :, video] = blind[:, :, video]
    assert torch.equal(seeing, blind)


def test_a_shortened_question_keeps_what_it_asks_for():
    rng = np.random.default_rng(0)
    text = "Please tell me which of these is not shown in the video: a key, the star, 4 or circle?"
    found = {shortened(text, rng) for _ in range(200)}
    assert text in found and len(found) > 20
    kept = ["which", "not", "shown", "key,", "star,", "4", "or", "circle?"]
    for short in found:
        assert [w for w in short.split() if w in kept] == kept and set(short.split()) <= set(text.split())


def test_the_curve_takes_the_later_line_of_a_step_that_was_done_twice(tmp_path):
    log = Log(tmp_path / "log.csv")
    for step, right in ((250, 0.3), (500, 0.4), (500, 0.5), (250, 0.2)):
        log.write("language_dev_words", step, 1.0, all=right, count=right / 2)
        log.write("language_dev_letters", step, 1.0, all=0.0)
        log.write("language_words", step, 1.0, loss=9.0)
    found = read(log.path, "language_dev_words")
    assert found.index.tolist() == [250, 500]
    assert found["all"].tolist() == [0.2, 0.5] and found["count"].tolist() == [0.1, 0.25]
    draw(log.path, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.width > 2 * picture.height
