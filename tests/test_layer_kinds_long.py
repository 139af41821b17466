"""Hybrid decoders over long streams: positions past the trained range, turns that are kept, files, bytes, archives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import video
from hybrids import HYBRIDS, build, exact_linear_attention
from layered import layered_stack, recorded
from test_exact import next_logits
from test_layer_kinds import exact
from torch import Tensor

import pdrop_video as pv
from pdrop_video.models import Pixels
from pdrop_video.pyramid import LayerLoop
from pdrop_video.pyramid.heads import attention_of, per_head, rotate

QUESTION = "what is shown first ?"
TURNS = ("qwen3_5", "minicpmv4_7", "gemma4", "gemma4_moe", "exaone4_5", "muse_glimmer")
EVERYTHING = pv.Pyramid(stages=1)


def size_of(lm: pv.VideoLM, steps: float) -> int:
    """Tokens of prompt, probe and so many steps."""
    step = lm.adapter.frames_per_step
    look = lm.adapter.look(video(step), (60.0, 60.5)[:step], first=9)
    return len(lm.prompt.before()) + len(lm.prompt.after("")) + int(steps * len(look))


@pytest.mark.parametrize("positions", ["window", "compact"])
@pytest.mark.parametrize("family", ["qwen3_5", "gemma4", "exaone4_5", "muse_glimmer"])
def test_keys_stand_where_the_table_says(family: str, positions: str) -> None:
    """Every key equals one rotation, by the model, of its un-rotated self, also where another layer lent it."""
    lm = build(family)
    lm.model.config.get_text_config().max_position_embeddings = trained = 2 * size_of(lm, 6)
    stream = lm.stream(EVERYTHING, pv.Memory(tokens=size_of(lm, 4), evictor="uniform", positions=positions))
    loop, step = stream.loop, lm.adapter.frames_per_step
    raw: list[dict[int, Tensor]] = [{} for _ in loop.kinds]
    last: dict[int, Tensor] = {}
    for i, (kind, layer) in enumerate(zip(loop.kinds, loop.text.layers, strict=True)):
        if kind.holds and kind.source is None:

            def hook(module: Any, args: Any, kwargs: Any, i: int = i) -> None:
                last[i] = per_head(module, kwargs["hidden_states"], "k")[0]

            attention_of(layer).register_forward_pre_hook(hook, with_kwargs=True)
    moved = 0
    for n in range(24):
        before = stream._state.rows
        stream.push(video(step, seed=n), [step * n + j + (3600 if n > 12 else 0) for j in range(step)])
        for i, kind in enumerate(loop.kinds):
            of = i if kind.source is None else kind.source
            if not kind.holds:
                continue
            table, held = stream._state.cache.tables[i], stream._state.cache.layers[i]
            for index in range(before, stream._state.rows):
                raw[i][index] = last[of][:, index - before]
            known = torch.tensor([index in raw[i] for index in table.index.tolist()])
            assert bool(known[table.chunk >= 0].all())
            keys = torch.stack([raw[i][index] for index in table.index[known].tolist()], dim=1)[None]
            now = table.now[known].T
            angles = loop.decoder.rope(i, keys, now[:, None] if loop.axes == 3 else now)
            want = rotate(attention_of(loop.text.layers[of]), keys, angles)[0]
            torch.testing.assert_close(held.keys[0][:, known], want, atol=1e-5, rtol=0)
            assert int(table.now.max()) < trained
            moved += held.moved
            if kind.window is not None:
                assert torch.equal(held.positions[0], table.position[:, 0]) and len(table) <= kind.window
    assert moved >= 8
    assert int(stream._state.cache.tables[stream._state.cache.anchor].position.max()) > trained
    stream.ask(QUESTION, max_new_tokens=3)


@pytest.mark.parametrize("family", [family for family in HYBRIDS if family in TURNS])
def test_turns_and_told_text_equal_what_each_layer_saw(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames, a kept turn, told text, frames, a question: all that entered, in one pass over the layers."""
    exact_linear_attention(monkeypatch)
    lm, record, entered = build(family), recorded(monkeypatch), []
    step, run = lm.adapter.frames_per_step, LayerLoop.run

    def noting(loop: LayerLoop, hidden: Tensor, positions: Tensor, visual: Tensor | None, **given: Any) -> Any:
        staying = hidden.shape[1] - given.get("fleeting", 0)
        frames = given["layout"].frame[:, :staying] if given.get("layout") is not None else None
        entered.append((given.get("cache"), hidden[:, :staying], positions[..., :staying], frames))
        return run(loop, hidden, positions, visual, **given)

    monkeypatch.setattr(LayerLoop, "run", noting)
    pyramid = pv.Pyramid(layers=(3, 7), ratios=(0.5, 0.25), scorer="relevance")
    stream = lm.stream(pyramid, pv.Memory(tokens=size_of(lm, 5)))
    stream.push(video(2 * step), [0.5 * i for i in range(2 * step)])
    stream.ask("how many ?", max_new_tokens=3, keep=True)
    stream.add_text("seven blue")
    for n in (10, 20):
        stream.push(video(step, seed=n), [n + 0.5 * i for i in range(step)])
    own, ends = [each for each in entered if each[0] is stream._state.cache], list(record.ends)
    entered.clear()
    got = next_logits(stream)
    steps, parts = 0, []
    for _, _, positions, frames in [*own, *entered]:
        frame = torch.full(positions.shape[-1:], -1) if frames is None else frames[0]
        parts.append(torch.where(frame >= 0, frame + steps, -1))
        steps += int(frame.max()) + 1
    rows = torch.cat([hidden for _, hidden, _, _ in [*own, *entered]], dim=1)
    where = torch.cat([positions for _, _, positions, _ in [*own, *entered]], dim=-1)
    hidden, beside = stream.loop.decoder.parted(rows)
    record.ends[:] = ends
    prefix = len(lm.prompt.before())
    out = layered_stack(stream.loop.text, hidden, where, record, prefix, frame=torch.cat(parts), beside=beside)
    want = stream._ingest.logits(out[0, -1:])[0]
    torch.testing.assert_close(got, want, atol=exact(family), rtol=0)


@pytest.mark.parametrize("family", HYBRIDS)
def test_a_checkpoint_in_its_real_layout_answers_the_same(family: str, tmp_path: Path) -> None:
    lm = build(family, dtype=torch.float32)
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HYBRIDS[family]()[2]))
    loaded = pv.load(tmp_path, dtype="float32", device="cpu", attn="sdpa")
    pixels = Pixels.of(HYBRIDS[family]()[2])
    adapter = type(loaded.adapter)(lm.model, type(loaded.adapter).per_frame(pixels), loaded.tokenizer)
    here = pv.VideoLM(lm.model, adapter, loaded.prompt)
    logits = []
    for each in (loaded, here):
        stream = each.stream(memory=pv.Memory(tokens=size_of(each, 4)))
        stream.push(video(8), [0.5 * i for i in range(8)])
        logits.append(next_logits(stream))
    torch.testing.assert_close(*logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("storage", ["full", "int8"])
@pytest.mark.parametrize("family", ["qwen3_5", "gemma4", "exaone4_5"])
def test_bytes_bound_windows_and_states_too(family: str, storage: str) -> None:
    lm = build(family)
    ingest = lm.stream(memory=pv.Memory(storage=storage))._ingest
    outside = sum(ingest.sizes.outside)
    most = outside + size_of(lm, 4) * sum(ingest.sizes.moved[i] for i in ingest.loop.rank_at)
    stream = lm.stream(memory=pv.Memory(bytes=most, storage=storage))
    held = []
    for n in range(24):
        step = lm.adapter.frames_per_step
        stream.push(video(step, seed=n), [step * n + j for j in range(step)])
        held.append(stream.status.cache_bytes)
        assert stream.status.cache_bytes == sum(layer.nbytes for layer in stream._state.cache.layers)
    assert max(held) <= most == stream.cache_bound
    assert max(held) > 0.5 * most
    with pytest.raises(pv.ConfigError, match="leaves no room"):
        lm.stream(memory=pv.Memory(bytes=outside, storage=storage))


@pytest.mark.parametrize("family", ["qwen3_5", "gemma4", "exaone4_5"])
def test_an_archive_gives_columns_back_to_layers_that_had_them(family: str) -> None:
    """What only a window or a state knew stays gone; the others attend to what they get back."""
    lm = build(family)
    step = lm.adapter.frames_per_step
    small, large = pv.Memory(tokens=size_of(lm, 3), archive=2**22, evictor="oldest"), pv.Memory(tokens=None)
    streams = [lm.stream(EVERYTHING, memory) for memory in (small, large)]
    for n in range(8):
        for stream in streams:
            stream.push(video(step, seed=n), [step * n + j for j in range(step)])
    asked = [
        stream._asked(QUESTION, "", None, retrieve)
        for stream, retrieve in ((streams[0], None), (streams[0], 8), (streams[1], None))
    ]
    forgot, found, knew = (each.prefill() for each in asked)
    columns = [each.state.cache.lengths()[each.state.cache.anchor] for each in asked]
    assert columns[0] < columns[1] == columns[2]
    for i, kind in enumerate(streams[0].loop.kinds):
        if not kind.ranks:
            assert asked[0].state.cache.lengths()[i] == asked[1].state.cache.lengths()[i]
    assert (found - knew).norm() < (forgot - knew).norm()
