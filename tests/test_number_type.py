"""`dtype="auto"` on a CPU: the checkpoint's own type where the processor multiplies in it, else float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from families import FAMILIES, video

import pdrop_video as pv
from pdrop_video.models import number_type
from pdrop_video.models.number_type import NumberType, chosen, machine_memory, own_type


def processor(monkeypatch: pytest.MonkeyPatch, *can: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(can, True), raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in bfloat16, in several files as large ones are."""
    path = tmp_path_factory.mktemp("number_type")
    model, words, preprocessor = FAMILIES["qwen2_5_vl"]()
    model.to(torch.bfloat16).save_pretrained(path, max_shard_size="100KB")
    words.save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("own", "can", "name"),
    [
        (torch.bfloat16, ["avx2"], "float32"),
        (torch.bfloat16, ["avx2", "avx512_f", "avx512_bw"], "float32"),
        (torch.bfloat16, ["avx2", "avx512_f", "avx512_bf16"], "auto"),
        (torch.bfloat16, ["amx_bf16"], "auto"),
        (torch.bfloat16, ["neon"], "float32"),
        (torch.bfloat16, ["neon", "bf16"], "auto"),
        (torch.float16, ["avx512_bf16"], "float32"),
        (torch.float16, ["avx512_fp16"], "auto"),
        (torch.float32, ["avx2"], "auto"),
        (torch.float64, ["avx2"], "auto"),
        (None, ["avx2"], "auto"),
    ],
    ids=str,
)
def test_asks_the_processor(own: Any, can: list[str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, *can)
    assert chosen(own, lambda: 0).name == name


@pytest.mark.parametrize(
    ("maker", "can", "name"),
    [
        ("Intel Xeon", ["avx512_bf16"], "float32"),
        ("Intel Xeon", ["avx512_bf16", "amx_bf16"], "auto"),
        ("AMD EPYC", ["avx512_bf16"], "auto"),
    ],
)
def test_vectors_alone_are_not_enough_on_intel(
    maker: str, can: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"cpu_name": maker} | dict.fromkeys(can, True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    found = chosen(torch.bfloat16, lambda: 0)
    assert found.name == name
    assert ("slower" in found.why) == (name == "float32")


def test_an_older_torch_cannot_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert chosen(torch.bfloat16, lambda: 0) == NumberType("auto", "the checkpoint's own")


def test_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch)
    monkeypatch.setattr(number_type, "machine_memory", lambda: 100.0)
    assert chosen(torch.bfloat16, lambda: 25).name == "float32"
    assert chosen(torch.bfloat16, lambda: 26).name == "auto"
    assert "half of the memory" in chosen(torch.bfloat16, lambda: 26).why
    assert machine_memory() > 2**20


@pytest.mark.parametrize("can", [(), ("avx512_bf16",)], ids=["slow", "fast"])
def test_load(folder: Path, can: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are the checkpoint's, to the bit, in either type; the answer says which."""
    processor(monkeypatch, *can)
    lm = pv.load(folder, device="cpu")
    plain = tf.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).state_dict()
    assert lm.model.dtype == (torch.bfloat16 if can else torch.float32)
    for name, weights in lm.model.state_dict().items():
        assert plain[name].dtype == torch.bfloat16
        assert torch.equal(weights, plain[name].to(weights.dtype)), name
    expected = "bfloat16: the checkpoint's own" if can else "float32: this processor has no instructions for"
    assert lm.number_type.startswith(expected)
    stream = lm.stream(pv.Pyramid(stages=1))
    stream.push(video(2), [0.0, 0.5])
    assert stream.ask("what is shown ?", max_new_tokens=1).timings.dtype == lm.number_type


def test_memory_holds_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is that of all the checkpoint's files."""
    processor(monkeypatch)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    monkeypatch.setattr(number_type, "machine_memory", lambda: 4.0 * size - 1)
    assert pv.load(folder, device="cpu").model.dtype == torch.bfloat16
    monkeypatch.setattr(number_type, "machine_memory", lambda: 4.0 * size)
    assert pv.load(folder, device="cpu").model.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16, "float64"])
def test_what_was_asked_for_holds(folder: Path, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch)
    lm = pv.load(folder, device="cpu", dtype=dtype)
    assert str(lm.model.dtype).removeprefix("torch.") == str(dtype).removeprefix("torch.")
    assert lm.number_type.endswith("as asked for")


def test_what_others_place_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch)
    assert pv.load(folder, device_map="cpu").model.dtype == torch.bfloat16
    assert pv.load(folder, device="meta").model.dtype == torch.bfloat16


def test_quantised_weights_have_no_type_to_choose() -> None:
    config = tf.Qwen2_5_VLConfig(dtype="bfloat16")
    assert own_type(config) == torch.bfloat16
    config.quantization_config = {"quant_method": "bitsandbytes"}
    assert own_type(config) is None
