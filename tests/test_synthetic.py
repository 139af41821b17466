"""Proofs for the synthetic world, its pixels, the built-in model's files and its answers."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from transformers import AutoTokenizer
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import eager_attention_forward

from eval.synthetic import offline
from eval.synthetic.backgrounds import FAMILIES
from eval.synthetic.bank import cell_of, clip_grids, labels_of, shrink
from eval.synthetic.fonts import FONTS
from eval.synthetic.known import FACTS, STATES, facts_by_name, places_of, states_of
from eval.synthetic.language_stage import attention
from eval.synthetic.lessons import multiple_choice
from eval.synthetic.make import TASK_TYPES, make
from eval.synthetic.mixing import class_maps
from eval.synthetic.model import patches, video_positions
from eval.synthetic.pen import Pen
from eval.synthetic.phrasings import phrasings
from eval.synthetic.quiz import ENDS, KINDS, Question, question, questions
from eval.synthetic.render import frames, read_mp4, write_clip, write_mp4
from eval.synthetic.tokenizer import build_tokenizer
from eval.synthetic.vision_stage import fast_vision
from eval.synthetic.world import DIGITS, SPLITS, Clip, Marker, Thing, generator, sample_clip
from eval.tasks.videomme import VideoMME

ROOT = Path(__file__).parent.parent
BUILTIN = ROOT / "pdrop_video" / "builtin"
DEMOS = sorted((ROOT / "demos" / "clips").glob("*.json"))
BY_HAND = Clip(
    "train",
    6,
    (
        Thing(1, "7", "red", 0.3, 0.3),
        Thing(2, "star", "blue", 0.6, 0.3),
        Thing(4, "4", "green", 0.4, 0.6),
        Thing(5, "key", "orange", 0.7, 0.6),
    ),
    Marker("left", lane=0.8, phase=0.1, speed=0.3),
    (3, 4),
)


@pytest.fixture(scope="module")
def builtin():
    return offline.load(BUILTIN)


def test_same_seed_gives_same_clip_questions_and_pixels():
    first, second = (sample_clip("dev", 11, 5, seconds=4) for _ in range(2))
    assert first == second and questions(first) == questions(second)
    assert np.array_equal(frames(first), frames(second))
    written = [io.BytesIO() for _ in range(4)]
    for file in written:
        write_clip(sample_clip("test", 5, 0), file)
    assert len({file.getvalue() for file in written}) == 1
    assert sample_clip("dev", 11, 6, seconds=4) != first and sample_clip("dev", 12, 5, seconds=4) != first


@pytest.mark.parametrize("one, other", [("train", "dev"), ("train", "test"), ("dev", "test")])
def test_splits_share_no_font_background_sentence_or_random_stream(one, other):
    assert not set(FONTS[one]) & set(FONTS[other])
    assert not set(FAMILIES[one]) & set(FAMILIES[other])
    for kind in KINDS:
        assert not set(phrasings(kind, one)) & set(phrasings(kind, other))
    assert not np.array_equal(generator(one, 1, 2).random(8), generator(other, 1, 2).random(8))
    assert sample_clip(one, 1, 2).things != sample_clip(other, 1, 2).things


def test_held_out_sentences_use_only_words_of_training_sentences():
    for kind in KINDS:
        known = {w for k in KINDS for s in phrasings(k, "train") for w in re.findall(r"[{}\w]+", s.lower())}
        held_out = phrasings(kind, "dev") + phrasings(kind, "test")
        for sentence in held_out:
            assert set(re.findall(r"[{}\w]+", sentence.lower())) <= known, sentence
        assert 3 * len(held_out) >= 0.8 * (len(held_out) + len(phrasings(kind, "train")))  # about a third


def asked(clip: Clip, kind: str, number: int = 40) -> list[Question]:
    drawn = (question(clip, kind, np.random.default_rng(n), clip.split) for n in range(number))
    return [one for one in drawn if one is not None]


def test_answers_of_a_clip_made_by_hand():
    """A red 7 top left, a blue star top right, a green 4 bottom left, an orange key bottom right in the last second."""
    right = {
        "colour_first": "red",
        "colour_last": "orange",
        "number_first": "7",
        "number_last": "4",
        "shape_first": "star",
        "shape_last": "star",
        "icon_first": "key",
        "icon_last": "key",
        "count": "4",
        "motion": "left",
        "now": "key",
    }
    moments = dict(colour_first=1, colour_last=5, number_first=1, number_last=4, shape_first=2, icon_last=5, now=5)
    for kind, answer in right.items():
        (one,) = {(q.answer, q.moments) for q in asked(BY_HAND, kind)}
        assert one == (answer, (moments[kind],) if kind in moments else one[1])
    shown, order = ("7", "star", "4", "key"), {"7": 1, "star": 2, "4": 4, "key": 5}
    corners = {"7": "top left", "star": "top right", "4": "bottom left", "key": "bottom right"}
    colours = {"7": "red", "star": "blue", "4": "green", "key": "orange"}
    sides = {("7", "star"): "left", ("star", "7"): "right", ("4", "key"): "left", ("key", "4"): "right"}
    sides |= {("7", "4"): "above", ("4", "7"): "below", ("star", "key"): "above", ("key", "star"): "below"}
    for q in asked(BY_HAND, "where"):
        assert q.answer == corners[q.slots["x"]] and q.moments == (order[q.slots["x"]],)
    assert all(q.answer == colours[q.slots["x"]] for q in asked(BY_HAND, "colour_of"))
    assert {q.slots["x"]: q.answer for q in asked(BY_HAND, "before")} == {"star": "7", "4": "star", "key": "4"}
    assert {q.slots["x"]: q.answer for q in asked(BY_HAND, "after")} == {"7": "star", "star": "4", "4": "key"}
    assert {(q.slots["x"], q.slots["y"]): q.answer for q in asked(BY_HAND, "relation", 200)} == sides
    assert {(q.slots["o"], q.answer) for q in asked(BY_HAND, "order")} == {("first", "7"), ("last", "key")}
    for q in asked(BY_HAND, "shown"):
        assert q.answer == ("yes" if q.slots["x"] in shown else "no")
    for q in asked(BY_HAND, "which"):
        assert [option in shown for option in q.options] == [option == q.answer for option in q.options]
        assert q.slots["list"] == f"{', '.join(q.options[:3])} or {q.options[3]}" and q.slots["list"] in q.text
    for q in asked(BY_HAND, "absent"):
        assert [option not in shown for option in q.options] == [option == q.answer for option in q.options]
    bare = Clip("train", 4, (BY_HAND.things[0],), None, (0, 0))
    able = {kind for kind in KINDS if asked(bare, kind)}
    assert able == {"colour_first", "colour_last", "number_first", "number_last", "count", "now", "shown", "which"} | {
        "where",
        "colour_of",
    }
    assert {q.answer for q in asked(bare, "now")} == {"nothing"}


def test_things_that_come_twice_are_not_asked_for_by_name():
    again = Clip("train", 6, (*BY_HAND.things[:3], Thing(5, "7", "blue", 0.7, 0.7)), None, (3, 4))
    named = {q.slots["x"] for kind in ("where", "colour_of", "before", "after") for q in asked(again, kind)}
    assert named == {"star", "4"} and not asked(again, "order")


def test_options_are_four_with_the_answer_anywhere_and_hold_no_hint():
    """Always the same letter, or the answer that is most frequent of its kind, is right in about a quarter."""
    letters, answers = [], {}
    for index in range(400):
        for q in questions(sample_clip("dev", 12, index)):
            assert len(set(q.options)) == len(q.options) == (2 if q.kind == "shown" else 4) and q.answer in q.options
            if q.kind != "shown":
                letters.append(q.options.index(q.answer))
                answers.setdefault(q.kind, []).append(q)
    assert np.abs(np.bincount(letters, minlength=4) / len(letters) - 0.25).max() < 0.02
    for kind, of_kind in answers.items():
        words = {word for q in of_kind for word in q.options}
        best = max(
            np.mean([q.answer == w for q in of_kind if w in q.options])
            for w in words
            if sum(w in q.options for q in of_kind) >= 40
        )
        assert best < 0.5, kind


def test_clips_obey_the_rules_of_the_world():
    for index in range(200):
        clip = sample_clip("test", 2, index)
        seconds = [t.second for t in clip.things]
        assert 4 <= clip.seconds <= 32 and 1 <= len(seconds) <= 8
        assert seconds == sorted(set(seconds)) and seconds[-1] < clip.seconds
        assert all(a.glyph != b.glyph for a, b in zip(clip.things, clip.things[1:], strict=False))


def test_marker_moves_the_way_it_says():
    for direction, (dx, dy) in {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.items():
        marker = Marker(direction, lane=0.5, phase=0.5, speed=0.3)
        before, after = np.array(marker.at(1.0)), np.array(marker.at(1.5))
        step = (after - before + 0.5) % 1 - 0.5
        np.testing.assert_allclose(step, 0.15 * np.array([dx, dy]), atol=1e-9)


@pytest.mark.parametrize("crf, tolerance", [(18, 4.0), (27, 7.0)])
def test_mp4_round_trip_keeps_the_picture(crf, tolerance):
    drawn = frames(BY_HAND)
    with io.BytesIO() as file:
        write_mp4(drawn, file, crf=crf)
        file.seek(0)
        decoded = read_mp4(file)
    assert decoded.shape == (12, 224, 224, 3)
    wanted = drawn[::4].astype(float)
    assert np.abs(decoded - wanted).mean() < tolerance  # mean over pixels, of 255
    for number, picture in enumerate(decoded):  # each is nearest to its own frame, not to a neighbour's
        assert np.abs(wanted - picture).mean((1, 2, 3)).argmin() == number


def test_labels_say_where_things_and_the_marker_are():
    rows = labels_of(BY_HAND)
    assert rows[1].tolist() == [0, 7, cell_of(0.3, 0.3), 0, cell_of((0.1 - 0.3) % 1, 0.8)]
    assert rows[0, :3].tolist() == [6, 25, -1] and cell_of(0.3, 0.3) == 5
    maps = class_maps(rows)
    assert maps.shape == (6, 16, 5) and (maps[..., 1] != 25).sum() == 4 and (maps[..., 2] != 4).sum() == 6
    for index in range(50):
        clip = sample_clip("dev", 5, index)
        final = states_of(clip, labels_of(clip))[-1]
        known = {kind: (*STATES[kind], None)[state] for kind, state in zip(STATES, final, strict=True) if state >= 0}
        for kind in (*ENDS, "count", "motion"):
            answers = {q.answer for q in asked(clip, kind, 1)}
            assert answers == ({known[kind]} if known[kind] else set())
        assert known["thing_last"] == clip.things[-1].glyph
        assert known["thing_before"] == (clip.things[-2].glyph if len(clip.things) > 1 else None)
        facts = {glyph: known for (colour, glyph), known in facts_by_name(clip).items() if colour is None}
        for name, kind in (("colour", "colour_of"), ("corner", "where"), ("before", "before"), ("after", "after")):
            for seed in range(5):
                one = question(clip, kind, np.random.default_rng(seed), "dev")
                if one is not None:
                    answer = facts[one.slots["x"]][list(FACTS).index(name)]
                    assert FACTS[name][answer] == one.answer
    assert places_of(32)[16 + cell_of(0.3, 0.6)].tolist() == [2, 1]


@pytest.mark.parametrize("digit", DIGITS)
def test_a_pen_s_digits_are_whole_and_no_two_alike(digit):
    def written(seed: int) -> np.ndarray:
        picture = Image.new("L", (120, 120))
        Pen(np.random.default_rng(seed), digit).draw(ImageDraw.Draw(picture), 60, 45, 0)
        return np.asarray(picture) > 0

    pictures = [written(seed) for seed in range(12)]
    for picture in pictures:
        rows, columns = picture.any(1).nonzero()[0], picture.any(0).nonzero()[0]
        assert rows[0] > 0 and rows[-1] < 119 and columns[0] > 0 and columns[-1] < 119  # nothing is cut off
        assert rows[-1] - rows[0] > 70
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    assert (written(3) == pictures[3]).all()


def test_a_set_is_in_video_mme_s_layout_and_its_prompt_the_one_trained_on(tmp_path):
    table = make(tmp_path, "dev", 3, {"short": 2, "medium": 0, "long": 0, "very long": 0}, 6, 1)
    assert set(table["sub_category"]) <= set(TASK_TYPES) and len(table) == 12
    task = VideoMME(tmp_path)
    for item in task.items():
        options = tuple(option[3:] for option in item.options)
        right = options["ABCD".index(item.answer)]
        same = Question(item.category["sub_category"], item.question, right, options)
        assert task.ask(item, []).text == multiple_choice(same)
        with av.open(str(item.path)) as container:
            assert 16 <= container.duration / 1e6 <= 60


def test_positions_of_a_worked_example():
    positions, after = video_positions(3, torch.tensor([5.0, 6.0, 11.0]))
    assert positions.shape == (3, 48) and after == 10
    assert positions[0, ::16].tolist() == [3, 4, 9]
    assert positions[1, :16].tolist() == [3] * 4 + [4] * 4 + [5] * 4 + [6] * 4
    assert positions[2, 32:36].tolist() == [3, 4, 5, 6]
    assert video_positions(3, torch.tensor([5.0]))[1] == 7
    assert video_positions(0, torch.tensor([0.0, 0.5, 1.0]))[0][0, ::16].tolist() == [0, 0, 1]


def test_tokenizer_round_trip_and_any_question():
    saved, built = AutoTokenizer.from_pretrained(BUILTIN, local_files_only=True), build_tokenizer()
    assert saved.get_vocab() == built.get_vocab() and saved.chat_template == built.chat_template
    for kind in KINDS:
        slots = {"x": "key", "y": "star", "list": "7, star, 4 or key", "o": "first"}
        for sentence in (s.format(**slots) for split in SPLITS for s in phrasings(kind, split)):
            ids = saved(sentence).input_ids
            assert saved.unk_token_id not in ids and saved.decode(ids).replace(" ", "") == sentence.lower().replace(
                " ", ""
            )
    assert saved.tokenize("A. red") == ["A", ".", "red"] and saved.tokenize("Apple") != ["A", "##pple"]
    assert saved.decode(saved("circle<|im_end|>").input_ids, skip_special_tokens=True).strip() == "circle"
    assert len(saved("Why would anyone ask THAT, 42 times?").input_ids) > 5


def test_chat_template_text():
    tokenizer = build_tokenizer()
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "image"}, {"type": "video"}, {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
        {"role": "user", "content": "and last?"},
    ]
    assert tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False) == (
        "<|im_start|>system\nbe brief<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|><|vision_start|><|video_pad|><|vision_end|>"
        "what?<|im_end|>\n<|im_start|>assistant\nred<|im_end|>\n<|im_start|>user\nand last?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    one = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "what?"}]}]
    assert tokenizer.apply_chat_template(one, tokenize=False).endswith("<|vision_end|>what?<|im_end|>\n")


def test_training_vision_path_equals_the_library_model(builtin):
    grids = torch.from_numpy(clip_grids(sample_clip("dev", 3, 0, seconds=4)))
    pixels = patches(grids)
    with torch.no_grad():
        fast = fast_vision(builtin[0].model.visual, pixels).flatten(0, 1)
        stock = builtin[0].model.visual(pixels.flatten(0, 1), torch.tensor([[4, 8, 8]])).pooler_output
    torch.testing.assert_close(fast, stock, atol=1e-4, rtol=1e-4)


def test_patches_equal_the_library_processor():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    picture = shrink(frames(BY_HAND)[:1])[0]
    processor = Qwen2VLImageProcessorPil.from_pretrained(BUILTIN, local_files_only=True)
    wanted = torch.as_tensor(np.asarray(processor(picture, input_data_format="channels_last")["pixel_values"]))
    both = torch.from_numpy(np.stack([picture, picture]))[None]
    torch.testing.assert_close(patches(both)[0], wanted, atol=1e-4, rtol=1e-4)


def test_builtin_files_are_small_and_complete():
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    names |= {"chat_template.jinja", "preprocessor_config.json"}
    assert names <= {path.name for path in BUILTIN.iterdir()}
    assert (BUILTIN / "model.safetensors").stat().st_size <= 20_000_000


@pytest.mark.parametrize("path", DEMOS, ids=lambda path: path.stem)
def test_builtin_model_answers_the_demo_clip(path, builtin):
    asked = json.loads(path.read_text())["questions"]
    pictures = read_mp4(path.with_suffix(".mp4"))
    grids = shrink(pictures).reshape(-1, 2, 112, 112, 3)
    said = offline.ask(*builtin, grids, [q["question"] for q in asked])
    assert said == [q["answer"] for q in asked]


def test_builtin_model_answers_fresh_held_out_clips(builtin):
    right = []
    for index in range(12):
        clip = sample_clip("test", 71, index)
        asked = questions(clip)
        said = offline.ask(*builtin, clip_grids(clip), [q.text for q in asked])
        right += [s == q.answer for s, q in zip(said, asked, strict=True)]
    assert np.mean(right) > 0.75, f"{np.mean(right):.2f} of {len(right)} answers right"


def test_training_s_attention_is_transformers():
    """Equal to the eager one to the last bits of float32, with grouped heads and a mask."""
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, heads, 37, 64, generator=draw) for heads in (4, 2, 2))
    mask = torch.where(torch.rand(3, 1, 37, 37, generator=draw) < 0.3, -1e4, 0.0)
    grouped = torch.nn.Module()
    grouped.num_key_value_groups = 2
    wanted = eager_attention_forward(grouped.eval(), query, key, value, mask, 0.125)[0]
    torch.testing.assert_close(attention(grouped, query, key, value, mask, 0.125)[0], wanted, atol=1e-6, rtol=0)
