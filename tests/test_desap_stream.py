"""DeSAP in a stream of LLaVA-NeXT-Video: what the tower's last used attention gives, and that others refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from clips import clip
from families import build, video
from torch import Tensor

import pdrop_video as pv
from pdrop_video.reduce import Tokens
from pdrop_video.reduce.desap import DeSAP

QUESTION = "what is shown first ?"
PYRAMID = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25))
SIDE, GRID, HIDDEN = 8, 4, 32
"""Patches and tokens along a side, and numbers of the tower."""


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("clip")
    clip(folder)
    return str(folder)


@torch.no_grad()
def by_hand(lm: pv.VideoLM, frames: Tensor) -> tuple[Tensor, Tensor]:
    """The attention's output of each token's patches and what [CLS] gives them, from the block's own parts."""
    adapter = lm.adapter
    values, _ = adapter.preprocess(frames)
    tower = lm.model.get_encoder("image")
    tower.set_attn_implementation("eager")
    said = tower(values[0].double(), output_hidden_states=True, output_attentions=True)
    taken = lm.model.config.vision_feature_layer
    assert taken == -2
    layer = tower.encoder.layers[taken] if hasattr(tower, "encoder") else tower.vision_model.encoder.layers[taken]
    entered = said.hidden_states[taken - 1]
    attended, weights = layer.self_attn(layer.layer_norm1(entered), attention_mask=None)
    torch.testing.assert_close(weights, said.attentions[taken])
    by_class = weights[:, :, 0].mean(1)  # [frames, 1 + patches]
    means, classes = [], []
    for frame in range(len(frames)):
        for row in range(GRID):
            for column in range(GRID):
                own = [1 + (2 * row + i) * SIDE + 2 * column + j for i in (0, 1) for j in (0, 1)]
                means.append(attended[frame, own].mean(0))
                classes.append(by_class[frame, own].mean())
    return torch.stack(means), torch.stack(classes)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_what_the_tower_says_by_hand(implementation: str) -> None:
    """Averaged over the four patches of each token, as features are; and nothing of the tower changes."""
    lm = build("llava_next_video")
    lm.model.get_encoder("image").set_attn_implementation(implementation)
    frames, seconds = video(3), (0.0, 1.0, 2.0)
    plain = lm.adapter.look(frames, seconds)
    attention = lm.model.get_encoder("image").encoder.layers[0].self_attn
    hooks = [len(module._forward_hooks) for module in attention.modules()]
    chunk = lm.adapter.look(frames, seconds, knowing=("attended", "class_attention", "attention"))
    assert torch.equal(chunk.embeds, plain.embeds) and not plain.tower
    assert sorted(chunk.tower) == ["attended", "attention", "class_attention"]
    assert hooks == [len(module._forward_hooks) for module in attention.modules()]
    worth = torch.rand(3, GRID, GRID, generator=torch.Generator().manual_seed(0)) > 0.5
    some = lm.adapter.look(frames, seconds, worth=worth, knowing=("attended", "class_attention"))
    attended, classes = by_hand(lm, frames)
    assert chunk.tower["attended"].shape == (48, HIDDEN)
    for told, which in ((chunk, torch.ones(48, dtype=torch.bool)), (some, worth.flatten())):
        torch.testing.assert_close(told.tower["attended"], attended[which].float(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(told.tower["class_attention"], classes[which].float(), atol=1e-6, rtol=1e-4)


def test_in_a_stream(half: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays does not depend on how the stream is cut; it is saved and resumed, and a question leaves no trace."""
    lm = build("llava_next_video")
    given: list[Tokens] = []
    call = DeSAP.__call__

    def noted(reducer: DeSAP, tokens: Tokens, carried: dict[str, Tensor]) -> object:
        given.append(tokens)
        return call(reducer, tokens, carried)

    monkeypatch.setattr(DeSAP, "__call__", noted)
    kept = []
    for sizes in ([6], [1, 2, 3], [4, 2]):
        stream = lm.stream(
            PYRAMID,
            pv.Memory(tokens=None),
            reducer=f"desap:keep=0.3,text_tower={half}",
            standing_question=QUESTION,
        )
        frames, at = video(6), 0
        for size in sizes:
            stream.push(frames[at : at + size], list(range(at, at + size)))
            at += size
        table = stream.held()
        kept.append([c[table.visual].tolist() for c in (table.step, table.row, table.column)])
        assert len(kept[-1][0]) == 6 * int(16 * 0.3) and not stream.status.carried_bytes.get("reducer")
    assert kept[0] == kept[1] == kept[2]
    assert all(tokens.asked == QUESTION for tokens in given)
    answer = stream.ask("red ?", 3)
    stream.save(tmp_path / "a.pdrop")
    resumed = lm.resume(tmp_path / "a.pdrop")
    assert resumed._ingest.front.reducer == DeSAP(0.3, half)
    for each in (stream, resumed):
        each.push(video(2, seed=3), [6, 7])
    assert resumed.ask("red ?", 3).text == stream.ask("red ?", 3).text and answer.frames == 6


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_other_families_say_why_not(family: str, half: str) -> None:
    with pytest.raises(pv.ConfigError, match=f"trained beside a text tower.* models of type '{family}' don't"):
        build(family).stream(reducer=DeSAP(0.5, half), standing_question=QUESTION)


def test_a_stream_without_a_question_or_a_text_half_is_refused(half: str) -> None:
    lm = build("llava_next_video")
    with pytest.raises(pv.ConfigError, match="open the stream with a standing_question"):
        lm.stream(reducer=DeSAP(0.5, half))
    with pytest.raises(pv.ConfigError, match="name the whole CLIP"):
        lm.stream(reducer="desap", standing_question=QUESTION)


def test_a_tower_without_a_class_is_refused() -> None:
    lm = build("llava_next_video")
    lm.model.config.vision_config.model_type = "siglip_vision_model"
    with pytest.raises(pv.ModelError, match=r"has no \[CLS\]"):
        lm.adapter.look(video(1), (0.0,), knowing=("attended",))
