"""What an answer's tokens look at, by the weights of unmodified models, and what comes of it, by masks on them."""

from __future__ import annotations

from typing import Any

import pytest
import test_decoder_kinds as decoder_kinds
import test_layer_kinds as layer_kinds
import torch
from families import FAMILIES, budget, build, cases, video
from hybrids import HYBRIDS, exact_linear_attention, inputs_of
from hybrids import build as build_hybrid
from layered import layered_forward, layered_stack
from layered import recorded as recorded_layers
from looked import QUESTION, Said, said
from more_families import MORE, OTHERS
from plain import DECODERS, whole
from plain import build as build_plain
from plain import video as plain_video
from reference import full_prompt, masked_forward, recorded, stream_masks
from torch import Tensor

import pdrop_video as pv

ASKING = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25))
WATCHING = (pv.Pyramid(stages=1), pv.Pyramid(layers=(2, 4), ratios=(0.8, 0.6)))
TAU = 0.97
WAYS = (f"dstp:tau={TAU},steps=2", "fixation:keep=0.2,count=2,warm=2,refresh=5,least=1")
LAST = 10
Watched = tuple[pv.VideoStream, dict[str, Any], int, list[list[Tensor]]]


def watched(lm: pv.VideoLM, pyramid: pv.Pyramid, room: float | None, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """A stream that has seen three chunks; a whole prompt of them and the question; and what was held when."""
    tokens, step = budget(lm, room), lm.adapter.frames_per_step
    frames, seconds = video(6 * step), [0.5 * i for i in range(6 * step)]
    snapshots = recorded(monkeypatch, tokens)
    stream = lm.stream(pyramid, pv.Memory(tokens=tokens))
    for i in range(0, 6 * step, 2 * step):
        stream.push(frames[i : i + 2 * step], seconds[i : i + 2 * step])
    inputs, prefix, _ = full_prompt(lm, frames, seconds, QUESTION)
    return stream, inputs, prefix, snapshots


class Reference:
    """The unmodified eager model, asked what a row attends to in a layer that lets it see some columns."""

    def __init__(self, lm: pv.VideoLM, of: Watched, found: Said) -> None:
        stream, self.inputs, prefix, snapshots = of
        self.lm, self.tables = lm, stream._state.cache.tables
        total = self.inputs["input_ids"].shape[1]
        self.allowed = stream_masks(snapshots, prefix, total, found.asked)
        self.own = total - len(stream.lm.prompt.after(QUESTION)) - len(lm.adapter.closing())
        self.rows = range(total - LAST, total)

    def see(self, row: int, layer: int, index: Tensor) -> None:
        """Let a row see these remembered tokens."""
        self.allowed[layer, row, : self.own] = False
        self.allowed[layer, row, index] = True

    def attended(self, row: int, layer: int) -> Tensor:
        """Weights [heads, tokens]."""
        caught: list[Tensor] = []
        module = self.lm.model.get_decoder().layers[layer].self_attn
        hook = module.register_forward_hook(lambda m, a, out: caught.append(out[1][0, :, row]))
        masked_forward(self.lm, self.inputs, self.allowed)
        hook.remove()
        return caught[0].double()

    def among(self, row: int, layer: int, index: Tensor) -> Tensor:
        """The mean over heads of what goes to these tokens, as shares of it [tokens]."""
        weights = self.attended(row, layer)[:, index]
        return (weights / weights.sum(-1, keepdim=True)).mean(0)

    def visual(self, layer: int, index: Tensor | None = None) -> Tensor:
        """Which of these tokens, or of all that are remembered, are visual, ascending."""
        table = self.tables[layer]
        seen = table.index[table.visual]
        return (seen if index is None else seen[torch.isin(seen, index)]).sort().values


FAST = tuple(list(FAMILIES).index(name) for name in ("qwen2_5_vl", "qwen3_vl", "internvl"))


@pytest.mark.parametrize(
    ("family", "watching", "room"),
    cases(FAMILIES, WATCHING, (None, 4), fast=lambda f, w, r: f in FAST and w == f % 2 == r),
)
def test_dstp_by_the_model_s_own_weights(
    family: str, watching: pv.Pyramid, room: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kept set, the anchor, each shift and whom it shows; then every token's logits."""
    lm = build(family, "eager")
    of = watched(lm, watching, room, monkeypatch)
    found = said(of[0], LAST, ASKING, WAYS[0])
    model = Reference(lm, of, found)
    kept = [model.visual(i, found.asked[i]) for i in range(6)]
    groups = [(2, 3), (4, 5)]
    hiding = [g for g in groups if len(kept[g[0]]) < len(model.visual(g[0]))]
    at = hiding[-1][0]
    anchor, left, shifts = model.among(model.rows[0] - 1, at, kept[at]), 0, 0
    shown = list(found.asked)
    for t, row in enumerate(model.rows):
        for layer in range(6):
            assert torch.equal(found.seen[t][layer].sort().values, shown[layer].sort().values), (t, layer)
            model.see(row, layer, shown[layer])
        if left:
            left -= 1
            shown = shown if left else list(found.asked)
            continue
        now = model.among(row, at, kept[at])
        cosine = float(torch.nn.functional.cosine_similarity(anchor, now, dim=0))
        assert abs(cosine - TAU) > 1e-4
        if cosine < TAU:
            left, shifts = 2, shifts + 1
            for group in hiding:
                first, every = group[0], model.visual(group[0])
                model.see(row, first, of[0]._state.cache.tables[first].index)
                weights = model.among(row, first, every)
                model.see(row, first, found.asked[first])
                best = every[weights.argsort(descending=True)[: len(kept[first])]]
                for layer in group:
                    shown[layer] = torch.cat([found.asked[layer], best]).unique()
    assert shifts and shifts * len(hiding) == len(found.glances)
    got, want = found.logits, masked_forward(lm, model.inputs, model.allowed)[-1 - LAST :]
    torch.testing.assert_close(got, want, atol=5e-5, rtol=0)
    plain = said(of[0], LAST, ASKING, None).logits
    assert torch.equal(got[:2], plain[:2]) and (got - plain).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("family", "watching", "room"),
    cases(FAMILIES, WATCHING, (None, 4), fast=lambda f, w, r: f in FAST and w != f % 2 and r == f % 2),
)
def test_fixation_by_the_model_s_own_weights(
    family: str, watching: pv.Pyramid, room: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The focal layers, and whom they choose for the others, which may hold others; then every token's logits."""
    lm = build(family, "eager")
    of = watched(lm, watching, room, monkeypatch)
    found = said(of[0], LAST, ASKING, WAYS[1])
    model = Reference(lm, of, found)
    held = [table.index for table in of[0]._state.cache.tables]
    text = [index[~torch.isin(index, model.visual(i))] for i, index in enumerate(held)]
    keep = [-(-len(model.visual(i)) // 5) for i in range(6)]

    def look(row: int, layer: int) -> dict[int, float]:
        """The mean over heads of what goes to each visual token, with all that is held to be seen."""
        before = model.allowed[layer, row].clone()
        model.see(row, layer, held[layer])
        weights = model.attended(row, layer).mean(0)
        model.allowed[layer, row] = before
        return {n: float(weights[n]) for n in model.visual(layer).tolist()}

    shares = [0.0] * 6

    def note(row: int) -> dict[int, float]:
        for layer in range(6):
            newest = look(row, layer)
            shares[layer] += sum(sorted(newest.values())[-keep[layer] :]) / sum(newest.values())
            looks[layer] = newest
        return newest

    looks: dict[int, dict[int, float]] = {}
    note(model.rows[0] - 1)
    focal: list[int] = []
    for t, row in enumerate(model.rows):
        for layer in range(6):
            full = t < 2 or layer in focal or t % 5 == 4
            if t >= 2 and layer in focal:
                model.see(row, layer, held[layer])
                newest = look(row, layer)
            if not full:
                order = sorted(model.visual(layer).tolist(), key=lambda n: -newest.get(n, -1.0))[: keep[layer]]
                assert len(newest) >= keep[layer]
            want = held[layer] if full else torch.cat([text[layer], torch.tensor(order)])
            assert torch.equal(found.seen[t][layer].sort().values, want.sort().values), (t, layer)
            model.see(row, layer, want)
        if t < 2:
            note(row)
        if t == 1:
            order = sorted(range(6), key=lambda i: -shares[i])
            focal = sorted([order[0], next(i for i in order[1:] if abs(i - order[0]) >= 1.5)])
            newest = looks[focal[-1]]
    got, want = found.logits, masked_forward(lm, model.inputs, model.allowed)[-1 - LAST :]
    torch.testing.assert_close(got, want, atol=5e-5, rtol=0)
    assert (got - said(of[0], LAST, ASKING, None).logits).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("family", "way"), cases(MORE | OTHERS, WAYS, fast=lambda f, w: f % 5 == 0 and w == f // 5 % 2)
)
def test_what_is_seen_is_what_a_mask_lets_be_seen(family: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = build(family)
    of = watched(lm, WATCHING[1], 4, monkeypatch)
    found = said(of[0], LAST, ASKING, way.replace(f"tau={TAU}", "tau=1"))
    model = Reference(lm, of, found)
    for row, seen in zip(model.rows, found.seen, strict=True):
        for layer in range(6):
            model.see(row, layer, seen[layer])
    want = masked_forward(lm, model.inputs, model.allowed)[-1 - LAST :]
    torch.testing.assert_close(found.logits, want, atol=2e-5 if family == "glm4v_moe" else 1e-9, rtol=0)
    assert found.glances and (found.logits - said(of[0], LAST, ASKING, None).logits).abs().max() > 1e-4


@pytest.mark.parametrize(("family", "way"), cases(HYBRIDS, WAYS, fast=lambda f, w: f % 3 == 0 and w == f // 3 % 2))
def test_windows_states_and_lent_keys(family: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that slide or carry a state are left to themselves; those that attend to all show what they are told."""
    exact_linear_attention(monkeypatch)
    lm, record = build_hybrid(family), recorded_layers(monkeypatch)
    step = lm.adapter.frames_per_step
    frames, seconds = video(6 * step), [0.5 * i for i in range(6 * step)]
    stream = lm.stream(pv.Pyramid(layers=(3, 7), ratios=(0.8, 0.6)), pv.Memory(tokens=None))
    for i in range(0, 6 * step, 2 * step):
        stream.push(frames[i : i + 2 * step], seconds[i : i + 2 * step])
    inputs, prefix = inputs_of(lm, frames, seconds, QUESTION), len(lm.prompt.before())
    asking = pv.Pyramid(layers=(3, 7), ratios=(0.4, 0.2))
    found = said(stream, LAST, asking, way.replace(f"tau={TAU}", "tau=1"))
    shown = [seen.sort().values for seen in found.asked]
    want = layered_forward(lm, inputs, record, prefix, shown, found.seen)
    torch.testing.assert_close(found.logits[1:], want, atol=layer_kinds.exact(family), rtol=0)
    changed = [i for i in range(8) if any(not torch.equal(seen[i], found.asked[i]) for seen in found.seen)]
    assert changed and all(lm.stream().loop.kinds[i].ranks for i in changed)
    assert found.glances and (found.logits - said(stream, LAST, asking, None).logits).abs().max() > 1e-4


@pytest.mark.parametrize(("name", "way"), cases(DECODERS, WAYS, fast=lambda d, w: d % 2 == w))
@torch.no_grad()
def test_convolutions_mamba_experts_and_latents(name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, frames, record = build_plain(name), plain_video(6), recorded_layers(monkeypatch)
    embeds, prefix = whole(lm, frames, QUESTION)
    stream = lm.stream(pv.Pyramid(layers=(2, 5), ratios=(0.8, 0.6)), pv.Memory(tokens=None))
    for i in range(0, 6, 2):
        stream.push(frames[i : i + 2], [float(i), float(i + 1)])
    asking = pv.Pyramid(layers=(2, 5), ratios=(0.4, 0.2))
    found = said(stream, LAST, asking, way.replace(f"tau={TAU}", "tau=1"))
    shown, positions = [seen.sort().values for seen in found.asked], torch.arange(embeds.shape[1])[None]
    hidden = layered_stack(stream.loop.text, embeds, positions, record, prefix, shown=shown, answer=found.seen)
    want = lm.model.get_output_embeddings()(stream.loop.decoder.norm(hidden[:, -LAST:]))[0]
    # Mamba's states are float32 and drift, whatever is looked at: row by row they come to 2e-3 within ten tokens
    sure = 4 if name == "nemotron_h" else LAST
    torch.testing.assert_close(found.logits[1:][:sure], want[:sure], atol=5 * decoder_kinds.exact(name), rtol=0)
    changed = [i for i in range(8) if any(not torch.equal(seen[i], found.asked[i]) for seen in found.seen[:sure])]
    assert changed and all(stream.loop.kinds[i].ranks for i in changed) and found.glances
    assert (found.logits - said(stream, LAST, asking, None).logits)[: 1 + sure].abs().max() > 1e-3
