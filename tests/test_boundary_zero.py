"""A drop before the first layer: against masks, against the surviving rows alone, and with everything a stream does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from families import FAMILIES, budget, build, cases, video
from reference import full_prompt, masked_forward, stream_masks
from test_asking import asked, attention
from test_flops import rotary_flops
from test_one_shot import llama, masks_of
from test_rank import tapped, transcription  # noqa: F401 - a fixture
from test_session import same
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import pdrop_video as pv
from eval.runner.clock import Clock
from eval.runner.metered import Metered
from pdrop_video import Pyramid, pyramid_drop
from pdrop_video.costs.decoder import DecoderShape, prefill_flops
from pdrop_video.plots import Album
from pdrop_video.plots import kept as kept_pictures
from pdrop_video.pyramid.rank import attention_scores
from pdrop_video.pyramid.scorers import relevance
from pdrop_video.search import Clip, Costs
from pdrop_video.search.search import Judge
from pdrop_video.stream.ingest import Ingestor

QUESTION = "what is shown first ?"
SECONDS = [0.5 * i for i in range(12)]


def visual_of(lm: pv.VideoLM, inputs: dict[str, Any]) -> Tensor:
    """Which tokens of a prompt are visual, by the family's own id [tokens]."""
    return inputs["input_ids"][0] == lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)


# -- one-shot ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundaries", [(0,), (0, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_prefill_equals_masks(family: str, boundaries: tuple[int, ...]) -> None:
    """Deepstack features go on with the survivors: Qwen3-VL adds them behind each of its first three layers."""
    lm = build(family)
    inputs, _, _ = full_prompt(lm, video(6), SECONDS[:6], QUESTION)
    visual = visual_of(lm, inputs)
    n, ratios = int(visual.sum()), [0.6 * 0.7**s for s in range(len(boundaries))]
    with pyramid_drop(lm.model, Pyramid(layers=boundaries, ratios=ratios)) as trace:
        got = lm.model(**inputs).logits[0, -1]
    assert [len(kept[0]) for kept in trace.kept] == [int(n * ratio) for ratio in ratios]
    masks = masks_of(trace, visual, lm.num_layers, boundaries)
    torch.testing.assert_close(got, masked_forward(lm, inputs, masks)[-1], atol=1e-9, rtol=0)
    assert (got - masked_forward(lm, inputs, None)[-1]).abs().max() > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_model_sees_the_survivors_alone(family: str) -> None:
    """The unmodified stack on the rows that are left, with their own positions, and features of theirs alone."""
    lm = build(family)
    stack, seen = lm.model.get_decoder(), {}
    inputs, _, _ = full_prompt(lm, video(6), SECONDS[:6], QUESTION)
    hook = stack.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    lm.model(**inputs)
    hook.remove()
    with pyramid_drop(lm.model, Pyramid(layers=(0,), ratios=(0.3,))) as trace:
        got = lm.model(**inputs, use_cache=True)
    left = trace.rows[0]
    visual = visual_of(lm, inputs)
    given: dict[str, Any] = {"inputs_embeds": seen["inputs_embeds"][:, left], "use_cache": False}
    given["position_ids"] = seen["position_ids"][..., left] if seen.get("position_ids") is not None else left[None]
    if given["position_ids"].ndim == 2:  # gaps would be taken for several samples in one row
        given["attention_mask"] = torch.ones(1, len(left), dtype=torch.long)
    if seen.get("deepstack_visual_embeds") is not None:
        given["visual_pos_masks"] = visual[None, left]
        given["deepstack_visual_embeds"] = [f[trace.kept[0][0]] for f in seen["deepstack_visual_embeds"]]
    want = stack(**given).last_hidden_state
    torch.testing.assert_close(got.logits[0], lm.model.get_output_embeddings()(want)[0], atol=1e-9, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_scores_are_the_first_layers_attention(family: str, tapped: list) -> None:  # noqa: F811
    """By the queries and keys that the unmodified model's first layer makes of the whole prompt, head by head."""
    lm = build(family)
    inputs, _, _ = full_prompt(lm, video(6), SECONDS[:6], QUESTION)
    with pyramid_drop(lm.model, Pyramid(layers=(0,), ratios=(0.3,))) as trace:
        lm.model(**inputs)
    lm.model.get_decoder().set_attn_implementation("tapped")
    lm.model(**inputs)
    visual = visual_of(lm, inputs)
    query, key, scaling = next(
        call[1:] for call in tapped if call[0] == 0 and call[1].shape[2] == len(visual) and call[1].shape[-1] == 16
    )
    want = transcription(query, key, scaling, len(visual) - 1)[visual]
    torch.testing.assert_close(trace.scores[0][0], want, atol=1e-12, rtol=0)
    best = want.argsort(descending=True)[: int(int(visual.sum()) * 0.3)]
    assert trace.kept[0][0].tolist() == sorted(best.tolist())


@pytest.mark.parametrize("boundaries", [(0,), (0, 3)])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_generation_goes_on_where_the_prompt_ended(family: str, boundaries: tuple[int, ...]) -> None:
    """Though no layer holds the whole prompt: logits of each token equal those under masks, positions and all."""
    lm = build(family)
    inputs, _, _ = full_prompt(lm, video(4), SECONDS[:4], QUESTION)
    prompt = inputs["input_ids"].shape[1]
    with pyramid_drop(lm.model, Pyramid(layers=boundaries, ratios=(0.5, 0.2)[: len(boundaries)])) as trace:
        out = lm.model.generate(
            **inputs, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        kept = [[each[0].clone()] for each in trace.kept]
    assert out.past_key_values.get_seq_length() == prompt + 3
    assert out.past_key_values.layers[0].keys.shape[-2] < prompt
    ids = out.sequences[:, :-1]
    more = dict(inputs, input_ids=ids)
    if "position_ids" in inputs:
        after = inputs["position_ids"].max() + 1 + torch.arange(3)
        more["position_ids"] = torch.cat([inputs["position_ids"], after.expand(3, 1, 3)], -1)
    visual = torch.nn.functional.pad(visual_of(lm, inputs), (0, 3))
    want = masked_forward(lm, more, masks_of(pv.Trace(kept), visual, lm.num_layers, boundaries))[-4:]
    torch.testing.assert_close(torch.cat(out.logits), want.float(), atol=3e-5, rtol=0)  # generate's are float32


@pytest.mark.parametrize("boundaries", [(0,), (0, 3)])
@torch.no_grad()
def test_a_cache_goes_on_inside_a_block_alone(boundaries: tuple[int, ...]) -> None:
    """Without position ids, which then follow from how much was read; and a copy of it does, too."""
    model, ids = llama(3), torch.arange(1, 21)[None]
    visual, more = torch.zeros(1, 20, dtype=torch.bool), torch.arange(30, 35)[None]
    visual[:, 3:15] = True
    with pyramid_drop(model, Pyramid(layers=boundaries, ratios=(0.5, 0.25)[: len(boundaries)]), visual=visual) as trace:
        cache = model(input_ids=ids).past_key_values
        kept = [[each[0].clone()] for each in trace.kept]
        twin = copy.deepcopy(cache)
        got = model(input_ids=more, past_key_values=cache).logits[0]
        masked = model(input_ids=more, past_key_values=twin, attention_mask=torch.ones(1, 25)).logits[0]
    pad = torch.nn.functional.pad(visual, (0, 5))[0]
    masks = masks_of(pv.Trace(kept), pad, 6, boundaries)
    lm = pv.VideoLM(model, None, None)  # type: ignore[arg-type]
    want = masked_forward(lm, {"input_ids": torch.cat([ids, more], 1)}, masks)[-5:]
    for each in (got, masked):
        torch.testing.assert_close(each, want, atol=1e-9, rtol=0)
    with pytest.raises(pv.ModelError, match="inside a pyramid_drop block"):
        model(input_ids=more, past_key_values=cache)


def resets() -> bool:
    """Whether a reset leaves nothing in a cache; transformers 5.16 fills it with zeros."""
    cache = tf.DynamicCache()
    cache.update(torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 2, 8), 0)
    cache.reset()
    return cache.get_seq_length() == 0


@pytest.mark.skipif(not resets(), reason="to this transformers a reset cache is one of zeros")
@pytest.mark.parametrize("boundaries", [(0,), (0, 3)])
@torch.no_grad()
def test_a_cache_that_was_reset_is_a_new_one(boundaries: tuple[int, ...]) -> None:
    model, ids = llama(3), torch.arange(1, 21)[None]
    visual, more = torch.zeros(1, 20, dtype=torch.bool), torch.arange(30, 35)[None]
    visual[:, 3:15] = True
    logits, cache = [], tf.DynamicCache()
    for _ in range(2):
        with pyramid_drop(model, Pyramid(layers=boundaries, ratios=(0.5, 0.25)[: len(boundaries)]), visual=visual):
            model(input_ids=ids, past_key_values=cache)
            logits.append(model(input_ids=more, past_key_values=cache).logits[0])
        cache.reset()
    torch.testing.assert_close(logits[1], logits[0], atol=1e-12, rtol=0)


@torch.no_grad()
def test_a_padded_batch_equals_its_samples() -> None:
    """One of them without visual tokens: of it nothing is dropped, and positions still go on for each."""
    model, pyramid = llama(), Pyramid(layers=(0, 3), ratios=(0.5, 0.25))
    lengths, spans, longest = [20, 26, 23], [(3, 13), (5, 22), (2, 2)], 26
    generator = torch.Generator().manual_seed(1)
    ids, visual = torch.zeros(3, longest, dtype=torch.long), torch.zeros(3, longest, dtype=torch.bool)
    mask = torch.zeros(3, longest, dtype=torch.long)
    for b, (n, (first, end)) in enumerate(zip(lengths, spans, strict=True)):
        ids[b, -n:] = torch.randint(1, 60, (n,), generator=generator)
        visual[b, longest - n + first : longest - n + end], mask[b, -n:] = True, 1
    asked = dict(max_new_tokens=5, do_sample=False, output_logits=True, return_dict_in_generate=True)
    with pyramid_drop(model, pyramid, visual=visual):
        together = model.generate(input_ids=ids, attention_mask=mask, **asked)
    for b, n in enumerate(lengths):
        with pyramid_drop(model, pyramid, visual=visual[b : b + 1, -n:]):
            alone = model.generate(input_ids=ids[b : b + 1, -n:], attention_mask=mask[b : b + 1, -n:], **asked)
        for step in range(5):
            torch.testing.assert_close(together.logits[step][b], alone.logits[step][0], atol=1e-9, rtol=0)


@torch.no_grad()
def test_compact_positions_are_those_of_a_shorter_prompt() -> None:
    """As if the dropped rows had never been written, in the prompt and in what follows it."""
    model, ids = llama(5), torch.arange(1, 21)[None]
    visual = torch.zeros(1, 20, dtype=torch.bool)
    visual[:, 3:15] = True
    told: dict[str, Any] = dict(max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True)
    with pyramid_drop(model, Pyramid(layers=(0,), ratios=(0.5,), positions="compact"), visual=visual) as trace:
        got = model.generate(input_ids=ids, attention_mask=torch.ones(1, 20), **told)
        left = trace.rows[0]
    want = model.generate(input_ids=ids[:, left], attention_mask=torch.ones(1, len(left)), **told)
    torch.testing.assert_close(torch.cat(got.logits), torch.cat(want.logits), atol=3e-5, rtol=0)


def test_training_equals_the_survivors_alone() -> None:
    """Loss and gradients, the embeddings' own included: those of what was dropped are zero."""
    model, ids = llama(4).train(), torch.arange(1, 23)[None]
    visual = torch.zeros(1, 22, dtype=torch.bool)
    visual[:, 3:15] = True
    labels = ids.masked_fill(torch.arange(22)[None] < 18, -100)
    with pyramid_drop(model, Pyramid(layers=(0,), ratios=(0.5,)), visual=visual) as trace:
        loss = model(input_ids=ids, labels=labels).loss
    loss.backward()
    got = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    left = trace.rows[0]
    want = model(
        input_ids=ids[:, left], labels=labels[:, left], position_ids=left[None], attention_mask=torch.ones(1, len(left))
    ).loss
    want.backward()
    torch.testing.assert_close(loss, want, atol=1e-9, rtol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, atol=1e-9, rtol=0)
    gone = ids[0, 3:15][~torch.isin(torch.arange(12), trace.kept[0][0])]
    assert len(gone) == 6 and not got["model.embed_tokens.weight"][gone].any()


@pytest.mark.parametrize("boundaries", [(0,), (0, 3)])
@torch.no_grad()
def test_the_exact_count_of_flops_equals_pytorch(boundaries: tuple[int, ...]) -> None:
    model = llama().float()
    model.set_attn_implementation("eager")
    visual, pyramid = torch.zeros(1, 40, dtype=torch.bool), Pyramid(layers=boundaries, ratio=0.5)
    visual[:, 5:33] = True
    with pyramid_drop(model, pyramid, visual=visual), FlopCounterMode(display=False) as counter:
        model(inputs_embeds=torch.randn(1, 40, 32), logits_to_keep=1)
    shape = DecoderShape.of(model.config)
    want = prefill_flops(shape, pyramid.resolve(6), visual=28, text=12, causal=False)
    assert counter.get_total_flops() - rotary_flops(counter) == want


# -- streams ----------------------------------------------------------------------------------------------------------


@contextmanager
def noted(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[list[Tensor]], list[int]]]:
    """After every piece that enters, the numbers of the tokens that each layer holds, and how many came so far."""
    held: list[list[Tensor]] = []
    ends: list[int] = []
    prefill = Ingestor._prefill

    def noting(ingest: Ingestor, state: Any, piece: Any) -> None:
        prefill(ingest, state, piece)
        held.append([table.index for table in state.cache.tables])
        ends.append(state.rows)

    with monkeypatch.context() as patch:
        patch.setattr(Ingestor, "_prefill", noting)
        yield held, ends


def masks(held: list[list[Tensor]], ends: list[int], prefix: int, total: int, asking: list[Tensor]) -> Tensor:
    """What each layer lets each token see [layers, total, total]; what was dropped before layer 0 sees itself alone."""
    allowed = stream_masks([], prefix, total, asking)  # the prompt, and the question over `asking`
    allowed[:, prefix : ends[-1]] = False
    allowed[:, ends[-1] :, prefix : ends[-1]] = False
    for first, end, layers in zip([prefix, *ends], ends, held, strict=False):
        for i, index in enumerate(layers):
            allowed[i, first:end, index] = True
    for i, index in enumerate(asking):
        allowed[i, ends[-1] :, index] = True
    tokens = torch.arange(total)
    return (allowed & (tokens <= tokens[:, None])) | torch.eye(total, dtype=torch.bool)


PYRAMIDS = (
    Pyramid(layers=(0,), ratios=(0.5,)),
    Pyramid(layers=(0, 2, 4), ratios=(0.7, 0.5, 0.3), scorer="relevance"),
    Pyramid(layers=(0, 1), ratios=(0.0001, 0.0001), scorer="novelty"),  # nothing visual is left
)


@pytest.mark.parametrize(
    ("family", "pyramid", "room"),
    cases(FAMILIES, PYRAMIDS, (None, 3), fast=lambda f, p, r: p == f % 3 or (f == 2 and r)),
)
def test_a_stream_equals_masks(
    family: str, pyramid: Pyramid, room: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every layer sees what its cache held when a token came, from the first layer on less than what entered."""
    lm = build(family)
    step, tokens = lm.adapter.frames_per_step, budget(lm, room)
    inputs, prefix, video_tokens = full_prompt(lm, video(6 * step), SECONDS[: 6 * step], QUESTION)
    stream = lm.stream(pyramid, pv.Memory(tokens=tokens))
    with noted(monkeypatch) as (held, ends):
        for i in range(3):
            part = slice(2 * step * i, 2 * step * (i + 1))
            stream.push(video(6 * step)[part], SECONDS[part])
    assert ends[-1] == prefix + video_tokens
    with torch.no_grad():
        got = stream.next_logits(QUESTION)
    allowed = masks(held, ends, prefix, inputs["input_ids"].shape[1], held[-1])
    torch.testing.assert_close(got, masked_forward(lm, inputs, allowed)[-1], atol=1e-9, rtol=0)
    schedule, chunk = pyramid.resolve(lm.num_layers), stream.visual_tokens // 3
    for table, entered in zip(stream._state.cache.tables, schedule.per_layer(chunk), strict=True):
        kept = int(table.visual.sum())
        assert kept == 3 * entered if room is None else kept <= 3 * entered


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_in_a_stream_are_the_first_layers_attention(
    family: str,
    tapped: list,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a memory behind it, which the probe sees as well; by what layer 0, which then runs all rows, attends to."""
    lm, ranked = build(family), []

    def recording(*args: Any, **kwargs: Any) -> Tensor:
        ranked.append(attention_scores(*args, **kwargs))
        return ranked[-1]

    monkeypatch.setattr(relevance, "attention_scores", recording)
    lm.model.get_decoder().set_attn_implementation("tapped")
    stream = lm.stream(Pyramid(layers=(0, 3), ratios=(1.0, 0.5), scorer="relevance"), pv.Memory(tokens=None))
    stream.push(video(4), [0, 1, 2, 3])
    tapped.clear()
    ranked.clear()
    stream.push(video(4, seed=1), [4, 5, 6, 7])
    query, key, scaling = next(call[1:] for call in tapped if call[0] == 0)
    rows = query.shape[2]
    assert key.shape[2] > rows
    want = transcription(query, key, scaling, rows - 1)[-rows:]
    torch.testing.assert_close(ranked[0][0], want, atol=1e-12, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_question_drops_before_the_first_layer(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the first layer's own attention, over all that is remembered, gives; the logits by masks."""
    lm = build(family, "eager")
    step, pyramid = lm.adapter.frames_per_step, Pyramid(layers=(0, 3), ratios=(0.5, 0.2))
    frames, seconds = video(4 * step), SECONDS[: 4 * step]
    inputs, prefix, _ = full_prompt(lm, frames, seconds, QUESTION)
    stream, total = lm.stream(Pyramid(stages=1), pv.Memory(tokens=None)), inputs["input_ids"].shape[1]
    with noted(monkeypatch) as (held, ends):
        stream.push(frames, seconds)
    got, question = asked(stream, pyramid)
    table = stream._state.cache.tables[0].in_time()
    visual, kept = table.index[table.visual], list(held[-1])
    for stage, layer, ratio in ((1, 0, 0.5), (2, 3, 0.2)):
        weight = attention(lm, inputs, masks(held, ends, prefix, total, kept), layer)
        best = visual[weight[visual].argsort(descending=True)[: int(len(visual) * ratio)]]
        kept[layer : layer + 3] = [torch.cat([table.index[~table.visual], best])] * 3
        evidence = question.evidence[stage]
        assert sum(evidence.tokens) == len(best)
        assert sum(evidence.weight) == pytest.approx(float(weight[best].sum()), abs=1e-5)
    cache = question.state.cache
    for layer, held_now, index in zip(cache.layers, cache.tables, kept, strict=True):
        assert layer.shown is not None  # the others are hidden, not gone
        assert torch.equal(held_now.index[layer.shown].sort().values, index.sort().values)
    want = masked_forward(lm, inputs, masks(held, ends, prefix, total, kept))[-1]
    torch.testing.assert_close(got, want, atol=2e-5, rtol=0)
    assert question.evidence[0] == type(question.evidence[0])((), (), ())  # no layer runs stage 0


@pytest.mark.parametrize("evictor", ["pyramid", "stream_mem", "hermes"])
@pytest.mark.parametrize("family", cases(FAMILIES, fast=lambda f: f in (0, 2, 3)))
def test_resumed_equals_never_saved(family: str, evictor: str, tmp_path: Path) -> None:
    """What contrast learned before the first layer is saved with the rest; some evictors have the probe run on."""
    lm = build(family)
    memory = pv.Memory(tokens=budget(lm, 3), evictor=evictor)
    stream = lm.stream(Pyramid(layers=(0, 3), ratios=(0.8, 0.4)), memory)
    for i in range(3):
        stream.push(video(5, seed=i), [5 * i + j for j in range(5)])
    assert list(stream._state.usual) == [0]
    stream.save(tmp_path / "a.pdrop")
    resumed = lm.resume(tmp_path / "a.pdrop")
    for each in (stream, resumed):
        each.push(video(4, seed=9), [20, 21, 22, 23])
    same(stream, resumed)
    first, second = (each.ask(QUESTION, 3) for each in (stream, resumed))
    assert (first.token_ids, first.kept, first.evidence) == (second.token_ids, second.kept, second.evidence)
    assert torch.equal(stream.next_logits(QUESTION), resumed.next_logits(QUESTION))


@pytest.fixture
def watched() -> tuple[pv.VideoStream, Album]:
    lm, album = build("qwen2_5_vl"), Album()
    stream = lm.stream(Pyramid(layers=(0, 3), ratios=(0.5, 0.25)), pv.Memory(tokens=None))
    for first in (0, 4):
        chunk = pv.FrameChunk.of(video(4, seed=first), [first + i for i in range(4)], "test")
        pushed = stream.push(chunk)
        assert pushed.kept == (18, 9, 4) and pushed.visual_tokens == 18
        album.add(stream, chunk)
    return stream, album


def test_nothing_remembers_what_no_layer_ran(watched: tuple[pv.VideoStream, Album]) -> None:
    stream, _ = watched
    lengths = [len(stream.held(stage)) for stage in (0, 1, 2, -1, -2, -3)]
    assert lengths[0] == lengths[5] == 0 and lengths[1] == lengths[4] > lengths[2] == lengths[3] > 0
    assert torch.equal(stream.held(1).index, stream._state.cache.tables[0].in_time().index)
    visual = [int(stream.held(stage).visual.sum()) for stage in range(3)]
    assert visual == [0, 18, 8]  # of two chunks of 18
    answer = stream.ask(QUESTION, 2)
    assert answer.kept == tuple(visual) and answer.cache_tokens == stream.cache_tokens
    with pytest.raises(pv.ConfigError, match="stages 0 to 2"):
        stream.held(3)


def test_pictures_leave_out_what_no_layer_ran(watched: tuple[pv.VideoStream, Album]) -> None:
    stream, album = watched
    for seconds in album.seconds:
        overlays = album.at(stream, seconds)
        assert [(each.stage, each.layers) for each in overlays] == [(1, (0, 2)), (2, (3, 5))]
        held = [stream.held(each.stage) for each in overlays]
        assert [each.kept for each in overlays] == [int((h.visual & (h.seconds == seconds)).sum()) for h in held]
    drawn = [sum(bar.get_height() for bar in axis.patches) for axis in stream.plot_memory().axes]
    assert drawn == [18, 8]
    assert len(kept_pictures(stream, album).axes) == 2 * len(album.seconds)
    answer = stream.ask(QUESTION, 2, pyramid=Pyramid(layers=(0, 2), ratios=(0.5, 0.1)))
    assert [axis.get_ylabel() for axis in answer.plot().axes] == ["stage 2", "stage 3"]


def test_a_search_judges_it_and_counts_what_it_costs() -> None:
    """Nothing dropped before the first layer is nothing changed; and what is costs less and moves the next token."""
    lm = build("qwen2_5_vl")
    judge = Judge(lm, [Clip("a", [pv.FrameChunk.of(video(4), [0, 1, 2, 3], "a")], [QUESTION])])
    divergence = [judge.divergence(Pyramid(layers=(0,), ratios=(ratio,))) for ratio in (1.0, 0.5, 0.1)]
    assert divergence[0] == pytest.approx(0, abs=1e-12) and min(divergence[1:]) > 1e-6
    costs = Costs(DecoderShape.of(lm.model.config), 1000)
    shares = [costs.share(Pyramid(layers=(layer,), ratios=(0.5,))) for layer in (0, 1, 2)]
    assert shares[0] < shares[1] < shares[2] < 1  # the earlier the drop, the less it costs


def test_a_metered_stream_counts_what_each_layer_holds(watched: tuple[pv.VideoStream, Album]) -> None:
    stream, _ = watched
    metered = Metered(stream, DecoderShape.of(stream.lm.model.config), Clock())
    assert metered.kept == [0, 18, 8]
    assert [visual + text for visual, text in metered.attended()] == list(stream.cache_tokens)
    asking = metered.attended(Pyramid(layers=(0, 2), ratios=(0.5, 0.1)))
    assert [visual for visual, _ in asking] == [9] * 2 + [1] * 4
