"""`text_mean`: LearnPruner's ranking before a middle layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import build, video
from reference import full_prompt
from test_rank import tapped, transcription  # noqa: F401 - a fixture
from torch import nn

import pdrop_video as pv
from pdrop_video.pyramid import Layout
from pdrop_video.pyramid.scorers import Ranking
from pdrop_video.pyramid.scorers.text_mean import TextMean

QUESTION = "what is shown first ?"


class Heads(nn.Module):
    """An attention whose weights are known: queries are logarithms of them, keys are columns' own directions."""

    scaling, layer_idx = 1.0, 0


def test_the_specs_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two heads and two rows that ask: the mean over all four, and who stays."""
    weights = torch.tensor([[[0.1, 0.2, 0.3, 0.05], [0.3, 0.1, 0.1, 0.05]], [[0.2, 0.2, 0.1, 0.1], [0, 0.4, 0.2, 0]]])
    weights = weights.double()
    rest = 1 - weights.sum(-1, keepdim=True)  # what the rows give to a row of text in front
    columns = torch.cat([weights, rest, torch.zeros(2, 2, 1, dtype=torch.float64)], -1)  # four visual, three of text
    query = columns.clamp(min=1e-30).log()  # [heads, 2, 6]: by orthogonal keys, the logits are the queries' numbers
    key = torch.eye(6, dtype=torch.float64).expand(2, -1, -1)

    monkeypatch.setattr("pdrop_video.pyramid.rank.project", lambda *_: query[None])
    monkeypatch.setattr("pdrop_video.pyramid.rank.every_key", lambda *_: key[None])
    monkeypatch.setattr("pdrop_video.pyramid.rank.attention_of", lambda layer: Heads())
    monkeypatch.setattr("pdrop_video.pyramid.rank.normed", lambda layer, hidden: hidden)
    visual = torch.tensor([[True] * 4 + [False] * 2])
    unused: Any = None
    probe = torch.tensor([[5, 5]])
    ranking = Ranking(unused, torch.zeros(1, 6, 6).double(), None, probe, visual, Layout.one_picture(visual))
    scores = TextMean()(ranking)
    assert scores[0, :4].tolist() == pytest.approx([0.15, 0.225, 0.175, 0.05])
    assert sorted(scores[0, :4].topk(2).indices.tolist()) == [1, 2]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
@torch.no_grad()
def test_by_the_formula_in_a_prompt(family: str, tapped: list) -> None:  # noqa: F811
    """The mean over all rows behind the visual ones, which is not the last one's."""
    lm = build(family)
    inputs, _, _ = full_prompt(lm, video(4), [0, 0.5, 1, 1.5], QUESTION)
    visual = inputs["input_ids"][0] == lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)
    with pv.pyramid_drop(lm.model, pv.Pyramid(layers=(2,), ratios=(0.3,), scorer="text_mean")) as trace:
        lm.model(**inputs)
    lm.model.get_decoder().set_attn_implementation("tapped")
    lm.model(**inputs)
    query, key, scaling = [call[1:] for call in tapped if call[0] == 2][-1]
    last = int(visual.nonzero().max())
    rows = [transcription(query, key, scaling, row)[: last + 1] for row in range(last + 1, len(visual))]
    want = torch.stack(rows).mean(0)[visual[: last + 1]]
    torch.testing.assert_close(trace.scores[0][0], want, atol=1e-12, rtol=0)
    assert (want - rows[-1][visual[: last + 1]]).abs().max() > 1e-3
    assert trace.kept[0][0].tolist() == sorted(want.argsort(descending=True)[: int(len(want) * 0.3)].tolist())
