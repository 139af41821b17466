"""What is particular to each family: its text around frames, its positions, its pixels, its true sizes."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from families import FAMILIES, build, video
from more_families import BUILDERS, GLM_TOKENS, MOLMO_TOKENS
from omni import OMNI
from packaging.version import Version
from PIL import Image
from reference import full_prompt
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from true_hybrids import TRUE_HYBRIDS

import pdrop_video as pv
from pdrop_video.models import ADAPTERS, Pixels, Place, adapter_for

OTHERS = [each for each in ADAPTERS if each not in FAMILIES.keys() | OMNI.keys() and each in tf.CONFIG_MAPPING]
QUESTION = "What is shown\n\nfirst, at 00:07?"

# -- text: token for token what the family's processor writes ---------------------------------------------------------

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'video' %}"
    "VIDEO{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA = (
    "{% for m in messages %}{{ m['role'] | upper }}: {% for c in m['content'] %}{% if c['type'] == 'video' %}<video>\n"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
TEMPLATES = {  # of the checkpoints' kind; SmolVLM's comes from its processor
    "qwen2_vl": CHATML.replace("VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"),
    "llava_onevision": CHATML.replace("VIDEO", "<video>"),
    "llava_next_video": VICUNA,
    "internvl": CHATML.replace("VIDEO", "<video>\n"),
    "smolvlm": CHATML.replace("VIDEO", "not used"),
}
for name in ("qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "cosmos3_omni", "cosmos3_edge"):
    TEMPLATES[name] = TEMPLATES["qwen2_vl"]
for name in ("qwen3_5", "qwen3_5_moe", "exaone4_5"):
    TEMPLATES[name] = TEMPLATES["qwen2_vl"]
for name in ("glm4v", "glm4v_moe", "glm46v", "glmga", "glm_ocr"):
    TEMPLATES[name] = CHATML.replace("VIDEO", "<|begin_of_video|><|video|><|end_of_video|>")
TEMPLATES["video_llama_3"] = CHATML.replace("VIDEO", "<|video_pad|>\n")
TEMPLATES["video_llava"] = VICUNA
TEMPLATES["molmo2"] = TEMPLATES["perception_lm"] = CHATML.replace("VIDEO", "<|video|>")
TEMPLATES["minicpmv4_6"] = TEMPLATES["minicpmv4_7"] = CHATML.replace("VIDEO", "<|video_pad|>\n")
TEMPLATES["muse_glimmer"] = TEMPLATES["muse_spark"] = CHATML.replace("VIDEO", "<|video|>")
TEMPLATES["gemma4"] = TEMPLATES["gemma4_unified"] = "<s>" + CHATML.replace("VIDEO", "\n\n<|video|>\n\n")
SPECIALS = {
    "qwen": ["<|video_pad|>", "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"],
    "glm": GLM_TOKENS,
    "molmo2": MOLMO_TOKENS,
    "perception": ["<|video|>", "<|image|>"],
    "llava": ["<video>", "<image>"],
    "intern": ["<video>", "<IMG_CONTEXT>", "<img>", "</img>"],
    "smol": ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"],
    "exaone": ["<|video_pad|>", "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"],
    "minicpm": ["<|video_pad|>", "<|image_pad|>", "<image>", "</image>", "<slice>", "</slice>"],
    "muse": ["<|patch|>", "<|video|>", "<|vid_start|>", "<|vid_end|>", "<|vid_frame_separator|>"],
    "gemma4": ["<|image|>", "<|image>", "<image|>"],  # the video's is added by the processor
}
SPECIALS["video_llava"] = SPECIALS["llava"]
SPECIALS["cosmos"] = SPECIALS["video_llama"] = SPECIALS["qwen"]
QWEN_WORDS = (  # how the pre-tokenizer of Qwen2's, and so InternVL3's, cuts words
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def trained(family: str, template: str | None = None, named: list[str] | None = None) -> Any:
    """A small byte-pair tokenizer that cuts words as the family's own does, so that merges may cross no other places.

    Trained on the very texts, line breaks and all: whatever may merge does.
    """
    raw = Tokenizer(models.BPE())
    if family in ("llava_next_video", "video_llava"):  # Llama's: a first token, and a mark in front of the text
        raw.pre_tokenizer, raw.decoder = pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace()
    elif family.startswith("gemma4"):  # digits one by one; spaces are letters like any other
        spaces = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), spaces])
        raw.decoder = decoders.Metaspace(prepend_scheme="never", split=False)
    elif family == "smolvlm":  # SmolLM2's: digits one by one, words as GPT-2 cuts them
        digits = pre_tokenizers.Digits(individual_digits=True)
        raw.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    else:
        # GLM-4's differ in numbers alone
        rule = QWEN_WORDS.replace(r"\p{N}|", r"\p{N}{1,3}|") if family.startswith("glm") else QWEN_WORDS
        words = pre_tokenizers.Split(Regex(rule), "isolated")
        raw.pre_tokenizer = pre_tokenizers.Sequence(
            [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    named = named or next(names for start, names in SPECIALS.items() if family.startswith(start))
    template = template or TEMPLATES[family]
    text = f"{template} User: You are provided the following series of frames from a video.\n\n\nFrame from 01:"
    text += " 00:01 Time: 0.0s " * family.startswith(("gemma4", "muse"))
    text += "\n0.5 0.0 10.0 20.0 " * (family == "molmo2")
    text += "Time 0.5s:,Time 10.0s:" * family.startswith("video_llama")
    text += f"\n\n\n{QUESTION} \nFrame1: user\nFrame2: user\n<0.5 seconds>USER: \n Assistant: ASSISTANT:"
    raw.train_from_iterator([text] * 9, trainers.BpeTrainer(vocab_size=700, show_progress=False))
    raw.add_special_tokens([AddedToken(t, normalized=False) for t in ("<s>", "<|im_start|>", "<|im_end|>", *named)])
    if family in ("llava_next_video", "video_llava"):
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair=None, special_tokens=[("<s>", raw.token_to_id("<s>"))]
        )
    fast = tf.PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", extra_special_tokens=named)
    fast.chat_template = template
    return fast


PROCESSORS = dict(qwen3_vl_moe="qwen3_vl", cosmos3_omni="qwen3_vl")
PROCESSORS |= dict(glm4v_moe="glm4v", glmga="glm46v", glm_ocr="glm46v")  # as released


def processor_of(family: str, words: Any, **attributes: Any) -> Any:
    """The family's processor with what writing its text needs; its parts would need torchvision."""
    named = "qwen3_vl" if family.startswith("qwen3_5") else PROCESSORS.get(family, family)
    try:
        module = importlib.import_module(f"transformers.models.{named}.processing_{named}")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        pytest.skip("this transformers' processor is not even imported without torchvision")
    if family == "smolvlm":
        module.num2words = lambda n: {5: "five", 6: "six"}[n]
    (name,) = (n for n in module.__all__ if n.endswith("Processor"))
    made = object.__new__(getattr(module, name))
    for key, value in attributes.items():
        object.__setattr__(made, key, value)
    return made


def written(family: str, words: Any, frames: int, fps: float) -> str:
    """The expanded text of `frames` frames, one every 1 / `fps` seconds, by the processor's own methods."""
    grid = torch.tensor([[-(-frames // 2), 4, 6]])  # of patches, of which 2 x 2 are merged
    metadata = SimpleNamespace(fps=fps, frames_indices=list(range(frames)), duration=frames / fps)
    metadata.timestamps = [i / fps for i in range(frames)]
    inputs = dict(video_grid_thw=grid, video_metadata=[metadata], pixel_values=torch.zeros(1, frames, 3, 8, 8))
    inputs["video_grids"] = torch.tensor([[frames, 2, 2]])
    if family == "cosmos3_edge":
        inputs["video_grid_thw"] = torch.tensor([[frames, 4, 6]])
    if family == "video_llama_3":
        inputs |= dict(video_grid_thw=torch.tensor([[frames, 4, 6]]), video_merge_sizes=torch.tensor([2]))
        inputs["video_compression_mask"] = torch.ones(frames * 6, dtype=torch.bool)  # nothing is left out
    inputs["pixel_values_videos"] = torch.zeros(1, frames, 3, 64, 64)
    inputs["num_soft_tokens_per_video"] = [4]
    sizes = dict(target_sizes_videos=torch.tensor([[8, 8]] * frames), grids_videos=torch.zeros(frames, 2, dtype=int))
    inputs |= sizes | dict(num_frames_per_video=[frames])
    more = dict(video_token_divisor=16) if family.startswith("minicpm") else {}
    kind = adapter_for(family)
    image = dict(internvl="<IMG_CONTEXT>", smolvlm="<image>").get(family, "<|image|>")
    processor = processor_of(
        family,
        words,
        video_processor=SimpleNamespace(
            merge_size=2, temporal_patch_size=kind.frames_per_step, frame_timestamp_format="Time: {timestamp:.1f}s"
        ),
        video_token=kind.placeholder.removeprefix("<|vision_start|>").removesuffix("<|vision_end|>")
        or kind.video_token,
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
        num_image_tokens=16,
        patch_size=16,
        pooling_ratio=2,
        num_additional_image_tokens=1,
        video_use_col_tokens=False,
        use_frame_special_tokens=True,
        image_token=image,
        image_start_token="<image>",
        start_image_token="<img>",
        end_image_token="</img>",
        image_seq_length=4,
        image_seq_len=4,
        image_end_token="</image>",
        video_slice_mode=True,
        video_start_token="<|vid_start|>",
        video_sep_token="<|vid_frame_separator|>",
        video_end_token="<|vid_end|>",
        boi_token="<|image>",
        eoi_token="<image|>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
    )
    replacement = processor.replace_video_token(inputs, 0, **more)
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}]
    template = adapter_for(family).template
    text = words.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)
    placeholder = processor.video_token
    if family.startswith("qwen3") or PROCESSORS.get(family, family) in ("qwen3_vl", "cosmos3_edge"):
        # as up to transformers 5.9, processing_qwen3_vl.py, `__call__`
        placeholder = f"<|vision_start|>{placeholder}<|vision_end|>"
    if family == "smolvlm":  # what a stream can't know
        intro = f"You are provided the following series of {'five' if frames == 5 else 'six'} frames from a "
        assert replacement.startswith(intro)
        replacement = adapter_for(family).opening + replacement[replacement.index("\n") + 1 :]
    assert placeholder in text
    if family == "molmo2":  # as in its processor's `__call__`
        text = words.bos_token + text
    return text.replace(placeholder, replacement, 1)


@pytest.mark.parametrize(("frames", "fps"), [(6, 2.0), (5, 0.1)])
@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_text_is_the_processors(family: str, frames: int, fps: float) -> None:
    """The stream's tokens, piece by piece, are those of the processor's whole text."""
    words, kind = trained(family), adapter_for(family)
    adapter, prompt = kind(SimpleNamespace(config=None), Pixels(), words), kind.prompt(words)
    visual = words.convert_tokens_to_ids(adapter.video_token)
    size = 6 if adapter.keeps_shape or family.startswith(("qwen", "exaone", "muse")) else 4
    size = dict(video_llava=17).get(family, size)
    got = prompt.before()
    for number, second in enumerate(adapter.times(tuple(i / fps for i in range(frames)))):
        before, after = adapter.glue(number, second)
        got += [*adapter.ids(before), *[visual] * size, *adapter.ids(after)]
    got += [visual] * (family == "llava_onevision")  # its newline
    got += prompt.after(QUESTION)
    want = words(written(family, words, frames, fps))["input_ids"]
    assert words.decode(got) == words.decode(want) and got == want


def test_the_texts_by_hand() -> None:
    assert adapter_for("qwen3_vl").glue(None, 3, 61.25) == ("<61.2 seconds><|vision_start|>", "<|vision_end|>")
    assert adapter_for("internvl").glue(None, 0, 9.0) == ("Frame1: <img>", "</img>")
    assert adapter_for("internvl").glue(None, 9, 9.0) == ("\nFrame10: <img>", "</img>")
    smol = adapter_for("smolvlm").glue(None, 3, 3725.9)
    assert smol == ("\nFrame from 62:05:<fake_token_around_image><global-img>", "<fake_token_around_image>")
    for family in ("qwen2_vl", "qwen2_5_vl", "llava_onevision", "llava_next_video"):
        assert adapter_for(family).glue(None, 3, 1.0) == ("", "")


def test_a_first_token_is_written_once() -> None:
    words = trained("llava_next_video")
    prompt = adapter_for("llava_next_video").prompt(words)
    assert prompt.before()[0] == words.bos_token_id and words.bos_token_id not in prompt.after(QUESTION)
    words.chat_template = "<s>" + words.chat_template
    assert prompt.before().count(words.bos_token_id) == 1


def test_qwen3_times_are_means_of_pairs() -> None:
    adapter = build("qwen3_vl").adapter
    assert adapter.times((0.0, 1.0, 4.0, 4.5, 9.0)) == (0.5, 4.25, 9.0)
    chunk = adapter.look(video(5), (0.0, 1.0, 4.0, 4.5, 9.0))
    assert chunk.seconds == (0.5, 4.25, 9.0)
    assert all(not f[~chunk.visual].any() and f[chunk.visual].any(-1).all() for f in chunk.deepstack)
    assert len(chunk.deepstack) == 3 and sum(chunk.steps) == len(chunk)


# -- positions: against transformers where it agrees with itself ------------------------------------------------------


def placed(lm: pv.VideoLM, seconds: list[float], chunks: list[int]) -> torch.Tensor:
    """Position ids [3 or 1, tokens] that a stream of these chunks gives out, question included."""
    adapter, made = lm.adapter, []
    ids, place = adapter.positions.text(len(lm.prompt.before()), Place())
    made.append(ids)
    first = step = 0
    for size in chunks:
        chunk = adapter.look(video(size), tuple(seconds[first : first + size]), step)
        ids, place = adapter.place(chunk, place)
        first, step = first + size, step + len(chunk.steps)
        made.append(ids)
    made.append(adapter.positions.text(len(lm.prompt.after("what is first ?")), place)[0])
    together = torch.cat(made, -1)
    return together.reshape(-1, together.shape[-1])


def of_transformers(lm: pv.VideoLM, frames: int, seconds: list[float], **more: Any) -> torch.Tensor:
    inputs, _, _ = full_prompt(lm, video(frames), seconds, "what is first ?")
    ids = inputs["input_ids"]
    kinds = (ids == lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)).int() * 2
    return lm.model.model.get_rope_index(ids, kinds, video_grid_thw=inputs["video_grid_thw"], **more)[0][:, 0]


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_positions_of_a_short_video_are_transformers(family: str) -> None:
    """3 steps of 3 x 3 tokens: where the rules for the text after a video agree."""
    lm, seconds = build(family), [0.5 * i for i in range(6)]
    if family == "qwen2_5_vl":  # one step a second, at one token a second
        lm.model.config.vision_config.tokens_per_second = 1
    more = {"second_per_grid_ts": torch.tensor([1.0])} if family == "qwen2_5_vl" else {}
    want = of_transformers(lm, 6, seconds, **more)
    for chunks in ([6], [2, 4], [4, 2]):
        assert torch.equal(placed(lm, seconds, chunks), want)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_positions_of_a_long_video(family: str) -> None:
    """9 steps of 3 x 3 tokens: transformers since 5.5 lets text begin inside the video, but for Qwen3-VL."""
    lm, seconds = build(family), [0.5 * i for i in range(18)]
    more = {"second_per_grid_ts": torch.tensor([1.0])} if family == "qwen2_5_vl" else {}
    want, got = of_transformers(lm, 18, seconds, **more), placed(lm, seconds, [4, 6, 8])
    after = len(lm.prompt.after("what is first ?"))
    assert torch.equal(got[:, :-after], want[:, :-after])
    assert got[0, -after] == got[:, :-after].max() + 1
    if family == "qwen3_vl":
        assert torch.equal(got, want)
    else:
        assert want[0, -after] == len(lm.prompt.before()) + 3 <= want[:, :-after].max()


@pytest.mark.parametrize(("rate", "apart"), [(2, 1.0), (2, 0.65), (4, 0.3), (25, 2.0), (1, 0.5)])
def test_qwen2_5_places_steps_by_their_times(rate: int, apart: float) -> None:
    """Steps `apart` seconds, at `rate` positions a second: transformers' own numbers, up to where the text goes on."""
    lm = build("qwen2_5_vl")
    lm.model.config.vision_config.tokens_per_second = rate
    before, after = len(lm.prompt.before()), len(lm.prompt.after("what is first ?"))
    seconds = [apart / 2 * i for i in range(18)]
    by_hand = [before + int(step * apart * rate + 1e-6) for step in range(9) for _ in range(9)]
    for chunks in ([18], [4, 6, 8], [2] * 9):
        got = placed(lm, seconds, chunks)
        assert got[0, before:-after].tolist() == by_hand
        assert got[0, -after] == got[:, :-after].max() + 1
    if Version(tf.__version__) < Version("5.18"):  # it cut off fractions of a second
        apart = int(apart)
        got = placed(lm, [apart / 2 * i for i in range(18)], [18])
    want = of_transformers(lm, 18, seconds, second_per_grid_ts=torch.tensor([apart], dtype=torch.float64))
    assert torch.equal(got[:, :-after], want[:, :-after])


def test_qwen2_counts_steps_whatever_their_times() -> None:
    lm = build("qwen2_vl")
    even, odd = placed(lm, [0, 1, 2, 3, 4, 5], [6]), placed(lm, [0, 1, 40, 41, 42, 500], [2, 2, 2])
    assert torch.equal(even, odd) and sorted(set(even[0, 3:30].tolist())) == [3, 4, 5]


@pytest.mark.parametrize("family", ["llava_onevision", "llava_next_video", "internvl", "smolvlm"])
def test_linear_positions_count_every_token(family: str) -> None:
    lm = build(family)
    got = placed(lm, [0, 1, 2, 3, 4], [2, 1, 2])
    total = full_prompt(lm, video(5), [0, 1, 2, 3, 4], "what is first ?")[0]["input_ids"].shape[1]
    assert got[0].tolist() == list(range(total - len(lm.adapter.closing())))


# -- pixels -----------------------------------------------------------------------------------------------------------


def levels(adapter: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Normalised pictures [frames, 3, height, width] back on a scale of 0 to 255."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (adapter.pixels.mean, adapter.pixels.std))
    return (pictures * std + mean) * 255


def close(got: torch.Tensor, want: np.ndarray) -> None:
    """Pillow 12 differs by its two roundings; 13 takes the passes of some shapes in the other order as well."""
    error = (got - torch.from_numpy(want).permute(2, 0, 1)).abs()
    assert error.max() < 6 and error.mean() < 0.4, (error.max(), error.mean())


@pytest.mark.parametrize("size", [(90, 160), (160, 90), (100, 100), (45, 31), (70, 64), (64, 65)])
def test_llava_next_video_cuts_the_middle(size: tuple[int, int]) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    adapter, frames = build("llava_next_video").adapter, video(2, height=size[0], width=size[1])
    numbers = dict(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, resample=3, do_normalize=False)
    images = [Image.fromarray(f.numpy()) for f in frames]
    want = CLIPImageProcessorPil(**numbers, do_rescale=False)(images)["pixel_values"]
    values, grid = adapter.preprocess(frames)
    assert grid == (2, 4, 4) and values.shape == (1, 2, 3, 64, 64)
    for got, picture in zip(levels(adapter, values[0]), want, strict=True):
        close(got, np.asarray(picture, dtype=np.float32).transpose(1, 2, 0))


@pytest.mark.parametrize("size", [(90, 160), (160, 90), (33, 31)])
def test_internvl_squares_frames(size: tuple[int, int]) -> None:
    adapter, frames = build("internvl").adapter, video(1, height=size[0], width=size[1])
    want = np.array(Image.fromarray(frames[0].numpy()).resize((64, 64), resample=3), dtype=np.float32)
    values, grid = adapter.preprocess(frames)
    assert grid == (1, 4, 4)
    close(levels(adapter, values)[0], want)


@pytest.mark.parametrize("size", [(90, 160), (160, 90), (89, 140), (33, 31), (1, 300)])
def test_smolvlm_resizes_twice(size: tuple[int, int]) -> None:
    """In proportion to 72 pixels by the video processor's own rule for sizes, then to 64 x 64; Lanczos as in PIL."""
    from transformers.models.smolvlm.video_processing_smolvlm import get_resize_output_image_size

    adapter, frames = build("smolvlm").adapter, video(1, height=size[0], width=size[1])
    height, width = get_resize_output_image_size(frames.movedim(-1, 1), 72)
    shaped = Image.fromarray(frames[0].numpy()).resize((width, height), resample=1)
    values, grid = adapter.preprocess(frames)
    assert grid == (1, 4, 4) and values.shape == (1, 1, 3, 64, 64)
    close(levels(adapter, values[0])[0], np.array(shaped.resize((64, 64), resample=1), dtype=np.float32))


def test_qwen3_limits_are_a_frames() -> None:
    """Published limits (4096 and 25165824 pixels of a whole video): 1080 x 1920 gives 768 tokens' worth at most."""
    kind = adapter_for("qwen3_vl")
    pixels = kind.per_frame(Pixels.of({"size": {"shortest_edge": 4096, "longest_edge": 25165824}}))
    assert pixels.limits == (1024, 786432)
    vision = SimpleNamespace(patch_size=16, spatial_merge_size=2, temporal_patch_size=2)
    adapter = kind(SimpleNamespace(config=SimpleNamespace(vision_config=vision)), pixels)
    # sqrt(1080 * 1920 / 786432) = 1.6238; 1080 / 1.6238 = 665.1 -> 20 * 32, 1920 / 1.6238 = 1182.4 -> 36 * 32
    assert adapter.preprocess(torch.zeros(2, 1080, 1920, 3, dtype=torch.uint8))[1] == (1, 20, 36)
    assert adapter.preprocess(torch.zeros(2, 32, 40, 3, dtype=torch.uint8))[1] == (1, 1, 1)


def test_every_family_is_tested() -> None:
    hybrids = {size.config.model_type for size in TRUE_HYBRIDS.values()}
    built = FAMILIES.keys() | {made.__name__ for made in BUILDERS} | hybrids | OMNI.keys()
    assert {family for family in ADAPTERS if family in tf.CONFIG_MAPPING} <= built  # an older transformers lacks some
