"""Proofs for the synthetic world, its pixels, the built-in model's files and its answers."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from eval.synthetic import offline
from eval.synthetic.backgrounds import FAMILIES
from eval.synthetic.bank import cell_of, clip_grids, labels_of, shrink
from eval.synthetic.fonts import FONTS
from eval.synthetic.lessons import STATES, Teacher
from eval.synthetic.mixing import class_maps
from eval.synthetic.model import patches, video_positions
from eval.synthetic.phrasings import phrasings
from eval.synthetic.render import frames, read_mp4, write_mp4
from eval.synthetic.tokenizer import build_tokenizer
from eval.synthetic.vision_stage import fast_vision
from eval.synthetic.world import KINDS, SPLITS, Clip, Marker, Thing, answer, generator, questions, sample_clip

ROOT = Path(__file__).parent.parent
BUILTIN = ROOT / "pdrop_video" / "builtin"
DEMOS = sorted((ROOT / "demos" / "clips").glob("*.json"))
BY_HAND = Clip(
    "train",
    6,
    (
        Thing(1, "7", "red", 0.3, 0.3),
        Thing(2, "star", "blue", 0.6, 0.3),
        Thing(4, "4", "green", 0.5, 0.3),
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
        known = {w for k in KINDS for s in phrasings(k, "train") for w in s.lower().strip("?.").split()}
        for sentence in phrasings(kind, "dev") + phrasings(kind, "test"):
            assert set(sentence.lower().strip("?.").split()) <= known, sentence


def test_answers_of_a_clip_made_by_hand():
    right = {
        "colour_first": "red",
        "colour_last": "green",
        "number_first": "7",
        "number_last": "4",
        "shape_first": "star",
        "shape_last": "star",
        "count": "3",
        "motion": "left",
    }
    assert {kind: answer(BY_HAND, kind) for kind in KINDS} == right
    assert {q.kind: q.answer for q in questions(BY_HAND)} == right
    bare = Clip("train", 4, (BY_HAND.things[0],), None, (0, 0))
    assert answer(bare, "motion") is None and answer(bare, "shape_first") is None and answer(bare, "count") == "1"
    assert {q.kind for q in questions(bare)} == {"colour_first", "colour_last", "number_first", "number_last", "count"}


def test_clips_obey_the_rules_of_the_world():
    for index in range(200):
        clip = sample_clip("test", 2, index)
        seconds = [t.second for t in clip.things]
        assert 4 <= clip.seconds <= 16 and 1 <= len(seconds) <= 6
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
    assert rows[0, :3].tolist() == [6, 17, -1] and cell_of(0.3, 0.3) == 5
    maps = class_maps(rows)
    assert maps.shape == (6, 16, 3) and (maps[..., 1] != 17).sum() == 3 and (maps[..., 2] != 4).sum() == 6
    for index in range(50):
        clip = sample_clip("dev", 5, index)
        final = Teacher.states(labels_of(clip))[-1]
        for kind, state in zip(STATES, final, strict=True):
            words = STATES[kind]
            assert (words[state] if state < len(words) else None) == answer(clip, kind)


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
        for sentence in (s for split in SPLITS for s in phrasings(kind, split)):
            ids = saved(sentence).input_ids
            assert saved.unk_token_id not in ids and saved.decode(ids) == sentence.lower().replace(" ?", "?")
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
    assert np.mean(right) > 0.85, f"{np.mean(right):.2f} of {len(right)} answers right"
