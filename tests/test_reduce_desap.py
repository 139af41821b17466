"""DeSAP: the tower's own text half, the joint ranking, and means."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from asked import cosine, random_tokens, some, tokens_of, turns
from clips import clip
from torch import Tensor

import pdrop_video as pv
from pdrop_video.reduce import REDUCERS, Reduced, Tokens
from pdrop_video.reduce.desap import DeSAP, merged
from pdrop_video.reduce.text_half import aligned


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, tf.CLIPModel]:
    folder = tmp_path_factory.mktemp("clip")
    return str(folder), clip(folder)


def moved(values: list[float]) -> list[float]:
    span = max(values) - min(values)
    return [(value - min(values)) / span if span > 1e-9 else 0.0 for value in values]


def by_loops(tokens: Tokens, seen: Tensor, words: Tensor, salient: Tensor, keep: float) -> list[list[int]]:
    """What each token that stays is a mean of, itself first, in the order of places."""
    groups: dict[int, list[int]] = {}
    turn = turns(tokens)
    for step in sorted(set(tokens.step.tolist())):
        mine = [i for i in range(len(tokens)) if tokens.step[i] == step]
        relevant = moved([max(cosine(seen[i], word) for word in words) for i in mine])
        by_class = moved(salient[mine].tolist())
        score = {i: round(0.5 * r + 0.5 * c, 5) for i, r, c in zip(mine, relevant, by_class, strict=True)}
        kept = sorted(mine, key=lambda i: (-score[i], turn[i]))[: max(1, int(len(mine) * keep))]
        groups.update({i: [i] for i in sorted(kept)})
        for i in mine:
            if i not in kept:
                groups[max(sorted(kept), key=lambda k: round(cosine(seen[i], seen[k]), 6))].append(i)
    return list(groups.values())


def made_of(reduced: Reduced, tokens: int) -> list[list[int]]:
    if reduced.weights is None:
        return [[i] for i in reduced.kept.tolist()]
    groups = []
    for anchor, row in zip(reduced.kept.tolist(), reduced.weights, strict=True):
        members = row.nonzero()[:, 0].tolist()
        assert row[members].tolist() == pytest.approx([1 / len(members)] * len(members)) and anchor in members
        groups.append([anchor, *(i for i in members if i != anchor)])
    return groups


def test_the_specs_example() -> None:
    seen = torch.tensor([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], dtype=torch.float64)
    words = torch.tensor([[0.8, 0.6], [1, 0]], dtype=torch.float64)
    relevant = (seen @ words.mT).amax(1)
    assert relevant.tolist() == pytest.approx([1, 0.6, 0.96, -0.8])
    salient = torch.tensor([0.1, 0.2, 0.3, 0.4])
    both = [(r + c) / 2 for r, c in zip(moved(relevant.tolist()), moved(salient.tolist()), strict=True)]
    assert both == pytest.approx([0.5, 0.5556, 0.8222, 0.5], abs=1e-4)
    tokens = tokens_of(torch.randn(4, 6, dtype=torch.float64), (2, 2))
    reduced = merged(tokens, seen, relevant, salient, 0.5)
    assert reduced.kept.tolist() == [1, 2] and reduced.weights is not None
    assert reduced.weights.tolist() == [[0, 0.5, 0, 0.5], [0.5, 0, 0.5, 0]]


def told(seed: int, **more: Any) -> tuple[Tokens, Tensor]:
    """Tokens, and what the tower saw of each [tokens, 32]; [CLS] is in the tokens."""
    tokens = random_tokens(seed, **more)
    generator = torch.Generator().manual_seed(100 + seed)
    attended = torch.randn(len(tokens), 32, generator=generator, dtype=torch.float64)
    tower = {"attended": attended, "class_attention": torch.rand(len(tokens), generator=generator)}
    return replace(tokens, tower=tower, asked="what is red?"), attended


def by_hand(model: tf.CLIPModel, attended: Tensor) -> tuple[Tensor, Tensor]:
    """The tower's numbers and the ten letters of the question in the space that they share."""
    ids = torch.tensor([[54, 22, 7, 0, 46, 8, 45, 17, 4, 30, 53, 55]])
    with torch.no_grad():
        hidden = model.text_model(input_ids=ids).last_hidden_state[0, 1:-1]
        words = model.text_projection(hidden).double()
        norm = model.vision_model.post_layernorm.double()
        seen = norm(attended) @ model.visual_projection.weight.double().mT
        norm.float()
    return seen, words


def test_the_text_half_reads_the_question(whole: tuple[str, tf.CLIPModel]) -> None:
    """Without start and end, behind norm and projection; and cut off where the text half ends."""
    folder, model = whole
    _, attended = told(0)
    seen, words = by_hand(model, attended)
    half = aligned(folder, "what is red?")
    assert half.words.shape == (10, 20)
    torch.testing.assert_close(half.words.double(), words / words.norm(dim=1, keepdim=True), atol=1e-5, rtol=0)
    torch.testing.assert_close(half.beside(attended), seen / seen.norm(dim=1, keepdim=True), atol=1e-9, rtol=0)
    assert aligned(folder, "red " * 50).words.shape == (22, 20)
    assert half.beside(attended.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("holes", [False, True], ids=["whole", "holes"])
def test_by_loops(keep: float, holes: bool, whole: tuple[str, tf.CLIPModel]) -> None:
    folder, model = whole
    for seed in range(3):
        tokens, attended = told(seed, holes=holes, since=seed)
        seen, words = by_hand(model, attended)
        reduced, carried = DeSAP(keep, folder)(tokens, {})
        want = by_loops(tokens, seen, words, tokens.tower["class_attention"].double(), keep)
        assert [(group[0], sorted(group)) for group in made_of(reduced, len(tokens))] == [
            (group[0], sorted(group)) for group in want
        ]
        assert not carried and (reduced.weights is None or reduced.weights.dtype == torch.float64)


def test_each_step_by_itself(whole: tuple[str, tf.CLIPModel]) -> None:
    """However the stream is cut."""
    tokens, _ = told(5, steps=6)
    reducer = DeSAP(0.3, whole[0])
    want = made_of(reducer(tokens, {})[0], len(tokens))
    for cuts in ([0, 1, 3, 6], [0, 2, 6], [0, 1, 2, 3, 4, 5, 6]):
        got = []
        for first, last in pairwise(cuts):
            here = ((tokens.step >= first) & (tokens.step < last)).nonzero()[:, 0]
            part = some(tokens, here)
            tower = {name: known[here] for name, known in tokens.tower.items()}
            part = replace(
                part,
                step=part.step - first,
                seconds=tokens.seconds[first:last],
                since=tokens.since + first,
                tower=tower,
            )
            got += [[int(here[i]) for i in group] for group in made_of(reducer(part, {})[0], len(part))]
        assert got == want, cuts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_chunk_is_served(dtype: torch.dtype, whole: tuple[str, tf.CLIPModel]) -> None:
    """One token, and a tower that sees the same everywhere, or nothing."""
    tokens, attended = told(0, dtype=dtype)
    reducer = DeSAP(0.3, whole[0])
    one = replace(some(tokens, torch.tensor([27])), tower={name: t[27:28] for name, t in tokens.tower.items()})
    assert reducer(one, {})[0].kept.tolist() == [0]
    for seen in (torch.zeros_like(attended), attended[:1].expand(60, -1), attended):
        before = seen.clone()
        given = replace(tokens, tower={"attended": seen.to(dtype), "class_attention": torch.full((60,), 0.1)})
        reduced, _ = reducer(given, {})
        assert len(reduced.kept) == 18 and torch.equal(seen, before)
        assert reduced.weights is not None and reduced.weights.dtype == torch.float32
        torch.testing.assert_close(reduced.weights.sum(1), torch.ones(18))


def test_what_is_missing_is_said(whole: tuple[str, tf.CLIPModel], tmp_path: Path) -> None:
    """The family, the text half, the question, and a text half of another tower."""
    knows = ("attention", "attended", "class_attention")
    with pytest.raises(pv.ConfigError, match="models of type 'qwen2_5_vl' don't hand it over"):
        DeSAP(0.5, whole[0]).check("qwen2_5_vl", ("attention",), "what is red?")
    with pytest.raises(pv.ConfigError, match="name the whole CLIP, as desap:text_tower="):
        DeSAP().check("llava_next_video", knows, "what is red?")
    with pytest.raises(pv.ConfigError, match="open the stream with a standing_question"):
        DeSAP(0.5, whole[0]).check("llava_next_video", knows, None)
    with pytest.raises(pv.ConfigError, match=r"which can't be loaded .* expected a folder"):
        DeSAP(0.5, str(tmp_path)).check("llava_next_video", knows, "what is red?")
    with pytest.raises(pv.ConfigError, match="of which the text tower reads nothing"):
        DeSAP(0.5, whole[0]).check("llava_next_video", knows, " ")
    tf.CLIPTextConfig().save_pretrained(tmp_path)
    with pytest.raises(pv.ConfigError, match="of type 'clip_text_model'; expected a whole CLIP"):
        DeSAP(0.5, str(tmp_path)).check("llava_next_video", knows, "what is red?")
    clip(tmp_path / "other", seen=48)
    with pytest.raises(pv.ConfigError, match="a vision tower of 48 numbers a patch; this model's has 32"):
        DeSAP(0.5, str(tmp_path / "other"))(told(0)[0], {})
    DeSAP(0.5, whole[0]).check("llava_next_video", knows, "what is red?")


@pytest.mark.parametrize(
    "wrong, said",
    [({"keep": 0}, "keep is 0; expected a share"), ({"text_tower": 3}, "text_tower is 3; expected text")],
)
def test_bad_parameters(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(pv.ConfigError, match=said):
        DeSAP(**wrong)


def test_it_is_listed() -> None:
    assert REDUCERS["desap"] == DeSAP()
