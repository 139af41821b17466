"""What the documents show is true: the worked example, the tables of methods and families, the docstrings."""

from __future__ import annotations

import doctest
import importlib
import re
import textwrap
from pathlib import Path

import pytest
import torch
from families import build, video

import pdrop_video as pv
from pdrop_video.memory import EVICTORS
from pdrop_video.models import ADAPTERS
from pdrop_video.pyramid import ALLOCATORS, SCORERS

ROOT = Path(__file__).parent.parent


def test_the_worked_example_is_a_working_scorer() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"    # pdrop_video/pyramid/scorers/outlier\.py\n(.*?)\n(?=\S)", text, re.DOTALL)
    assert block is not None
    name = "pdrop_video.pyramid.scorers.outlier"
    scope = {"__name__": name, "__package__": name.rpartition(".")[0]}
    module = type(pv)(name)
    module.__dict__.update(scope)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(importlib.import_module("sys").modules, name, module)  # dataclasses look their module up
        exec(compile(textwrap.dedent(block[1]), name, "exec"), module.__dict__)
        stream = build("qwen2_5_vl").stream(pv.Pyramid(layers=(1,), ratios=(0.25,), scorer=module.Outlier()))
        frames = torch.full((4, 60, 72, 3), 90, dtype=torch.uint8)
        frames[:, :20, :20] = video(1)[0, :20, :20]  # one corner is unlike all else
        stream.push(frames, [0, 1, 2, 3])
    table = stream.held(-1)
    assert (0, 0) in {(int(r), int(c)) for r, c in zip(table.row, table.column, strict=True)}


@pytest.mark.parametrize("names", [SCORERS, ALLOCATORS, EVICTORS], ids=["scorers", "allocators", "evictors"])
def test_the_readme_names_every_method(names: dict[str, object]) -> None:
    methods = (ROOT / "README.md").read_text(encoding="utf-8").split("## Methods")[1].split("\n## ")[0]
    for name in names:
        assert f"`{name}`" in methods


def test_the_readme_names_every_family() -> None:
    models = (ROOT / "README.md").read_text(encoding="utf-8").split("## Models")[1].split("\n## ")[0]
    for model_type in ADAPTERS:
        assert f"`{model_type}`" in models


@pytest.mark.parametrize("module", ["pyramid.schedule", "flops", "models.positions"])
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"pdrop_video.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_public_names_are_documented() -> None:
    for name in pv.__all__:
        assert (getattr(pv, name).__doc__ or "").strip(), name
