"""Derived adapters against transformers' own processors and models, which need torchvision: `make test-processors`."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import derived_hybrid  # noqa: F401  # which adds to the list of the next
import pytest
import torch
from derived import PARTS, parts, saved
from families import video
from hybrids import exact_linear_attention
from layered import layered_stack, recorded
from test_exact import next_logits
from test_layer_kinds import tensors
from torch import Tensor
from transformers import AutoConfig, AutoProcessor
from transformers.video_utils import VideoMetadata
from typer.testing import CliRunner

import pdrop_video as pv
from pdrop_video.cli import app
from pdrop_video.models import ADAPTERS, Adapter, Pixels, Place, describe
from pdrop_video.models.derived import Derived, derive, prove
from pdrop_video.models.facts import REFUSED, UNRUN
from pdrop_video.models.molmo2 import Molmo2
from pdrop_video.pyramid.decoder import stack_of

pytestmark = pytest.mark.processors

QUESTION = "what is shown first ?"
TENTHS = [0, 5, 10, 15, 22, 30, 75, 76, 90]
"""Irregular times of nine frames, in tenths of a second."""
REASONS = {
    "smolvlm": r"in front of one step stands .* series of one frames.* of two .* series of two frames",
    "molmo2": r"the embeddings that enter its decoder, made step by step, differ from those of its own forward",
    "gemma4_unified": r"visual tokens attend to visual tokens behind them, .*\(tokens\)",
    "minicpmv4_7": r"the ids of the video are .*\(positions\)",
}
if "kimi_k25" in UNRUN:
    REASONS |= dict.fromkeys(UNRUN, r"the model's own forward fails on what its processor makes of a video \(")
"""Families with a file of their own that a derived adapter can't serve: what stands in front of a video says how many
frames it has; the patches of a token are numbered through all frames of a video, and the model's mask lets visual
tokens see what comes, as the next one's does (the files of both say which of them a stream can let do so); marks around
a frame have places on its canvas of positions; until transformers 5.24 the model's own forward, against which a derived
adapter is proved, fails on videos."""
NUMBERED = ("minicpmv4_6",)
"""Families whose processor numbers a video (``<image_id>0</image_id>``) unless told not to, as their authors run it."""
UNPAIRED = ("cosmos3_edge",)
"""Families whose processor puts its marks in place of the template's pair, where the others' leave it around them."""
SHAPELESS = ("gemma4",)
"""Families whose processor does not say how many rows and columns of tokens a step has, but how many tokens."""
OWN = [name for name in PARTS if name in ADAPTERS and name not in REASONS]
ALONE = [name for name in PARTS if name not in ADAPTERS and name not in REFUSED and name not in REASONS]
EXPERTS = dict(experts_implementation="eager")  # the default one computes no float64


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: saved(name, tmp_path_factory.mktemp("checkpoint")) for name in PARTS}


def whole(folder: Path, frames: Tensor, tenths: list[int]) -> dict[str, Any]:
    """The model's inputs for one turn, as the checkpoint's processor makes them of a whole video."""
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "video"}, {"type": "text", "text": QUESTION}]
    turn = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    metadata = VideoMetadata(total_num_frames=len(frames), fps=10.0, frames_indices=[*tenths])
    videos = dict(videos=[frames.permute(0, 3, 1, 2)], video_metadata=[metadata], return_metadata=True)
    more = {"return_mm_token_type_ids": True} if "mm_token_type_ids" in processor.model_input_names else {}
    made = processor(text=[text], do_sample_frames=False, return_tensors="pt", **videos, **more)
    return {name: value for name, value in made.items() if isinstance(value, Tensor)}


def of_transformers(lm: pv.VideoLM, inputs: dict[str, Any]) -> Tensor:
    """Logits of the first token of an answer, by one unmodified forward."""
    given = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    with torch.no_grad():
        return lm.model(**given, use_cache=False).logits[0, -1].double()  # which Nemotron-H casts


def exact(family: str) -> float:
    """Some routers and Mamba compute in float32, whatever the model's type."""
    return {"nemotron_h_omni": 2e-4, "kimi_k25": 1e-6}.get(family, 1e-6 if "moe" in family else 1e-9)


@pytest.fixture(autouse=True)
def _in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    exact_linear_attention(monkeypatch)


def loaded(folders: dict[str, Path], family: str) -> pv.VideoLM:
    return pv.load(
        folders[family],
        device="cpu",
        **(EXPERTS if "moe" in family or "kimi" in family or "nemotron" in family else {}),
    )


@pytest.mark.parametrize("family", ALONE)
def test_nothing_dropped_equals_one_forward(folders: dict[str, Path], family: str) -> None:
    """Of the unmodified model on what its own processor makes of the whole video, however it is cut."""
    lm = loaded(folders, family)
    frames = video(9, height=96, width=120)  # not fewer columns than steps: see `MRopePositions`
    want = of_transformers(lm, whole(folders[family], frames, TENTHS))
    for size in (1, 2, 5, 9):
        stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
        for first in range(0, 9, size):
            stream.push(frames[first : first + size], [t / 10 for t in TENTHS[first : first + size]])
        torch.testing.assert_close(next_logits(stream, QUESTION), want, atol=exact(family), rtol=0)
    other = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
    other.push(frames.flip(0), [t / 10 for t in TENTHS])
    assert (next_logits(other, QUESTION) - want).abs().max() > 1e-3


PYRAMIDS = (
    pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25)),  # which move to layers that rank
    pv.Pyramid(layers=(2, 5), ratios=(0.4, 0.2), scorer="relevance"),
)


@torch.no_grad()
def told(lm: pv.VideoLM, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the unmodified model hands to its decoder for a whole prompt."""
    seen: dict[str, Any] = {}
    stack = stack_of(lm.model.get_decoder())
    hook = stack.register_forward_pre_hook(lambda _, __, given: seen.update(given), with_kwargs=True)
    of_transformers(lm, inputs)
    hook.remove()
    return seen


@pytest.mark.parametrize("pyramid", PYRAMIDS)
@pytest.mark.parametrize("room", [None, 3])
@pytest.mark.parametrize("family", ALONE)
@torch.no_grad()
def test_drops_and_evictions_equal_what_each_layer_saw(
    folders: dict[str, Path], family: str, room: int | None, pyramid: pv.Pyramid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unmodified layers, on what the unmodified model hands to its decoder."""
    lm = loaded(folders, family)
    frames, seconds = video(9, height=96, width=120), [t / 10 for t in TENTHS]
    before, after = len(lm.prompt.before()), len(lm.prompt.after(""))
    step = len(lm.adapter.look(frames[:2], (60.0, 60.5), first=9))
    record = recorded(monkeypatch)
    stream = lm.stream(pyramid, pv.Memory(tokens=None if room is None else before + after + room * step))
    for first, last in ((0, 4), (4, 6), (6, 9)):
        stream.push(frames[first:last], seconds[first:last])
    got, inputs = next_logits(stream, QUESTION), whole(folders[family], frames, TENTHS)
    given, stack = told(lm, inputs), stream.loop.text
    embeds, positions = given["inputs_embeds"], given.get("position_ids")
    if positions is None:
        positions = torch.arange(embeds.shape[1])[None]
    deep = given.get("deepstack_visual_embeds")
    if deep is not None:
        visual = given["visual_pos_masks"][..., None]
        deep = [torch.zeros_like(embeds).masked_scatter(visual, features) for features in deep]
    hidden = layered_stack(
        stack,
        embeds,
        positions[-3:] if positions.ndim == 3 else positions,
        record,
        before,
        marks=given.get("moe_mm_token_type_ids"),
        deepstack=deep,
    )
    scale = getattr(lm.model.config.get_text_config(), "logit_scale", None) or 1
    head = lm.model.get_output_embeddings() or lm.model.language_model.lm_head
    want = head(stream.loop.decoder.norm(hidden[:, -1:]))[0, 0] * scale
    torch.testing.assert_close(got, want, atol=exact(family), rtol=0)
    assert (got - of_transformers(lm, inputs)).abs().max() > 1e-3


@pytest.mark.parametrize("family", ALONE)
def test_saved_resumed_and_asked_without_a_trace(folders: dict[str, Path], family: str, tmp_path: Path) -> None:
    lm = loaded(folders, family)
    streams = [lm.stream(memory=pv.Memory(tokens=200))]
    for i in range(4):
        if i == 2:
            streams[0].save(tmp_path / "a.pdrop")
            streams.append(lm.resume(tmp_path / "a.pdrop"))
        for stream in streams:
            stream.push(video(4, seed=i), [2.0 * i + t / 2 for t in range(4)])
        streams[0].ask(QUESTION, max_new_tokens=2)
    assert all(torch.equal(one, other) for one, other in zip(*map(tensors, streams), strict=True))
    assert torch.equal(*(next_logits(stream, QUESTION) for stream in streams))


def placed(adapter: Adapter, chunks: list[Any]) -> Tensor:
    """Position ids of a prompt of three, chunks, and two tokens behind."""
    ids, place = adapter.positions.text(3, Place())
    made = [ids]
    for chunk in chunks:
        ids, place = adapter.place(chunk, place)
        made.append(ids)
    return torch.cat([*made, adapter.positions.text(2, place)[0]], -1)


def derived_of(folder: Path) -> type[Derived]:
    """What would serve a checkpoint if its family had no file of its own."""
    return derive(str(folder), AutoConfig.from_pretrained(folder), {})


@pytest.mark.parametrize("family", OWN)
def test_a_derived_adapter_is_the_familys_own(folders: dict[str, Path], family: str) -> None:
    """Tokens, text and positions of the families that have a file of their own, over two chunkings."""
    own = pv.load(folders[family], device="cpu")
    kind = derived_of(folders[family])
    derived = kind(own.model, kind.per_frame(own.adapter.pixels), kind.scribe.tokenizer)
    prove(derived)
    step = derived.frames_per_step
    assert step == own.adapter.frames_per_step and derived.fps > 0
    frames, seconds = video(7), tuple(0.5 * i for i in range(7))
    with torch.no_grad():
        torch.testing.assert_close(derived.closing(), own.adapter.closing(), atol=1e-5, rtol=0)
        for cut in (7, 2 * step):
            parts_ = [p for p in ((0, cut), (cut, 7)) if p[0] < p[1]]
            got, want = (
                [adapter.look(frames[a:b], seconds[a:b], a // step) for a, b in parts_]
                for adapter in (derived, own.adapter)
            )
            for ours, theirs in zip(got, want, strict=True):
                assert (ours.steps, ours.places, ours.lead) == (theirs.steps, theirs.places, theirs.lead)
                assert ours.size == theirs.size or family in SHAPELESS
                assert torch.equal(ours.visual, theirs.visual)
                for a, b in zip((ours.embeds, *ours.deepstack), (theirs.embeds, *theirs.deepstack), strict=True):
                    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
            assert torch.equal(placed(derived, got), placed(own.adapter, want))
    prompt = derived.prompt(kind.scribe.tokenizer)
    before, after = prompt.before("how"), prompt.after(QUESTION)
    if family in NUMBERED:
        number = own.adapter.ids("<image_id>0</image_id>")
        assert before[-len(number) :] == number
        before = before[: -len(number)]
    # since transformers 5.10 one more pair is around all
    if own.adapter.placeholder.startswith("<|vision_start|>") and family not in UNPAIRED:
        start, end = map(prompt.tokenizer.convert_tokens_to_ids, ("<|vision_start|>", "<|vision_end|>"))
        assert before.pop() == start and after.pop(0) == end
    assert (before, after) == (own.prompt.before("how"), own.prompt.after(QUESTION))


def test_molmo2s_marked_tokens_are_its_processors(folders: dict[str, Path]) -> None:
    """Which see each other; with one frame a stream is the unmodified forward on what the processor makes."""
    lm, frames = pv.load(folders["molmo2"], device="cpu"), video(1)
    inputs = whole(folders["molmo2"], frames, [0])
    chunk, start = lm.adapter.look(frames, (0.0,)), len(lm.prompt.before())
    kinds = inputs["mm_token_type_ids"][0, start : start + len(chunk)] == 1
    assert isinstance(lm.adapter, Molmo2) and chunk.ids is not None
    assert torch.equal(lm.adapter.bound(chunk.ids), kinds) and kinds.sum() == chunk.visual.sum() + 2
    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
    stream.push(frames, [0.0])
    torch.testing.assert_close(next_logits(stream, QUESTION), of_transformers(lm, inputs), atol=1e-5, rtol=0)


def test_numbers_of_frames_go_on(folders: dict[str, Path]) -> None:
    """InternVL's processor numbers the frames of what it is given from one; a stream counts on."""
    adapter = derived_of(folders["internvl"])(None, Pixels())
    assert adapter.glue(0, 3.0) == ("Frame1: <img>", "</img>")
    assert adapter.glue(122, 3.0) == ("\nFrame123: <img>", "</img>")


@pytest.mark.parametrize("family", REASONS)
def test_what_a_derived_adapter_cant_serve_is_refused_with_the_reason(folders: dict[str, Path], family: str) -> None:
    with pytest.raises(pv.ModelError, match=REASONS[family]):
        kind = derived_of(folders[family])
        model, processor = parts(family)
        prove(kind(model, Pixels(), processor.tokenizer))


@pytest.fixture
def lm(folders: dict[str, Path]) -> pv.VideoLM:
    """A model to be damaged."""
    return pv.load(folders["cohere_compass"], device="cpu")


def broken_tokens(adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    features = adapter.model.model.get_video_features

    @functools.wraps(features)
    def mixing(*args: Any, **kwargs: Any) -> Any:
        """Every video's features depend on how many videos there are."""
        seen = features(*args, **kwargs)
        pooled = seen.pooler_output
        seen.pooler_output = [each * len(pooled) for each in pooled]
        return seen

    monkeypatch.setattr(adapter.model.model, "get_video_features", mixing)


def broken_positions(adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    index = adapter.model.model.get_rope_index

    def shifted(*args: Any, **kwargs: Any) -> Any:
        ids, deltas = index(*args, **kwargs)
        return ids * 2, deltas

    monkeypatch.setattr(adapter.model.model, "get_rope_index", shifted)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (broken_tokens, r"the embeddings that enter its decoder, made step by step, differ .*\(tokens\)"),
        (broken_positions, r"the ids of the video are .*\(positions\)"),
    ],
)
def test_other_tokens_or_positions_are_refused(
    lm: pv.VideoLM, harm: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = lm.adapter
    assert isinstance(adapter, Derived)
    prove(adapter)
    harm(adapter, monkeypatch)
    with pytest.raises(pv.ModelError, match=said):
        prove(adapter)


def test_another_text_is_refused(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that writes a word more where there are more than three steps."""
    folder = folders["cohere_compass"]
    kind = type(AutoProcessor.from_pretrained(folder))
    replace = kind.replace_video_token

    def more(processor: Any, made: Any, video_idx: int, **kwargs: Any) -> str:
        text = replace(processor, made, video_idx, **kwargs)
        return text.replace("<", "shown <", 1) if len(made["video_grid_thw"]) == 1 < text.count("seconds") - 2 else text

    monkeypatch.setattr(kind, "replace_video_token", more)
    with pytest.raises(pv.ModelError, match=r"of a video of 1 step.s. it writes .* where the same steps .*shown"):
        pv.load(folder)


def test_a_processor_that_fails_is_no_traceback(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> str:
        raise KeyError("num_frames")

    kind = type(AutoProcessor.from_pretrained(folders["cohere_compass"]))
    monkeypatch.setattr(kind, "replace_video_token", fail)
    with pytest.raises(pv.ModelError, match=r"it fails on a small one \(KeyError: 'num_frames'\.\)"):
        pv.load(folders["cohere_compass"])


def test_a_visual_token_that_sees_what_comes_is_refused(lm: pv.VideoLM) -> None:
    assert isinstance(lm.adapter, Derived)
    decoder = lm.model.get_decoder()
    forward = decoder.layers[0].forward

    def both_ways(module: Any, args: Any, kwargs: Any) -> Any:
        tokens = args[0].shape[1]
        return args, {**kwargs, "attention_mask": torch.ones(1, 1, tokens, tokens, dtype=torch.bool)}

    hook = decoder.layers[0].register_forward_pre_hook(both_ways, with_kwargs=True)
    try:
        with pytest.raises(pv.ModelError, match="visual tokens attend to visual tokens behind them"):
            prove(lm.adapter)
    finally:
        hook.remove()
    assert decoder.layers[0].forward == forward


def test_a_compressed_video_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """VideoLLaMA3's processor leaves out what stands still since the frame before, which may lie in another chunk."""
    folder = shutil.copytree(folders["video_llama_3"], tmp_path / "model")
    file = folder / "processor_config.json"
    file.write_text(file.read_text().replace('"use_token_compression": false', '"use_token_compression": true'))
    with pytest.raises(pv.ModelError, match="can't be written step by step by the checkpoint's own processor"):
        derived_of(folder)


def test_a_processor_that_cuts_large_frames_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """Small frames, with which all else is tried, are never cut."""
    folder = shutil.copytree(folders["minicpm_ocr"], tmp_path / "model")
    file = folder / "processor_config.json"
    content = json.loads(file.read_text())
    content["video_processor"] |= dict(slice_mode=True, scale_resolution=448)
    file.write_text(json.dumps(content))
    with pytest.raises(pv.ModelError, match=r"a step has .* runs of visual tokens, with text between them"):
        pv.load(folder, device="cpu")


def test_a_missing_processor_is_said_before_weights_are_read(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("transformers.modeling_utils.PreTrainedModel._load_pretrained_model", read)
    folder = shutil.copytree(folders["cohere_compass"], tmp_path / "model")
    (folder / "processor_config.json").write_text('{"processor_class": "CohereCompassProcessor"')
    with pytest.raises(pv.ModelError, match=r"own processor, and that of .* can't be loaded"):
        pv.load(folder)


def test_limits_for_a_processor_that_takes_none(folders: dict[str, Path]) -> None:
    with pytest.raises(pv.ConfigError, match="'minicpm_ocr' have a processor that takes no limits of pixels"):
        pv.load(folders["minicpm_ocr"], max_pixels=10000)


def test_info_needs_no_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["hyperclovax_vision_v2"], tmp_path / "model")
    for file in folder.glob("*.safetensors"):
        file.unlink()
    config, adapter = describe(folder)
    assert config.model_type == "hyperclovax_vision_v2" and isinstance(adapter, Derived)
    assert adapter.frames_per_step == 2
    assert adapter.grid(64, 96) == (4, 6)  # of 16 x 16 pixels
    done = CliRunner().invoke(app, ["info", str(folder), "--height", "64", "--width", "96"])
    assert done.exit_code == 0 and "24 (4 x 6)" in done.stdout


@pytest.mark.parametrize("family", ["cohere_compass", "lfm3_vl"])
def test_limits_of_a_whole_video_are_made_those_of_a_step(
    folders: dict[str, Path], family: str, tmp_path: Path
) -> None:
    lm = pv.load(folders[family], device="cpu")
    step, most = lm.adapter.frames_per_step, 768 * 16**2
    assert lm.adapter.pixels.limits == (64, min(2**20 // step, most))
    # 1080 x 1920 in at most 768 tokens of 16 x 16 pixels a frame, whatever the number of frames
    assert 700 < (tokens := lm.adapter.grid(1080, 1920))[0] * tokens[1] <= 768
    for frames in (step, 4 * step):
        assert lm.adapter.preprocess(video(frames, height=1080, width=1920))[1] == (frames // step, *tokens)
    small = pv.load(folders[family], device="cpu", max_pixels=4096)
    folder = shutil.copytree(folders[family], tmp_path / "model")  # without limits of its own
    content = json.loads((folder / "processor_config.json").read_text())
    own = content["video_processor"].pop("size")
    (folder / "processor_config.json").write_text(json.dumps(content))
    limits = type(lm.adapter.scribe.videos).size["longest_edge"]
    assert own["longest_edge"] != limits
    assert describe(folder)[1].pixels.limits[1] == min(limits // step, most)
    assert small.adapter.grid(1080, 1920)[0] * small.adapter.grid(1080, 1920)[1] <= 16
