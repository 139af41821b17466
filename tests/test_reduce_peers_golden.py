"""The peers, exactly: traces of their released code on random videos, each of one chunk (``tests/golden/*.json``)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_front import tokens_of
from torch import Tensor

from pdrop_video.reduce import Reduced, Reducer, Tokens
from pdrop_video.reduce.dtd import DTD
from pdrop_video.reduce.evs import EVS
from pdrop_video.reduce.fastvid import FastVID
from pdrop_video.reduce.holitom import HoliTom
from pdrop_video.reduce.streamingtom import StreamingTOM
from pdrop_video.reduce.vidcom2 import VidCom2

GOLDEN = Path(__file__).parent / "golden"


def cases(name: str) -> list[Any]:
    """A method's cases; what a case leaves out is that of the case before."""
    told: dict[str, Any] = {}
    found = []
    for case in json.loads((GOLDEN / f"{name}.json").read_text())["cases"]:
        told |= {key: value for key, value in case.items() if key == "own" or value is not None}
        found.append(pytest.param(dict(told), id=f"{name} {len(found)}"))
    return found


def run(reducer: Reducer, case: dict[str, Any]) -> tuple[Reduced, Tokens]:
    """What a reducer makes of a case's only chunk. In float64: no score of a trace is so near another."""
    tokens = tokens_of(torch.tensor(case["features"], dtype=torch.float64), tuple(case["grid"]))
    if "attention" in case:
        tokens = replace(tokens, tower={"attention": torch.tensor(case["attention"])})
    return reducer(tokens, {})[0], tokens


def merged(reduced: Reduced, tokens: Tokens) -> Tensor:
    """What goes on [kept, hidden]."""
    assert reduced.weights is not None
    torch.testing.assert_close(reduced.weights.sum(1), torch.ones_like(reduced.weights[:, 0]))
    return reduced.weights.double() @ tokens.features


@pytest.mark.parametrize("case", cases("evs"))
def test_evs(case: dict[str, Any]) -> None:
    assert run(EVS(1 - case["rate"]), case)[0].kept.tolist() == case["kept"]


@pytest.mark.parametrize("case", cases("dtd"))
def test_dtd(case: dict[str, Any]) -> None:
    threshold = case["threshold"]
    reducer = DTD(threshold) if case["absolute"] else DTD(keep=1 - threshold)
    assert run(reducer, case)[0].kept.tolist() == case["kept"]


@pytest.mark.parametrize("case", cases("vidcom2"))
def test_vidcom2(case: dict[str, Any]) -> None:
    assert run(VidCom2(case["keep"]), case)[0].kept.tolist() == case["kept"]


@pytest.mark.parametrize("case", cases("holitom"))
def test_holitom(case: dict[str, Any]) -> None:
    said = {name: case[name] for name in ("keep", "threshold", "context", "own", "nearest")}
    reduced, tokens = run(HoliTom(**said, salient="attention"), case)
    assert reduced.kept.tolist() == case["kept"]
    torch.testing.assert_close(merged(reduced, tokens), torch.tensor(case["merged"]).double(), atol=6e-4, rtol=0)


@pytest.mark.parametrize("case", cases("fastvid"))
def test_fastvid(case: dict[str, Any]) -> None:
    said = {name: case[name] for name in ("keep", "segments", "threshold", "context", "period", "own", "parallel")}
    reduced, tokens = run(FastVID(**said, salient="attention"), case)
    assert reduced.kept.tolist() == case["kept"]
    torch.testing.assert_close(merged(reduced, tokens), torch.tensor(case["merged"]).double(), atol=6e-4, rtol=0)


@pytest.mark.parametrize("case", cases("streamingtom"))
def test_streamingtom(case: dict[str, Any]) -> None:
    """As released; and density peaks as they are meant choose others of what stands still, but as many."""
    said = {name: case[name] for name in ("threshold", "own", "nearest")}
    keep = (case["keep"] + 0.5) / 196
    reduced, tokens = run(StreamingTOM(keep=keep, **said, salient="attention", release=True), case)
    assert reduced.kept.tolist() == case["kept"]
    torch.testing.assert_close(merged(reduced, tokens), torch.tensor(case["merged"]).double(), atol=1e-4, rtol=0)
    meant, _ = run(StreamingTOM(keep=keep, **said, salient="attention"), case)
    assert len(meant.kept) == len(reduced.kept) and meant.kept.tolist() != case["kept"]
