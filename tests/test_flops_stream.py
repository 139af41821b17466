"""FLOPs of whole streams: what PyTorch counts while frames are pushed, forgotten and asked about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers as tf
from families import FAMILIES, budget, build, video
from test_flops import rotary_flops
from torch.utils.flop_counter import FlopCounterMode

import pdrop_video as pv
from eval.runner.clock import Clock
from eval.runner.metered import Metered
from pdrop_video.costs.decoder import DecoderShape, layer_flops, prefill_flops
from pdrop_video.costs.stream import StreamShape, Watched, stream_flops
from pdrop_video.costs.way import WayFlops, video_flops
from pdrop_video.models import describe
from pdrop_video.pyramid.scorers import SCORERS
from pdrop_video.pyramid.scorers.relevance import Relevance

QUESTION = "what is shown"


class Count:
    """What PyTorch counted, without RoPE's angles, which it takes for a small product."""

    total = 0


@contextmanager
def counting() -> Iterator[Count]:
    count = Count()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        yield count
    count.total = counter.get_total_flops() - rotary_flops(counter)


class Watch:
    """A stream of random pictures, and the numbers of tokens that its pushes brought, as the adapter alone says."""

    def __init__(self, lm: pv.VideoLM, *args: Any, asks: bool = False, **kwargs: Any) -> None:
        self.lm, self.frames, self.steps, self.tower = lm, 0, 0, 0
        self.pieces: list[tuple[int, int]] = []
        lm.stream().close()  # once for each model its decoder is tried
        with counting() as opened:
            self.stream = lm.stream(*args, **kwargs)
        self.counted, ingest = opened.total, self.stream._ingest
        self.prefix = len(lm.prompt.before())
        self.shape = StreamShape.of(
            DecoderShape.of(lm.model.config),
            self.stream.loop,
            len(ingest.probe),
            asks=asks,
            limits=ingest.limits.tokens,
            causal=False,  # eager attention computes the whole square
            closing=len(lm.adapter.closing()),
        )

    def push(self, frames: int, height: int = 60, width: int = 72) -> None:
        seconds = tuple((self.frames + i) / 2 for i in range(frames))
        pictures = video(frames, seed=self.frames, height=height, width=width)
        with counting() as pushed:
            self.stream.push(pictures, seconds)
        self.counted += pushed.total
        chunk = self.lm.adapter.look(pictures, seconds, first=self.steps)
        tower = self.lm.adapter.tower(*chunk.size)
        assert tower is not None
        self.tower += tower.flops(len(chunk.steps))
        self.pieces.append((chunk.visual_tokens, len(chunk) - chunk.visual_tokens))
        self.frames, self.steps = self.frames + frames, self.steps + len(chunk.steps)

    def watched(self) -> Watched:
        return stream_flops(self.shape, self.pieces, prefix=self.prefix)

    def check(self) -> None:
        watched = self.watched()
        assert self.stream.cache_tokens == watched.held
        assert watched.flops + self.tower == self.counted

    def check_question(self, tokens: int = 4) -> None:
        with counting() as asked:
            answer = self.stream.ask(QUESTION, tokens)
        rows = len(self.lm.adapter.closing()) + len(self.lm.prompt.after(QUESTION))
        tokens = len(answer.token_ids) + answer.finished
        assert asked.total == self.shape.asking_flops(self.watched().held, rows, tokens)


@pytest.mark.parametrize("question", [None, "how many red"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_stream(family: str, question: str | None) -> None:
    """Pushes of unequal lengths that drop and evict, a question and its answer; with a probe and without."""
    lm = build(family, "eager", dtype=torch.float32)
    memory = pv.Memory(tokens=budget(lm, 7))
    watch = Watch(lm, pv.Pyramid(ratios=(0.6, 0.3)), memory, standing_question=question)
    for frames in (2, 4, 2, 4, 4):
        watch.push(frames)
    limits = watch.shape.limits
    assert limits is not None and watch.stream.cache_tokens[0] == limits[0] - watch.shape.probe
    assert bool(watch.shape.probe) == (question is not None)
    watch.check()
    watch.check_question()


class OnceRelevant(Relevance):
    once = True


@pytest.mark.parametrize("scorer", [*SCORERS, OnceRelevant()], ids=[*SCORERS, "once"])
def test_every_scorer_says_what_it_costs(scorer: Any) -> None:
    for family in ("qwen2_5_vl", "llava_onevision"):  # a row closes the latter's videos
        watch = Watch(build(family, "eager", dtype=torch.float32), pv.Pyramid(stages=3, scorer=scorer))
        for frames in (4, 2):
            watch.push(frames)
        watch.check()


def test_pictures_of_another_size_and_scores_where_nothing_is_dropped() -> None:
    """Pushes bring different numbers of tokens; an evictor that goes by scores has them ranked all the same."""
    lm = build("qwen3_vl", "eager", dtype=torch.float32)
    watch = Watch(lm, pv.Pyramid(stages=1, scorer="relevance"), pv.Memory(tokens=budget(lm, 5)))
    for height, width in ((60, 72), (40, 120), (100, 60), (20, 90)):
        watch.push(4, height, width)
    assert watch.shape.ranks_at == (1,) and len(set(watch.pieces)) > 1
    watch.check()
    watch.check_question()


@pytest.mark.parametrize("evictor", ["hermes", "stream_mem"])
def test_a_probe_that_asks_in_every_layer(evictor: str) -> None:
    """As long as nothing is evicted: what these evictors multiply themselves is not counted."""
    lm = build("internvl", "eager", dtype=torch.float32)
    watch = Watch(lm, pv.Pyramid(), pv.Memory(tokens=4000, evictor=evictor), asks=True)
    for frames in (2, 3):
        watch.push(frames)
    assert watch.shape.probe
    watch.check()


def test_the_built_in_model() -> None:
    lm = pv.load(attn="eager", dtype="float32")
    watch = Watch(lm, pv.Pyramid(), pv.Memory(tokens=120), standing_question=QUESTION)
    for frames in (4, 6, 4):
        watch.push(frames, 96, 128)
    watch.check()
    watch.check_question()


def test_a_question_that_drops_ranks_at_every_stage() -> None:
    lm = build("smolvlm", "eager", dtype=torch.float32)
    watch = Watch(lm, pv.Pyramid(stages=1), pv.Memory(tokens=None))
    watch.push(3)
    visual, glue = watch.pieces[0]
    text = watch.prefix + glue
    with counting() as asked:
        watch.stream.ask(QUESTION, 1, pyramid=pv.Pyramid(ratios=(0.5, 0.25)), decode="none")
    rows = len(lm.prompt.after(QUESTION))
    attended = [text + n for n in (visual, visual, visual // 2, visual // 2, visual // 4, visual // 4)]
    ranked = {layer: text + visual for layer in (0, 2, 4)}
    assert asked.total == watch.shape.asking_flops(attended, rows, 1, ranked)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl"])
def test_what_a_run_records(family: str) -> None:
    """Pushes that the budget cuts up, notes, told text, an odd frame that waits, steps that methods thin out."""
    lm = build(family, "eager", dtype=torch.float32)
    lm.stream().close()
    memory, question = pv.Memory(tokens=budget(lm, 4)), "how many red"
    stream = lm.stream(pv.Pyramid(stages=3), memory, gate="static", reducer="evs", standing_question=question)
    metered = Metered(stream, DecoderShape.of(lm.model.config), Clock(), causal=False)
    pictures = video(24)
    pictures[4:6] = pictures[3]  # nothing new to see
    with counting() as watched:
        for first, last in ((0, 3), (3, 23), (23, 24)):
            metered.push(pv.FrameChunk(pictures[first:last], tuple(i / 2 for i in range(first, last))))
            if first == 3:
                stream._note(pv.Note(0, 11, "red ."), 4)
                metered.add_text("red blue .")
                metered.add_text("seven")
                assert len(stream._state.pieces) > 1 and stream.status.skipped
    assert metered.tower and metered.front
    assert watched.total == metered.flops + metered.tower
    with counting() as asked:
        answer = stream.ask(QUESTION, 3)
    rows, tokens = metered.rows(QUESTION), len(answer.token_ids) + answer.finished
    assert asked.total == metered.asking_flops(rows, tokens)
    with counting() as compared:
        stream.likelihood(QUESTION, ["seven", "red blue ."])
    assert compared.total == metered.asking_flops(rows, 1, options=["seven", "red blue ."])


@pytest.mark.parametrize("waiting", [1, 2])
def test_a_question_sees_an_odd_frame_without_its_partner(waiting: int) -> None:
    lm = build("qwen3_vl", "eager", dtype=torch.float32)
    stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=budget(lm, 3)))
    metered = Metered(stream, DecoderShape.of(lm.model.config), Clock(), causal=False)
    metered.push(pv.FrameChunk(video(4 + waiting), tuple(map(float, range(4 + waiting)))))
    with counting() as asked:
        stream.ask(QUESTION, 1)
    tower = metered.asking_tower()
    assert tower is not None and bool(tower) == (waiting == 1)
    assert asked.total == metered.asking_flops(metered.rows(QUESTION), 1) + tower


def test_the_whole_way_is_the_sum_of_its_parts() -> None:
    config, adapter = describe()
    shape = StreamShape(DecoderShape.of(config), pv.Pyramid().resolve(8), limits=(300,) * 8)
    tower = adapter.tower(4, 3)
    assert tower is not None
    whole = video_flops(adapter, shape, 10, (4, 3), chunk=4, glue=2, prefix=5)
    watched = stream_flops(shape, [(48, 8), (48, 8), (24, 4)], prefix=5)
    assert whole == WayFlops(tower.flops(10), watched.flops) and whole.total == tower.flops(10) + watched.flops
    # a gate lets 7 of the steps through, a reducer leaves 5 tokens of each
    fewer = video_flops(adapter, shape, 10, (4, 3), encoded=7, left=5, gate=11, reducer=13)
    watched = stream_flops(shape, [(35, 0)])
    assert fewer == WayFlops(tower.flops(7), watched.flops, 11, 13)
    assert fewer.total == tower.flops(7) + watched.flops + 24
    assert WayFlops(None, 1).total is None and WayFlops(1, None).total is None
    assert video_flops(adapter, shape, 10, (4, 3), encoded=0, gate=11).total == 11


SIZES: dict[str, Any] = dict(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
)
QWEN: dict[str, Any] = dict(SIZES, moe_intermediate_size=48, num_experts=8, num_experts_per_tok=3)


@pytest.mark.parametrize(
    "config",
    [
        tf.Qwen3MoeConfig(**QWEN, head_dim=16),
        tf.MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
        tf.Qwen2MoeConfig(**QWEN, shared_expert_intermediate_size=32),
        tf.Qwen3MoeConfig(**QWEN, head_dim=16, mlp_only_layers=[0]),
        tf.Qwen3MoeConfig(**QWEN, head_dim=16, decoder_sparse_step=2),
    ],
    ids=["all", "other names", "shared", "some layers", "every second layer"],
)
def test_of_experts_those_that_run_are_counted(config: Any) -> None:
    model = tf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    model.set_experts_implementation("eager")
    with counting() as counted:
        model(inputs_embeds=torch.randn(1, 20, 64), logits_to_keep=1)
    schedule = pv.Pyramid(stages=1).resolve(4)
    assert counted.total == prefill_flops(DecoderShape.of(config), schedule, 20, 0, causal=False)


def test_other_experts_have_no_figure() -> None:
    """Here text and pictures pass experts of different sizes."""
    shape = DecoderShape.of(tf.Ernie4_5_VLMoeConfig())
    with pytest.raises(pv.ModelError, match="not counted: its experts are chosen, or sized"):
        layer_flops(shape, 1, 5)
    _, adapter = describe()
    whole = video_flops(adapter, StreamShape(shape, pv.Pyramid(stages=1).resolve(shape.layers)), 2, (4, 3))
    assert whole.decoder is None and whole.tower
