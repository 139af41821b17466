"""`load` and `describe`: checkpoints in every layout that the families' real ones have had, and what is refused."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from families import FAMILIES, build, cases, video
from huggingface_hub import constants
from reference import full_prompt
from safetensors.torch import load_file, save_file

import pdrop_video as pv
from pdrop_video.models import Pixels, describe
from pdrop_video.models.loading import BUILTIN

CLIP = dict(image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
SIGLIP = dict(image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5])
# What Qwen2.5-VL's preprocessor_config.json holds; the limits were written for images.
QWEN_IMAGE = dict(min_pixels=3136, max_pixels=12845056, patch_size=14, temporal_patch_size=2, merge_size=2, **CLIP)
QWEN_NESTED = dict(size={"shortest_edge": 3136, "longest_edge": 12845056}, resample=3, do_resize=True, **CLIP)
# LLaVA-OneVision's, with the tiny tower's 56 pixels in place of 384.
LLAVA_VIDEO = dict(size={"height": 56, "width": 56}, resample=3, rescale_factor=1 / 255, do_pad=True, **SIGLIP)
LLAVA_IMAGE = dict(LLAVA_VIDEO, image_grid_pinpoints=[[56, 56], [56, 112]])
# Qwen3-VL's limits are for a whole video, and others for images; a frame gets 768 tokens of 32 x 32 pixels at most.
QWEN3_IMAGE = dict(size={"shortest_edge": 65536, "longest_edge": 16777216}, resample=3, **SIGLIP)
QWEN3_VIDEO = dict(QWEN3_IMAGE, size={"shortest_edge": 4096, "longest_edge": 25165824}, fps=2)
# The tiny towers' 64 pixels in place of 336, 448 and 384.
NEXT = dict(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, do_center_crop=True, resample=3, **CLIP)
INTERN = dict(size={"height": 64, "width": 64}, crop_size=None, resample=3, max_patches=12, **CLIP)
SMOL_SAMPLING = dict(fps=1, max_frames=64, video_size={"longest_edge": 96})
SMOL = dict(
    size={"longest_edge": 72}, max_image_size={"longest_edge": 64}, resample=1, do_image_splitting=True, **SIGLIP
)
SMOL |= dict(video_sampling=SMOL_SAMPLING)
TEXT_ONLY = "{% for m in messages %}<im_start> {{ m['role'] }} {{ m['content'] }} <im_end> {% endfor %}"


def layouts(image: dict[str, Any], video: dict[str, Any], first: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Which files a family's checkpoints had at first, and had when saved again later."""
    return {
        "first": first,
        "saved by 4.5x": {"preprocessor_config.json": image, "video_preprocessor_config.json": video},
        "saved by 5": {"processor_config.json": {"image_processor": image, "video_processor": video}},
    }


ONE, TWO = "preprocessor_config.json", "video_preprocessor_config.json"
QWEN_FILES = layouts(
    dict(QWEN_IMAGE, **QWEN_NESTED), dict(QWEN_NESTED, min_frames=4, max_frames=768), {ONE: QWEN_IMAGE}
)
LLAVA_FIRST = {
    ONE: LLAVA_IMAGE,
    "video_processor/preprocessor_config.json": LLAVA_VIDEO,
    "processor_config.json": {"num_image_tokens": 729, "processor_class": "LlavaOnevisionProcessor"},
}
# family -> layout -> file -> content, for each way in which a family's checkpoints have been laid out
FILES: dict[str, dict[str, dict[str, Any]]] = {
    "qwen2_vl": QWEN_FILES,
    "qwen2_5_vl": QWEN_FILES,
    "qwen3_vl": layouts(QWEN3_IMAGE, QWEN3_VIDEO, {ONE: QWEN3_IMAGE, TWO: QWEN3_VIDEO}),
    "llava_onevision": layouts(LLAVA_IMAGE, LLAVA_VIDEO, LLAVA_FIRST),
    "llava_next_video": layouts(NEXT, NEXT, {ONE: NEXT, "processor_config.json": {"patch_size": 14}}),
    "internvl": layouts(INTERN, INTERN, {ONE: INTERN, TWO: INTERN, "processor_config.json": {"image_seq_length": 256}}),
    "smolvlm": layouts(SMOL, SMOL, {ONE: SMOL, "processor_config.json": {"image_seq_len": 81}}),
}
LAYOUTS = {(family, layout): files for family, named in FILES.items() for layout, files in named.items()}
PIXELS = {  # what they come to
    "qwen2_vl": Pixels(size={"shortest_edge": 3136, "longest_edge": 768 * 28 * 28}),
    "qwen2_5_vl": Pixels(size={"shortest_edge": 3136, "longest_edge": 768 * 28 * 28}),
    "qwen3_vl": Pixels.of(SIGLIP | {"size": {"shortest_edge": 1024, "longest_edge": 768 * 32 * 32}}),
    "llava_onevision": Pixels.of(SIGLIP | {"size": {"height": 56, "width": 56}}),
    "llava_next_video": Pixels(size={"shortest_edge": 64}, crop=(64, 64)),
    "internvl": Pixels(size={"height": 64, "width": 64}),
    "smolvlm": Pixels.of(
        SIGLIP | {"size": {"longest_edge": 72}, "resample": 1, "max_image_size": {"longest_edge": 64}}
    ),
}


def write(folder: Path, file: str, content: Any) -> None:
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))


def read(folder: Path, file: str) -> dict[str, Any]:
    return json.loads((folder / file).read_text())


def age_config(folder: Path) -> None:
    """Rewrite config.json as the first releases have it: Qwen's flat, the rotary numbers under their old names."""
    config = read(folder, "config.json")
    config["torch_dtype"] = config.pop("dtype")
    text = config["text_config"]
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope["rope_theta"]
    if config["model_type"] == "qwen3_vl":
        text["rope_scaling"] = {k: rope[k] for k in ("rope_type", "mrope_section")} | {"mrope_interleaved": True}
    elif "mrope_section" in rope:
        text["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
        del config["text_config"]
        config = {**text, **config}
        config["vision_config"]["in_chans"] = config["vision_config"].pop("in_channels")
    write(folder, "config.json", config)


def save(folder: Path, family: str, layout: str, seed: int = 0) -> Path:
    lm = build(family, seed=seed)
    lm.model.save_pretrained(folder, max_shard_size="300KB")
    lm.tokenizer.save_pretrained(folder)
    for file, content in LAYOUTS[family, layout].items():
        write(folder, file, content)
    if layout == "first":  # the processor's template lies in a file of its own, the tokenizer has the text model's
        age_config(folder)
        write(folder, "chat_template.json", {"chat_template": (folder / "chat_template.jinja").read_text()})
        (folder / "chat_template.jinja").unlink()
        write(folder, "tokenizer_config.json", {**read(folder, "tokenizer_config.json"), "chat_template": TEXT_ONLY})
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """A checkpoint in every layout; not to be changed."""
    return {key: save(tmp_path_factory.mktemp("checkpoint"), *key) for key in LAYOUTS}


@pytest.fixture
def folder(saved: dict[tuple[str, str], Path], tmp_path: Path) -> Path:
    """A checkpoint of Qwen2.5-VL in today's layout, to be damaged."""
    return shutil.copytree(saved["qwen2_5_vl", "saved by 4.5x"], tmp_path / "model")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a local folder was loaded over the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def answer(lm: pv.VideoLM) -> tuple[int, ...]:
    stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=60))
    stream.push(video(5), [0.0, 0.5, 1.0, 1.5, 2.5])
    stream.push(video(2, seed=1), [3.0, 3.5])
    return stream.ask("what is shown first ?", max_new_tokens=12).token_ids


@pytest.mark.parametrize(("family", "layout"), cases(FAMILIES, QWEN_FILES, fast=lambda f, n: f in (1, 3) or f % 3 == n))
def test_a_loaded_folder_is_the_model_that_was_saved(
    saved: dict[tuple[str, str], Path], family: str, layout: str
) -> None:
    path = saved[family, layout]
    shards = list(path.glob("model-*.safetensors"))
    assert len(shards) > 5 and len(set(read(path, "model.safetensors.index.json")["weight_map"].values())) == len(
        shards
    )
    original, loaded = build(family), pv.load(path, device="cpu")
    original.adapter.pixels = PIXELS[family]
    weights = loaded.model.state_dict()
    assert weights.keys() == original.model.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in original.model.state_dict().items())
    assert loaded.adapter.pixels == original.adapter.pixels and not loaded.model.training
    assert loaded.prompt.before("how") == original.prompt.before("how")
    assert loaded.prompt.after("what is first ?") == original.prompt.after("what is first ?")
    assert answer(loaded) == answer(original)
    assert answer(loaded) != answer(build(family, seed=1))  # the answer does depend on the weights


def test_no_name_is_the_built_in_model() -> None:
    lm = pv.load()
    assert lm.name == "built-in" and lm.adapter.pixels == pv.load(BUILTIN).adapter.pixels
    stored = load_file(BUILTIN / "model.safetensors")
    table = "model.embed_tokens.weight"
    assert torch.equal(lm.model.get_input_embeddings().weight, stored[table])


# -- preprocessing numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "layout"), LAYOUTS)
def test_mean_deviation_and_interpolation_come_from_the_video_file(
    saved: dict[tuple[str, str], Path], tmp_path: Path, family: str, layout: str
) -> None:
    path = shutil.copytree(saved[family, layout], tmp_path / "model")
    file, *inside = {
        ("llava_onevision", "first"): ["video_processor/preprocessor_config.json"],
        (family, "saved by 5"): ["processor_config.json", "video_processor"],
    }.get((family, layout), [TWO if TWO in LAYOUTS[family, layout] else ONE])
    content = read(path, file)
    entry = content[inside[0]] if inside else content
    entry.update(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.25, 2.0], resample=2)
    write(path, file, content)
    _, adapter = describe(path)
    white = torch.full((2, 56, 64, 3), 255, dtype=torch.uint8)
    values, _ = adapter.preprocess(white)
    # one pixel: of pictures [(1,) frames, 3, height, width], of Qwen's patches [patches, 3 * time * row * column]
    pixel = values[0].view(3, -1)[:, 0] if values.ndim == 2 else values.flatten(0, -4)[0, :, 0, 0]
    torch.testing.assert_close(pixel, torch.tensor([0.9 / 0.5, 0.8 / 0.25, 0.7 / 2.0]))
    noise = video(2, height=61, width=75)
    smooth, _ = adapter.preprocess(noise)
    entry["resample"] = 3
    write(path, file, content)
    sharp, _ = describe(path)[1].preprocess(noise)
    assert smooth.shape == sharp.shape and smooth.std() < 0.95 * sharp.std()  # bilinear blurs noise more than bicubic


def grid(adapter: Any, height: int = 1080, width: int = 1920) -> tuple[int, int, int]:
    """Visual tokens of two frames of Qwen2.5-VL, each of 16 x 16 pixels, and that the values are as many."""
    values, (t, h, w) = adapter.preprocess(torch.zeros(2, height, width, 3, dtype=torch.uint8))
    assert values.shape == (t * h * w * 4, 3 * 2 * 8 * 8)
    return t, h, w


@pytest.mark.parametrize("layout", ["first", "saved by 4.5x", "saved by 5"])
def test_limits_meant_for_images_are_capped(saved: dict[tuple[str, str], Path], layout: str) -> None:
    """1080 x 1920 fits into 12,845,056 pixels whole; the reference video pipeline allows 602,112."""
    _, adapter = describe(saved["qwen2_5_vl", layout])
    assert adapter.pixels.limits == (3136, 602112)
    # smart_resize by hand: sqrt(1080 * 1920 / 602112) = 1.8558; 1080 / 1.8558 = 581.9 -> 36 * 16, 1034.6 -> 64 * 16
    assert grid(adapter) == (1, 36, 64)


def test_limits_of_a_video_file_are_taken_as_they_are(folder: Path) -> None:
    limits = {"shortest_edge": 100352, "longest_edge": 3_000_000}
    write(folder, "video_preprocessor_config.json", {"size": limits, **CLIP})
    _, adapter = describe(folder)
    assert adapter.pixels.limits == (100352, 3_000_000)
    assert grid(adapter) == (1, 68, 120)  # 1080 x 1920 in multiples of 16: 1088 x 1920
    assert grid(adapter, 32, 32) == (1, 20, 20)  # 100352 / 32^2 = 98; sqrt(98) * 32 = 316.8 -> 320


def test_size_of_a_file_for_one_size(saved: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    path = shutil.copytree(saved["llava_onevision", "saved by 4.5x"], tmp_path / "model")
    write(path, "video_preprocessor_config.json", dict(LLAVA_VIDEO, size={"height": 40, "width": 48}))
    _, adapter = describe(path)
    assert adapter.preprocess(video(3))[0].shape == (1, 3, 3, 40, 48)


@pytest.mark.parametrize(
    ("limits", "size"),
    [
        (dict(), (64, 64)),  # 60 x 72 to the nearest multiples of 16; 72 / 16 = 4.5 rounds to even
        (dict(max_pixels=1600), (32, 32)),  # below the file's lower limit, which gives way: 36.5 x 43.8, rounded down
        (dict(min_pixels=20000), (144, 160)),  # 129.1 x 154.9, rounded up
        (dict(min_pixels=700_000), (768, 928)),  # above the file's upper limit, which gives way: 763.7 x 916.5
        (dict(min_pixels=7000, max_pixels=9000), (80, 96)),  # 76.4 x 91.7, rounded up
    ],
)
def test_limits_can_be_given(folder: Path, limits: dict[str, int], size: tuple[int, int]) -> None:
    lm = pv.load(folder, **limits)  # type: ignore[arg-type]
    assert grid(lm.adapter, 60, 72) == (1, size[0] // 16, size[1] // 16)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (dict(min_pixels=5000, max_pixels=4000), "min_pixels=5000 is above max_pixels=4000"),
        (dict(max_pixels=0), "max_pixels is 0"),
        (dict(min_pixels=1.5), "min_pixels is 1.5"),
        (dict(min_pixels=True), "min_pixels is True"),
    ],
)
def test_wrong_limits(folder: Path, limits: dict[str, Any], said: str) -> None:
    with pytest.raises(pv.ConfigError, match=said):
        pv.load(folder, **limits)


def test_limits_for_a_family_that_has_none(saved: dict[tuple[str, str], Path]) -> None:
    with pytest.raises(pv.ConfigError, match="'llava_onevision' resize every frame to one size"):
        pv.load(saved["llava_onevision", "first"], max_pixels=10000)


# -- arguments --------------------------------------------------------------------------------------------------------


DTYPES = {
    "auto": torch.float64,
    "float32": torch.float32,
    torch.bfloat16: torch.bfloat16,
    "bfloat16": torch.bfloat16,
}


@pytest.mark.parametrize(("family", "dtype"), cases(FAMILIES, DTYPES, fast=lambda f, d: f in (1, 3) or f % 2 == d))
def test_dtype(saved: dict[tuple[str, str], Path], family: str, dtype: Any) -> None:
    expected = DTYPES[dtype]
    lm = pv.load(saved[family, "first"], dtype=dtype)
    assert {parameter.dtype for parameter in lm.model.parameters()} == {expected}
    stream = lm.stream()
    stream.push(video(4), range(4))
    assert {layer.keys.dtype for layer in stream._state.cache.layers} == {expected}


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_attention(saved: dict[tuple[str, str], Path], family: str, attn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by which kernel runs."""
    lm = pv.load(saved[family, "first"], attn=attn)
    calls = []
    sdpa = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or sdpa(*a, **k)
    )
    lm.stream(pv.Pyramid(stages=1)).push(video(2), [0.0, 1.0])
    assert not calls if attn == "eager" else len(calls) >= lm.num_layers + 2  # two layers of vision


def test_device(folder: Path) -> None:
    assert pv.load(folder, device="meta").device == torch.device("meta")
    with pytest.raises(pv.ModelError, match="can't be put on 'nonsense'"):
        pv.load(folder, device="nonsense")
    with pytest.raises(pv.ConfigError, match="both device='cpu' and a device_map"):
        pv.load(folder, device="cpu", device_map="cpu")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(dict(dtype="float7"), "`dtype`"), (dict(attn="nonsense"), 'attn_implementation="nonsense"')],
)
def test_wrong_arguments(folder: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(pv.ModelError, match=said):
        pv.load(folder, **arguments)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nobody/such-a-model", "such-a-model", "no/such/folder", "./none", "/none/at/all"])
def test_unknown_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for call in (pv.load, describe):
        with pytest.raises(
            pv.ModelError, match=f"no usable model '{name}'.*Expected a local folder, a name on the hub"
        ):
            call(name)  # type: ignore[operator]


def first_shard(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[0]


def only_bin(folder: Path) -> None:
    for shard in folder.glob("model*"):
        shard.unlink()
    torch.save({"weight": torch.zeros(2)}, folder / "pytorch_model.bin")


def truncate(folder: Path) -> None:
    shard = first_shard(folder)
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


def lose_tensor(folder: Path) -> None:
    shard = first_shard(folder)
    tensors = load_file(shard)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, shard, metadata={"format": "pt"})


def misshape_tensor(folder: Path) -> None:
    shard = first_shard(folder)
    tensors = load_file(shard)
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name][1:].clone()}, shard, metadata={"format": "pt"})


def unlink(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def become(file: str, content: Any) -> Callable[[Path], None]:
    return lambda folder: write(folder, file, content)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def no_tokenizer(folder: Path) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()


DAMAGE = {
    "empty": (empty, "has no config.json"),
    "no config": (unlink("config.json"), "has no config.json"),
    "broken config": (become("config.json", "{"), "config.json' is not a valid JSON"),
    "no type": (become("config.json", {}), "`model_type`"),
    "llama": (become("config.json", {"model_type": "llama"}), "type 'llama' are not supported; expected one of: "),
    "unheard-of type": (become("config.json", {"model_type": "grumble"}), "model type `grumble`"),
    "only .bin": (only_bin, r"holds no \*.safetensors file; only safetensors weights are loaded"),
    "truncated shard": (truncate, "could not be loaded: Error while deserializing"),
    "missing shard": (lambda folder: first_shard(folder).unlink(), "could not be loaded: No such file.*model-00001-of"),
    "missing tensor": (lose_tensor, "do not fit its config: 1 tensors are missing or have another shape"),
    "tensor of another shape": (misshape_tensor, "do not fit its config: 1 tensors are missing or have another shape"),
    "no template": (unlink("chat_template.jinja"), "chat template can't render a video turn"),
    "broken template": (become("chat_template.jinja", "{% for m in "), "chat template can't render a video turn"),
    "text template": (
        become("chat_template.jinja", TEXT_ONLY.replace("m['content']", "''")),
        r"writes no <\|video_pad",
    ),
    "no tokenizer": (no_tokenizer, r"the tokenizer does not know <\|video_pad\|>"),
    "broken tokenizer": (become("tokenizer.json", "{"), "could not be loaded"),
    "broken preprocessor": (become("video_preprocessor_config.json", "{"), "video_preprocessor_config.json of .* JSON"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_folder(folder: Path, damage: str) -> None:
    pv.load(folder)
    harm, said = DAMAGE[damage]
    harm(folder)
    with pytest.raises(pv.ModelError, match=said) as raised:
        pv.load(folder)
    assert str(folder) in str(raised.value) or "the tokenizer" in str(raised.value) or "'llama'" in str(raised.value)


def test_no_preprocessor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    pv.load(folder)  # the video file is enough
    (folder / "video_preprocessor_config.json").unlink()
    for call in (pv.load, describe):
        with pytest.raises(pv.ModelError, match="has no preprocessing numbers; expected"):
            call(folder)  # type: ignore[operator]


def test_a_file_is_not_a_folder(folder: Path) -> None:
    with pytest.raises(pv.ModelError, match=r"config\.json' is a file; expected the folder"):
        pv.load(folder / "config.json")


@pytest.mark.filterwarnings("ignore:The following device_map keys:UserWarning")  # parameters beside modules
@pytest.mark.parametrize("family", cases(FAMILIES, fast=lambda f: f in (2, 4)))
def test_layers_left_on_disk(family: str, saved: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    """accelerate fetches a layer's weights when it runs; ranking, which uses them before that, must not miss them."""
    folder = saved[family, "saved by 5"]
    lm = pv.load(folder, device="cpu")
    decoder = lm.model.get_decoder()
    on_disk = set(decoder.layers[2:])
    places = {name: "disk" if module in on_disk else "cpu" for name, module in lm.model.named_modules()
              if module in on_disk or (name and not list(module.children()))}  # fmt: skip
    inside = tuple(f"{name}." for name, place in places.items() if place == "disk")
    places = {name: place for name, place in places.items() if not name.startswith(inside)}
    places |= {name: "cpu" for name, _ in lm.model.named_parameters() if name.rpartition(".")[0] not in places
               and not name.startswith(inside)}  # fmt: skip
    spread = pv.load(folder, device_map=places, offload_folder=str(tmp_path / "offloaded"))
    assert {parameter.device.type for parameter in spread.model.parameters()} == {"cpu", "meta"}
    assert answer(spread) == answer(lm)
    inputs, _, _ = full_prompt(lm, video(4), [0, 1, 2, 3], "what is shown ?")
    with torch.no_grad(), pv.pyramid_drop(lm.model), pv.pyramid_drop(spread.model):
        assert torch.equal(spread.model(**inputs).logits, lm.model(**inputs).logits)


def test_a_quantization_config_reaches_transformers(folder: Path) -> None:
    """It asks for its library, which is optional and not installed with the tests."""
    config = tf.BitsAndBytesConfig(load_in_8bit=True)
    with pytest.raises(pv.ModelError, match=r"8-bit quantization requires bitsandbytes: `pip install"):
        pv.load(folder, quantization_config=config)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (dict(trust_remote_code=True), "never run"),
        (dict(load_in_4bit=True), "BitsAndBytesConfig"),
        (dict(use_safetensors=False), "safetensors"),
        (dict(torch_dtype=torch.float32), "dtype"),
        (dict(no_such_argument=1), "no_such_argument"),
        (dict(device=5.5), "expected a name"),
        (dict(device_map="disk"), "disk"),
        (dict(device_map=["cpu"]), "device_map"),
        (dict(attn=5.5), "attn"),
        (dict(revision=5), "revision"),
        (dict(local_files_only="yes"), "local_files_only"),
        (dict(quantization_config=5.5), "quantization_config"),
        (dict(name=5), "hub"),
        (dict(name="a\0b"), "NUL"),
        (dict(name="\ud83d"), "file system"),
    ],
    ids=str,
)
def test_arguments_are_refused_before_weights_are_read(
    arguments: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("transformers.modeling_utils.PreTrainedModel._load_pretrained_model", read)
    with pytest.raises(pv.ConfigError, match=said):
        pv.load(**arguments)


@pytest.mark.parametrize("dtype", ["bf16", "half", torch.int8, torch.float8_e4m3fn, None, 16])
def test_a_wrong_dtype_says_which_there_are(dtype: Any) -> None:
    with pytest.raises(pv.ModelError, match="'auto' or 'float32' or 'float16' or 'bfloat16' or 'float64'"):
        pv.load(dtype=dtype)


def test_a_name_that_no_file_can_have_is_no_model() -> None:
    with pytest.raises(pv.ModelError):
        pv.load("x" * 5000)


LOADER = """
import sys
from threading import Thread
from transformers.utils import logging
from pdrop_video import load
from pdrop_video.models import progress
def mine(factory, args, kwargs):
    print("mine", kwargs.get("delay"), flush=True)
    return factory(*args, **kwargs)
assert logging.is_progress_bar_enabled()
if sys.argv[1] == "slow":
    progress.DELAY = 0.0
if sys.argv[1] == "mine":
    logging.set_tqdm_hook(mine)
loaded = []
threads = [Thread(target=lambda: loaded.append(load())) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(loaded) == 3
assert logging.is_progress_bar_enabled()
assert logging.set_tqdm_hook(None) is (mine if sys.argv[1] == "mine" else None)
"""


@pytest.mark.parametrize("how", ["fast", "slow", "mine"])
def test_a_bar_appears_only_where_loading_takes_long(how: str) -> None:
    """And what a program has set for bars is what it was, also if several threads load at once."""
    done = subprocess.run([sys.executable, "-c", LOADER, how], capture_output=True, text=True, check=True)
    assert ("Loading weights" in done.stderr) == (how == "slow")
    assert done.stdout.count("mine 3.0") == (3 if how == "mine" else 0)
