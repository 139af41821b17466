"""Hearing: sound among frames equals the thinker's own forward on the whole, with drops as masks, saved and resumed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as tf
from families import cases, video
from omni import OMNI, between_marks, build, tokens_of_sound
from rawkeys import Raw
from reference import masked_forward, recorded, stream_masks
from test_exact import next_logits
from test_families import processor_of
from test_one_shot import masks_of
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import EVICTORS
from pdrop_video.memory.evictors.base import Merger
from pdrop_video.models.mel import Mel
from pdrop_video.pyramid.scorers import scorer_named

QUESTION = "what is shown first ?"
CLOSE = {"qwen2_5_omni_thinker": 1e-9, "qwen3_omni_moe_thinker": 1e-6}  # a router takes its softmax in float32
RATE = 16000
UNITS = {"qwen2_5_omni_thinker": 2 * RATE, "qwen3_omni_moe_thinker": 2 * RATE}  # tiny Qwen3: 200 features, not 800


build_once = cache(build)


def noise(seconds: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(int(seconds * RATE), generator=generator) * 0.1


def whisper(samples: Tensor, bins: int) -> Tensor:
    """Transformers' features [bins, frames] of one stretch."""
    extract = tf.WhisperFeatureExtractor(feature_size=bins)
    return extract(samples.numpy(), sampling_rate=RATE, padding=False, return_tensors="pt")["input_features"][0]


def whole_inputs(lm: pv.VideoLM, frames: Tensor, sound: Tensor) -> dict[str, Any]:
    """What the thinker takes for frames at two a second and their sound, text and layout by the family's processor."""
    family, config = lm.model.config.model_type, lm.model.config
    frames = torch.cat([frames, frames[-1:]]) if len(frames) % 2 else frames
    values, (t, h, w) = lm.adapter.preprocess(frames)
    parts = [whisper(part, 16) for part in sound.split(UNITS[family])]
    features = torch.cat(parts, dim=1)[None]
    mask = torch.ones(1, features.shape[2], dtype=torch.long)
    grid, apart = torch.tensor([[t, 2 * h, 2 * w]]), torch.tensor([1.0], dtype=torch.float64)
    words = lm.tokenizer
    named = {
        name: words.convert_ids_to_tokens(getattr(config, f"{name}_id")) for name in ("video_token", "audio_token")
    }
    ears = lm.adapter.ears
    processor = processor_of(
        family.removesuffix("_thinker"),
        words,
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
        audio_bos_token=ears.opening,
        audio_eos_token=ears.ending,
        **named,
    )
    sounds, per_second = tokens_of_sound(processor, features.shape[2]), config.position_id_per_seconds
    written = between_marks(processor, grid, sounds, position_id_per_seconds=per_second, seconds_per_chunk=2.0)
    for token in (*named.values(), ears.opening, ears.ending):
        written = written.replace(token, f" {token} ")
    between = words(written, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*lm.prompt.before(), *between, *lm.prompt.after(QUESTION)]])
    return dict(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values_videos=values.double(),
        video_grid_thw=grid,
        video_second_per_grid=apart,
        input_features=features.double(),
        feature_attention_mask=mask,
        use_audio_in_video=True,
    )


def push_all(stream: pv.VideoStream, frames: Tensor, sound: Tensor, sizes: list[int]) -> list[Any]:
    """Frames at two a second in pushes of so many, each with its sound, the last with all that is left."""
    done, first = [], 0
    for size in sizes:
        last = first + size
        part = sound[first * RATE // 2 : None if last == len(frames) else last * RATE // 2]
        done.append(stream.push(frames[first:last], [0.5 * i for i in range(first, last)], sound=part, rate=RATE))
        first = last
    assert first == len(frames)
    return done


@pytest.mark.parametrize(
    ("family", "sizes", "length"),
    cases(OMNI, ([1] * 9, [2, 2, 2, 2, 1], [5, 4], [9]), (4.5, 4.9), fast=lambda f, s, n: s == 2 * f + n),
)
def test_nothing_dropped_equals_one_forward(family: str, sizes: list[int], length: float) -> None:
    """Of the whole video with its sound, whose last stretch is not whole; its last step neither."""
    lm, frames, sound = build(family), video(9), noise(length)
    inputs = whole_inputs(lm, frames, sound)
    want = masked_forward(lm, inputs, None)[-1]
    stream = lm.stream(pv.Pyramid(ratios=(1.0, 1.0)), pv.Memory(tokens=None))
    push_all(stream, frames, sound, sizes)
    torch.testing.assert_close(next_logits(stream), want, atol=CLOSE[family], rtol=0)


SHARES = (
    pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25), scorer="relevance", sound=(0.3, 0.1)),
    pv.Pyramid(layers=(1, 3, 5), ratios=(0.6, 0.3, 0.1), scorer="contrast"),
    pv.Pyramid(layers=(1, 3), ratios=(1.0, 0.5), scorer="product", sound=(0.5, 0.02)),
)


@pytest.mark.parametrize(
    ("family", "pyramid", "tokens"),
    cases(OMNI, SHARES, (None, 140), fast=lambda f, p, t: (f, p, t) in ((0, 0, 0), (1, 1, 0), (0, 1, 1), (1, 0, 1))),
)
def test_drops_and_evictions_equal_masks(
    family: str, pyramid: pv.Pyramid, tokens: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer of the masked reference sees exactly what its cache held, of pictures and of sound."""
    lm, frames, sound = build(family), video(13), noise(6.7)
    inputs = whole_inputs(lm, frames, sound)
    snapshots = recorded(monkeypatch, tokens)
    stream = lm.stream(pyramid, pv.Memory(tokens=tokens))
    push_all(stream, frames, sound, [4, 3, 2, 4])
    got = next_logits(stream)  # what waited goes in, on its fork
    prefix, total = len(lm.prompt.before()), inputs["input_ids"].shape[1]
    allowed = stream_masks(snapshots, prefix, total, snapshots[-1])
    torch.testing.assert_close(got, masked_forward(lm, inputs, allowed)[-1], atol=CLOSE[family], rtol=0)
    assert (got - masked_forward(lm, inputs, allowed.roll(1, 0))[-1]).abs().max() > 1e-3  # the control


@pytest.mark.slow
@pytest.mark.parametrize("evictor", [name for name, each in EVICTORS.items() if not isinstance(each, Merger)])
@pytest.mark.parametrize("family", OMNI)
def test_every_evictor_forgets_sound(family: str, evictor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That merges nothing: equal to masks, as without sound."""
    lm, frames, sound = build(family), video(13), noise(6.7)
    inputs = whole_inputs(lm, frames, sound)
    snapshots = recorded(monkeypatch, 120)
    stream = lm.stream(SHARES[1], pv.Memory(tokens=120, evictor=evictor, positions="original"))
    push_all(stream, frames, sound, [4, 3, 2, 4])
    got = next_logits(stream)
    allowed = stream_masks(snapshots, len(lm.prompt.before()), inputs["input_ids"].shape[1], snapshots[-1])
    torch.testing.assert_close(got, masked_forward(lm, inputs, allowed)[-1], atol=CLOSE[family], rtol=0)


@pytest.mark.parametrize("family", OMNI)
def test_sound_is_dropped_by_ratios_of_its_own(family: str) -> None:
    """Of every piece each stage keeps so much of pictures and so much of sound, in the tables as in the counts."""
    pyramid = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25), sound=(0.3, 0.1))
    stream, frames = build(family).stream(pyramid, pv.Memory(tokens=None)), video(8)
    first, second, *_ = [each for each in push_all(stream, frames, noise(4), [4, 4]) if each.sound_tokens]
    heard = first.sound_tokens
    assert (first.visual_tokens, heard) == (second.visual_tokens, second.sound_tokens)
    assert heard == {"qwen2_5_omni_thinker": 50, "qwen3_omni_moe_thinker": 26}[family]
    assert first.kept == (18, 9, 4)
    for stage, (pictures, sounds) in enumerate([(18, heard), (9, int(heard * 0.3)), (4, int(heard * 0.1))]):
        table = stream.held(stage)
        assert (int(table.pictured.sum()), int(table.sound.sum())) == (2 * pictures, 2 * sounds)
    same = build(family).stream(pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25)), pv.Memory(tokens=None))
    push_all(same, frames, noise(4), [8])
    assert int(same.held(1).sound.sum()) == int(2 * heard * 0.5)


def test_what_is_usual_of_sound_is_learned_from_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scorer that learns gets, of each kind, what it gave for that kind before; and a saved stream has both."""
    contrast = type(scorer_named("contrast"))
    given: list[tuple[int, Tensor | None]] = []
    learned: dict[int, list[Tensor]] = {}
    learn = contrast.learn

    def learning(self: Any, ranking: Any) -> Tensor:
        made = learn(self, ranking)
        given.append((ranking.layout.places, ranking.usual))
        learned.setdefault(ranking.layout.places, []).append(made)
        return made

    monkeypatch.setattr(contrast, "learn", learning)
    stream = build_once("qwen2_5_omni_thinker").stream(pv.Pyramid(stages=2), pv.Memory(tokens=None))
    push_all(stream, video(12), noise(6), [4, 4, 4])
    for places in (9, 1):  # of a picture, and of a moment of sound
        usual = [each for of, each in given if of == places]
        assert usual[0] is None and len(usual) == 3
        assert all(got is want for got, want in zip(usual[1:], learned[places], strict=False))
    assert {i: usual.shape[1] for i, usual in stream._state.usual.items()} == {3: 10, ~3: 2}


@pytest.mark.parametrize("family", OMNI)
def test_sound_is_forgotten_with_its_seconds(family: str) -> None:
    """What is left of it belongs to steps that are left, and each token has the second at which it is heard."""
    stream = build(family).stream(pv.Pyramid(stages=1), pv.Memory(tokens=160, evictor="oldest"))
    push_all(stream, video(24), noise(12), [4] * 6)
    table, rate = stream.held(), stream.lm.adapter.ears.rate
    sounds, pictures = table.seconds[table.sound], table.seconds[table.pictured]
    assert len(sounds) and float(pictures.min()) > 0 and float(sounds.min()) >= float(pictures.min()) - 1
    shared = table.seconds[table.sound] // 1.0  # a step a second
    assert torch.equal(shared.long(), table.step[table.sound])
    begins = (table.position[:, 1] - table.row)[table.pictured][0]  # where the video's height begins, and its time
    assert torch.allclose((table.position[table.sound][:, 0] - begins).double() / rate, sounds)


@pytest.mark.parametrize("family", OMNI)
def test_positions_of_sound_stay_in_the_trained_range(family: str) -> None:
    """Far past it every key is one rotation, by the model, of its un-rotated self; sound moves with its pictures."""
    lm = build(family)
    trained = 400 if "qwen2" in family else 160
    lm.model.config.get_text_config().max_position_embeddings = trained
    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=260 if "qwen2" in family else 130))
    raw, prefix = Raw(stream), len(lm.prompt.before())
    for keys, layer in zip(raw.keys, stream._state.cache.layers, strict=True):  # the prompt never moves
        keys |= {n: torch.zeros_like(layer.keys[0, :, n]) for n in range(prefix)}
    for i in range(12):
        times = [2.0 * i + j / 2 for j in range(4)]
        stream.push(video(4, seed=i), times, sound=noise(2, seed=i), rate=RATE)
        raw.note()
    assert stream._state.place.next > 1.4 * trained
    for j, layer in enumerate(stream._state.cache.layers):
        held = stream._state.cache.tables[j]
        rows = held.index >= prefix
        torch.testing.assert_close(layer.keys[0][:, rows], raw.expected(j)[:, rows], atol=2e-5, rtol=0)
        assert int(held.now.max()) < trained and torch.equal(held.now[held.sound][:, 0], held.now[held.sound][:, 2])
        newest = held.visual & (held.chunk == held.chunk.max())
        assert len((held.position - held.now)[newest][:, 0].unique()) == 1 and int(held.sound.sum()) > 25


def tables(stream: pv.VideoStream) -> list[Tensor]:
    state = stream._state
    parts = [getattr(table, name) for table in state.cache.tables for name in ("index", "score", "seconds", "now")]
    parts += [part for layer in state.cache.layers for part in (layer.keys, layer.values)]
    parts = [part.nan_to_num(-1) for part in parts]  # text has no time
    return [*parts, *(usual for _, usual in sorted(state.usual.items()))]


@pytest.mark.parametrize("family", OMNI)
def test_saved_with_sound_that_waits_and_asked_without_a_trace(family: str, tmp_path: Path) -> None:
    """Asked, saved and resumed in the middle of a stretch: bit for bit as if nothing had happened."""
    lm, frames, sound = build(family), video(12), noise(6)
    pyramid = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25), sound=0.5)
    quiet, asked = (lm.stream(pyramid, pv.Memory(tokens=120)) for _ in range(2))
    push_all(quiet, frames, sound, [3, 4, 5])
    for first, last in ((0, 3), (3, 7), (7, 12)):
        part = sound[first * 8000 : last * 8000]
        asked.push(frames[first:last], [0.5 * i for i in range(first, last)], sound=part, rate=RATE)
        answers = [asked.ask(QUESTION, 3).token_ids for _ in range(2)]
        assert answers[0] == answers[1]
        if first < 7:
            assert asked._state.waiting is not None and len(asked._state.heard.samples)
        asked.save(tmp_path / "stream")
        asked = lm.resume(tmp_path / "stream")
    assert all(torch.equal(a, b) for a, b in zip(tables(quiet), tables(asked), strict=True))
    assert quiet._state.place == asked._state.place
    assert torch.equal(next_logits(quiet), next_logits(asked))
    assert asked.loop.schedule.sound == (0.5, 0.25)


@pytest.mark.parametrize("family", OMNI)
def test_a_kept_turn_closes_the_sound_and_another_video_begins(family: str) -> None:
    """Two videos with sound around a kept turn equal one forward, with the positions that the model makes itself."""
    lm, frames, sound = build(family), video(8), noise(2)
    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
    push_all(stream, frames[:4], sound[:27200], [4])  # the question comes in the middle of a stretch
    answer = stream.ask(QUESTION, 4, keep=True)
    stream.push(frames[4:], [2.0, 2.5, 3.0, 3.5], sound=sound, rate=RATE)
    first = whole_inputs(lm, frames[:4], sound[:27200])
    second = whole_inputs(lm, frames[4:], sound)
    cut = len(lm.prompt.before())
    again = lm.prompt.again()
    ids = [*first["input_ids"][0].tolist(), *answer.token_ids, *again, *second["input_ids"][0, cut:].tolist()]
    inputs = {
        name: torch.cat([first[name], second[name]])
        for name in ("pixel_values_videos", "video_grid_thw", "video_second_per_grid")
    }
    short = torch.nn.functional.pad(first["input_features"], (0, 30))
    inputs["input_features"] = torch.cat([short, second["input_features"]])
    inputs["input_ids"] = torch.tensor([ids])
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["feature_attention_mask"] = (torch.arange(200) < torch.tensor([[170], [200]])).long()
    want = masked_forward(lm, inputs | {"use_audio_in_video": True}, None)[-1]
    torch.testing.assert_close(next_logits(stream), want, atol=CLOSE[family], rtol=0)


@pytest.mark.parametrize("family", OMNI)
@torch.no_grad()
def test_one_shot_drops_pictures_and_leaves_sound(family: str) -> None:
    """`pyramid_drop` on the thinker itself, with a video and its sound; greedy generation as by masks."""
    lm = build(family)
    inputs = whole_inputs(lm, video(8), noise(4))
    visual = inputs["input_ids"][0] == lm.model.config.video_token_id
    with pv.pyramid_drop(lm.model, pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25))) as trace:
        got = lm.model(**inputs, use_cache=False).logits[0, -1]
        ids = lm.model.generate(**inputs, max_new_tokens=2, do_sample=False)[0, -2:]
    assert [len(kept[0]) for kept in trace.kept] == [18, 9]
    want = masked_forward(lm, inputs, masks_of(trace, visual, lm.num_layers))[-1]
    torch.testing.assert_close(got, want, atol=CLOSE[family], rtol=0)
    assert int(ids[0]) == int(want.argmax())
    with pytest.raises(pv.ConfigError, match="is for streams"):
        pv.pyramid_drop(lm.model, pv.Pyramid(sound=0.5))


@pytest.mark.parametrize(("bins", "samples"), [(128, 32000), (80, 5000), (16, 201)])
def test_features_are_transformers(bins: int, samples: int) -> None:
    sound = noise(samples / RATE) * torch.linspace(0, 3, samples)  # from silence to loud: the floor matters
    got = Mel(bins=bins).features(sound)
    assert got.shape == (bins, samples // 160)
    torch.testing.assert_close(got, whisper(sound, bins), atol=1e-6, rtol=0)


SOUND = noise(2)
BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no rate": (pv.FrameError, dict(sound=SOUND), "without a rate"),
    "no sound": (pv.FrameError, dict(rate=RATE), "came without sound"),
    "another rate": (pv.FrameError, dict(sound=SOUND.repeat(3), rate=48000), "48,000 samples a second.*16,000"),
    "silent": (pv.ConfigError, dict(), "a chunk came without sound"),
    "short": (pv.FrameError, dict(sound=SOUND[:8000], rate=RATE), "0.50 s of sound.*1.50 s"),
    "long": (pv.FrameError, dict(sound=SOUND.repeat(3), rate=RATE), "6.00 s of sound"),
    "int32": (pv.FrameError, dict(sound=SOUND.int(), rate=RATE), "dtype torch.int32; expected int16"),
    "bytes": (pv.FrameError, dict(sound=SOUND.numpy().astype("uint8"), rate=RATE), "dtype uint8"),
    "list": (pv.FrameError, dict(sound=SOUND.tolist(), rate=RATE), "sound is a list"),
    "empty": (pv.FrameError, dict(sound=SOUND[:0], rate=RATE), "at least one sample"),
    "upright": (pv.FrameError, dict(sound=SOUND[:, None], rate=RATE), "Transpose"),
    "nan": (pv.FrameError, dict(sound=SOUND * torch.nan, rate=RATE), "not finite"),
    "loud": (pv.FrameError, dict(sound=SOUND * 2**15, rate=RATE), "samples from -1 to 1"),
    "half": (pv.FrameError, dict(sound=SOUND, rate=0.5), "rate"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_sound_is_refused_before_anything_is_done(bad: str) -> None:
    error, given, said = BAD[bad]
    stream = build_once("qwen2_5_omni_thinker").stream(pv.Pyramid(stages=1))
    push_all(stream, video(3), noise(1.5), [3])
    before = stream._state
    with pytest.raises(error, match=said):
        stream.push(video(4), [1.5, 2.0, 2.5, 3.0], **given)
    assert stream._state is before
    stream.push(video(4), [1.5, 2.0, 2.5, 3.0], sound=SOUND, rate=RATE)


def test_what_can_not_hear_says_so() -> None:
    deaf, lm, given = pv.load(), build_once("qwen2_5_omni_thinker"), dict(sound=SOUND, rate=RATE)
    times = [0, 0.5, 1.0, 1.5]
    with pytest.raises(pv.ConfigError, match=r"do not take sound.*stream\.add_text"):
        deaf.stream().push(video(4), times, **given)
    with pytest.raises(pv.ConfigError, match="a gate leaves out frames"):
        lm.stream(gate="static").push(video(4), times, **given)
    begun = lm.stream()
    begun.push(video(2), [-2, -1])
    with pytest.raises(pv.ConfigError, match="began without it"):
        begun.push(video(4), times, **given)
    hearing = lm.stream()
    hearing.push(video(4), times, **given)
    with pytest.raises(pv.ConfigError, match="can't be added in the middle"):
        hearing.add_text("what is red ?")
    with pytest.raises(pv.FrameError, match="goes on where it ended"):
        hearing.push(video(4), [100 + each for each in times], **given)
    with pytest.raises(pv.FrameError, match="within 2 s of sound"):
        hearing.push(video(1), [2.0], sound=SOUND[:8000], rate=RATE)
        hearing.push(video(3, height=90), [2.5, 3.0, 3.5], sound=SOUND[:24000], rate=RATE)


def test_what_is_pushed_may_be_stereo_and_sixteen_bit_and_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tokens from int16 in two channels; a pause is silence, and what runs ahead is cut."""
    lm = build_once("qwen2_5_omni_thinker")
    heard: list[Tensor] = []
    hear = type(lm.adapter).hear
    monkeypatch.setattr(
        type(lm.adapter), "hear", lambda self, samples, **how: heard.append(samples) or hear(self, samples, **how)
    )
    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
    whole = (SOUND * 2**15).to(torch.int16)
    stream.push(video(2), [0.0, 0.5], sound=torch.stack([whole[:16000], whole[:16000]]).numpy(), rate=RATE)
    stream.push(video(1), [1.5], sound=whole[:12000], rate=RATE)  # half a second of pause, a quarter too much
    stream.push(video(1), [2.0], sound=whole[:8000], rate=RATE)
    want = torch.cat([whole[:16000], 0 * whole[:8000], whole[:12000]]) / 2**15
    assert len(heard) == 1 and torch.equal(heard[0], want[:32000])
