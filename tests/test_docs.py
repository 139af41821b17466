"""What CONTRIBUTING, the page on benchmarks and the docstrings show is true; `test_readme.py` has the other pages."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers as tf
from families import build, tokenizer, video
from reference import full_prompt, masked_forward, recorded, stream_masks
from test_exact import QUESTION, next_logits

import pdrop_video as pv
from eval import run
from eval.runner.config import configured
from eval.tasks import TASKS
from pdrop_video.gate import GATES
from pdrop_video.models import ADAPTERS, Pixels
from pdrop_video.reduce import REDUCERS

ROOT = Path(__file__).parent.parent


def shown(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """The module `name` of the package, as CONTRIBUTING writes it out."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(rf"    # {re.escape(name.replace('.', '/'))}\.py\n(.*?)\n(?=\S)", text, re.DOTALL)
    assert block is not None
    module = ModuleType(name)
    module.__dict__.update({"__package__": name.rpartition(".")[0]})
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look their module up
    exec(compile(textwrap.dedent(block[1]), name, "exec"), module.__dict__)
    return module


def test_the_worked_example_is_a_working_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    outlier = shown(monkeypatch, "pdrop_video.pyramid.scorers.outlier").Outlier()
    stream = build("qwen2_5_vl").stream(pv.Pyramid(layers=(1,), ratios=(0.25,), scorer=outlier))
    frames = torch.full((4, 60, 72, 3), 90, dtype=torch.uint8)
    frames[:, :20, :20] = video(1)[0, :20, :20]  # one corner is unlike all else
    stream.push(frames, [0, 1, 2, 3])
    table = stream.held(-1)
    assert (0, 0) in {(int(r), int(c)) for r, c in zip(table.row, table.column, strict=True)}


def test_the_worked_example_is_a_working_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The eighth family, with what CONTRIBUTING says and no more, passes the proofs that the seven pass."""
    llava = shown(monkeypatch, "pdrop_video.models.llava").Llava
    assert llava.model_types[0] not in ADAPTERS
    sibling = build("llava_next_video").model.config
    config = tf.LlavaConfig(vision_config=sibling.vision_config, text_config=sibling.text_config, image_token_index=190)
    torch.manual_seed(0)
    model, words = tf.LlavaForConditionalGeneration(config).double().eval(), tokenizer(["<image>"], "")
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    lm = pv.VideoLM(model, llava(model, Pixels(), words), llava.prompt(words), "llava")
    frames, seconds = video(6), [0.5 * i for i in range(6)]
    inputs, prefix, _ = full_prompt(lm, frames, seconds, QUESTION)
    for pyramid, tokens in ((pv.Pyramid(stages=1), None), (pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25)), 220)):
        with monkeypatch.context() as patch:
            snapshots = recorded(patch, tokens)
            stream = lm.stream(pyramid, pv.Memory(tokens=tokens))
            for first, last in ((0, 1), (1, 4), (4, 6)):
                stream.push(frames[first:last], seconds[first:last])
        allowed = stream_masks(snapshots, prefix, inputs["input_ids"].shape[1], snapshots[-1])
        want = masked_forward(lm, inputs, None if tokens is None else allowed)[-1]
        torch.testing.assert_close(next_logits(stream), want, atol=1e-9, rtol=0)


def test_the_worked_examples_before_the_layers_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reducer keeps what its formula says, chunk by chunk; the gate counts on from push to push."""
    unlike = shown(monkeypatch, "pdrop_video.reduce.unlike").Unlike
    every = shown(monkeypatch, "pdrop_video.gate.every").Every
    lm = build("qwen2_5_vl")
    monkeypatch.setitem(REDUCERS, "unlike", unlike())
    monkeypatch.setitem(GATES, "every", every())
    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), reducer="unlike:keep=0.3")
    frames, seen = video(8), torch.zeros(64, dtype=torch.float64)
    for first in (0, 4):
        times = tuple(map(float, range(first, first + 4)))
        features = lm.adapter.look(frames[first : first + 4], times).embeds
        seen = seen + features.sum(0)
        unlikeness = 1 - features @ seen / features.norm(dim=-1) / seen.norm()
        stream.push(frames[first : first + 4], times)
        table = stream.held()
        here = table.visual & (table.seconds >= first)
        place = (table.step[here] - first // 2) * 9 + table.row[here] * 3 + table.column[here]
        assert place.tolist() == unlikeness.topk(5).indices.sort().values.tolist()
    assert stream.status.carried_bytes == {"reducer": 8 * 64}
    gated = build("llava_onevision").stream(gate=every(3))
    for first, count in ((0, 2), (2, 5), (7, 1)):
        gated.push(video(count), [float(first + i) for i in range(count)])
    held = gated.held()
    assert held.seconds[held.visual].unique().tolist() == [0.0, 3.0, 6.0]
    assert held.until[held.visual].unique().tolist() == [2.0, 5.0, 7.0]


@pytest.mark.parametrize(
    "module", ["pyramid.schedule", "costs.decoder", "costs.stream", "costs.way", "models.positions", "stream.recipe"]
)
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"pdrop_video.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_page_on_benchmarks_names_every_task_and_no_option_that_is_not_there() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    table = page.split("## Tasks")[1].split("\n## ")[0]
    first = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(.+?)`", "".join(first))) == set(TASKS)
    lines = [line for line in page.splitlines() if re.match(r"    [^#]|\|", line)]
    options = set(re.findall(r"(?<=[ `[])--([a-z-]+)", "\n".join(lines))) - {"margin", "nproc-per-node"}
    assert {option.replace("-", "_") for option in options} <= {*inspect.signature(run.main).parameters, "ray"}
    assert len(options) > 15


def test_the_page_on_benchmarks_has_a_working_file_of_settings(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    block = re.search(r"    # run\.yaml:.*\n((?:    .*\n)+)", page)
    assert block is not None
    (tmp_path / "run.yaml").write_text(textwrap.dedent(block[1]), encoding="utf-8")
    config = configured(tmp_path / "run.yaml", {"out": tmp_path})
    assert config.pyramid_object() == pv.Pyramid(ratios=(0.5, 0.25, 0.125), scorer="fusion")
    assert config.memory_object() == pv.Memory(tokens=6144, evictor="pyramid")


def test_public_names_are_documented() -> None:
    for name in pv.__all__:
        assert (getattr(pv, name).__doc__ or "").strip(), name
