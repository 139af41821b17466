"""What a reducer may say of itself besides: what it makes use of where it is known, and why it can't work somewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from any_reducer import BY_THEMSELVES
from families import build, video
from torch import Tensor

import pdrop_video as pv
from pdrop_video.reduce import Reduced, Tokens
from pdrop_video.stream.cost import recipe_flops


@dataclass(frozen=True)
class Wishing:
    """A reducer of one's own that keeps everything and notes what it was told."""

    needs: ClassVar[tuple[str, ...]] = ()
    wants: ClassVar[tuple[str, ...]] = ("attention", "depth")
    told: list[list[str]] = field(default_factory=list)

    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        self.told.append(sorted(tokens.tower))
        return Reduced(torch.arange(len(tokens))), {}

    def left(self, tokens: int) -> int:
        return tokens

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        return 0

    def flops(self, tokens: int, hidden: int) -> int:
        return 0


class Picky(Wishing):
    """One that refuses, as it pleases."""

    def check(self, model_type: str, knows: tuple[str, ...], asked: str | None) -> None:
        if asked != "red ?":
            raise pv.ConfigError(f"picky asks {model_type} for red, not {asked}")


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_next_video"])
def test_what_is_wanted_comes_where_it_is_known(family: str) -> None:
    lm = build(family)
    reducer = Wishing()
    lm.stream(pv.Pyramid(stages=1), reducer=reducer).push(video(2), [0, 1])
    known = [name for name in reducer.wants if name in lm.adapter.knows]
    assert reducer.told == [known] and "depth" not in known


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_next_video"])
def test_a_recipe_of_any_reducer_has_its_costs(family: str) -> None:
    """Also of one that the family refuses, and with what is wanted where it is known."""
    lm = build(family)
    sizes = dict(frames=8, height=60, width=72)
    tower = {}
    for reducer in (None, *BY_THEMSELVES):
        pyramid = pv.Pyramid(stages=1)
        tower[reducer] = recipe_flops(pv.Recipe(reducer=reducer, pyramid=pyramid), lm.model.config, lm.adapter, **sizes)
    assert tower["sppruner"].tower > tower[None].tower == tower["learnpruner"].tower
    assert {name for name in BY_THEMSELVES if tower[name].reducer == 0} == {"even", "random"}  # which look at nothing


def test_a_reducer_refuses_when_a_stream_is_opened() -> None:
    lm = build("qwen2_5_vl")
    with pytest.raises(pv.ConfigError, match="picky asks qwen2_5_vl for red, not None"):
        lm.stream(reducer=Picky())
    with pytest.raises(pv.ConfigError, match="for red, not blue"):
        lm.stream(reducer=Picky(), standing_question="blue")
    reducer = Picky()
    lm.stream(reducer=reducer, standing_question="red ?").push(video(2), [0, 1])
    assert len(reducer.told) == 1
