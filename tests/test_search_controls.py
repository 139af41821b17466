"""What a search compares with, and what it takes for one recipe."""

# ruff: noqa: F811

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_search_recipes import BYTES, SHARE, SMALL, clips, folder, lm  # noqa: F401

import pdrop_video as pv
from pdrop_video.search import recipes
from pdrop_video.search.judge import Clip, Objective
from pdrop_video.search.ledger import Ledger
from pdrop_video.search.plans import Maker, Plan
from pdrop_video.search.recipes import RecipeSearch
from pdrop_video.search.space import NONE, Budget

COARSE = "surprise:threshold=20,parts=1"
"""Leaves half of what these clips show."""


def test_what_changes_no_answer_is_no_second_finalist(
    lm: pv.VideoLM, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evictors that are never asked: they are told apart by name alone, and take no places from others."""

    def other_evictor(maker: Maker, rng: random.Random, plan: Plan) -> Plan:
        return replace(plan, evictor=rng.choice(maker.space.evictors))

    monkeypatch.setattr(Maker, "neighbour", other_evictor)
    lines: list[str] = []
    one: dict[str, Any] = dict(gates=(NONE,), reducers=(NONE,), kernels=("step",), scorers=("contrast",))
    space = replace(SMALL, **one, evictors=("pyramid", "uniform", "oldest"), storages=("full",))
    how = RecipeSearch(lm, clips, tmp_path, space, trials=6, steps=1, seed=2, watch=lines.append)
    outcome = how.run([Budget(SHARE, 2**30)])[0]
    own = [one.divergences for one in outcome.finalists if one.name[-1].isdecimal()]
    others = {one.divergences for one in outcome.others}
    assert len(set(own)) == len(own) and others & set(own)
    assert any("step 1: the same answers as the best so far" in line for line in lines)
    assert any("rung 1 of 1: 9 recipes on video 2 of 3" in line for line in lines)  # three controls


def test_controls_stand_behind_a_gate_where_the_tower_alone_costs_too_much(
    lm: pv.VideoLM, clips: list[Clip], tmp_path: Path
) -> None:
    space, budget = replace(SMALL, gates=(COARSE, NONE, "static")), Budget(0.55, BYTES)
    with Ledger(lm, clips, Objective(), tmp_path, {}, str) as ledger:
        race = recipes._Race(RecipeSearch(lm, clips, tmp_path, space), ledger, budget)
        controls = race._controls()
        assert not race._controls_behind(NONE) and race.maker.left(None, None)
    assert {recipe.gate for recipe in controls.values()} == {COARSE}
    assert set(controls) == {f"{name}, {COARSE}" for name in ("paper's shape", "linear", "even")}
