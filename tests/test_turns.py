"""Conversations: kept turns, told text, answers begun for the model, likelihoods; each equal to one plain forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import FAMILIES, budget, build, cases, video
from reference import bound, full_prompt, masked, recorded, stream_masks
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import StreamCache
from pdrop_video.models import Place

QUESTION, OTHER = "what is shown first ?", "how many ?"
EVERYTHING = (pv.Pyramid(stages=1), pv.Memory(tokens=None))


@torch.no_grad()
def next_logits(stream: pv.VideoStream, question: str = OTHER) -> Tensor:
    asked = stream._asked(question, "", None)
    logits = asked.prefill()
    asked.close()
    return logits


class Plain:
    """A conversation written out as rows, and one forward of the unmodified decoder over them."""

    def __init__(self, lm: pv.VideoLM) -> None:
        self.lm, self.positions, self.place = lm, lm.adapter.positions, Place()
        self.rows: list[Tensor] = []
        self.ids: list[Tensor] = []
        self.features: list[list[Tensor]] = []
        self.tokens: list[Tensor] = []
        self.text(lm.prompt.before())

    def text(self, ids: list[int], closing: bool = False) -> None:
        adapter = self.lm.adapter
        rows = torch.cat([adapter.closing(), adapter.embed(ids)]) if closing else adapter.embed(ids)
        position, self.place = self.positions.text(len(rows), self.place)
        self._add(rows, position, (), torch.tensor([-1] * (len(rows) - len(ids)) + ids))

    def watch(self, frames: Tensor, seconds: list[float], first: int) -> None:
        chunk = self.lm.adapter.look(frames, tuple(seconds), first)
        position, self.place = self.lm.adapter.place(chunk, self.place)
        self._add(chunk.embeds, position, chunk.deepstack, chunk.ids)

    def _add(self, rows: Tensor, position: Tensor, features: tuple[Tensor, ...], tokens: Tensor | None) -> None:
        self.tokens.append(torch.full((len(rows),), -1) if tokens is None else tokens)
        self.rows.append(rows)
        self.ids.append(position)
        self.features.append(list(features) or [torch.zeros_like(rows)] * 3)

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    @torch.no_grad()
    def logits(self, allowed: Tensor | None = None) -> Tensor:
        """Of the last row; `allowed` as for `reference.masked`."""
        text, extra = self.lm.model.get_decoder(), {}
        rows, ids = torch.cat(self.rows)[None], torch.cat(self.ids, dim=-1)
        if hasattr(self.lm.model.config.vision_config, "deepstack_visual_indexes"):
            features = [torch.cat(parts) for parts in zip(*self.features, strict=True)]
            everywhere = torch.ones(rows.shape[:2], dtype=torch.bool)
            extra = dict(visual_pos_masks=everywhere, deepstack_visual_embeds=features)
        if self.lm.model.config.model_type == "molmo2":
            allowed = bound(self.lm, torch.cat(self.tokens), allowed)
        with masked(text, allowed):
            hidden = text(inputs_embeds=rows, position_ids=ids, use_cache=False, **extra).last_hidden_state
        return self.lm.model.get_output_embeddings()(hidden[0, -1])


@pytest.mark.parametrize("family", FAMILIES)
def test_several_turns_equal_one_forward(family: str) -> None:
    """Watch, ask and keep, ask again at once, watch on, ask: all of it is one conversation."""
    lm = build(family)
    step, prompt = lm.adapter.frames_per_step, lm.prompt
    stream, plain = lm.stream(*EVERYTHING), Plain(lm)
    stream.push(video(2 * step), [float(i) for i in range(2 * step)])
    plain.watch(video(2 * step), [float(i) for i in range(2 * step)], 0)
    first = stream.ask(QUESTION, max_new_tokens=4, keep=True)
    plain.text(prompt.after(QUESTION), closing=True)
    plain.text([*first.token_ids, *prompt.again(OTHER)])
    torch.testing.assert_close(next_logits(stream), plain.logits(), atol=1e-9, rtol=0)

    second = stream.ask(OTHER, max_new_tokens=3, keep=True)  # a turn without a video
    plain.text([*second.token_ids, *prompt.again()])
    seconds = [20.0 + i for i in range(3 * step)]
    stream.push(video(step, seed=1), seconds[:step])
    stream.push(video(2 * step, seed=2), seconds[step:])
    plain.watch(torch.cat([video(step, seed=1), video(2 * step, seed=2)]), seconds, 0)
    plain.text(prompt.after(QUESTION), closing=True)
    torch.testing.assert_close(next_logits(stream, QUESTION), plain.logits(), atol=1e-9, rtol=0)
    assert stream.ask(QUESTION, 1).visual_tokens == sum(1 for v in stream.held().visual.tolist() if v)


@pytest.mark.parametrize(
    ("family", "evictor", "room"),
    cases(
        FAMILIES,
        ("oldest", "window", "random", "uniform", "streaming_vlm", "infinipot_v", "pyramid"),  # those that do not merge
        (None, 6, 4.5),
        fast=lambda f, e, r: e == f and r == 1 + f % 2,
    ),
)
def test_turns_under_drops_and_evictions_equal_masks(
    family: str, evictor: str, room: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversation of three videos: every row sees what each layer held when it came, the turns included."""
    lm = build(family)
    step, prompt, tokens = lm.adapter.frames_per_step, lm.prompt, budget(lm, room)
    snapshots, plain = recorded(monkeypatch, tokens), Plain(lm)
    pyramid, memory = pv.Pyramid(layers=(1, 2, 4), ratios=(0.7, 0.5, 0.2)), dict(evictor=evictor, positions="original")
    stream, prefix = lm.stream(pyramid, pv.Memory(tokens=tokens, **memory)), len(prompt.before())
    seen: list[int] = []
    for number in range(3):
        if number:
            plain.text([*seen, *prompt.again()])
        frames, seconds = video(3 * step, seed=number), [20.0 * number + i for i in range(3 * step)]
        stream.push(frames[:step], seconds[:step])
        stream.push(frames[step:], seconds[step:])
        plain.watch(frames, seconds, 0)
        seen = list(stream.ask("red ?", max_new_tokens=3, keep=True).token_ids)
        plain.text(prompt.after("red ?"), closing=True)
    plain.text([*seen, *prompt.again(OTHER)])
    allowed = stream_masks(snapshots, prefix, len(plain), snapshots[-1])
    got = next_logits(stream)
    torch.testing.assert_close(got, plain.logits(allowed), atol=1e-9, rtol=0)
    assert (got - plain.logits(allowed.roll(1, 0))).abs().max() > 1e-4  # the control: the masks matter
    assert tokens is None or max(stream.cache_tokens) < len(plain) - len(prompt.again(OTHER)) - 1


def test_kept_ids_are_those_of_the_rendered_conversation() -> None:
    """The pieces together are what the tokenizer makes of the whole conversation at once."""
    lm = build("qwen2_5_vl")
    prompt, pad = lm.prompt, lm.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    video_part = [{"type": "video"}]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [*video_part, {"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
        {"role": "user", "content": [{"type": "text", "text": OTHER}]},
        {"role": "assistant", "content": [{"type": "text", "text": "blue"}]},
        {"role": "user", "content": [*video_part, {"type": "text", "text": "seven ?"}]},
    ]
    whole = lm.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pieces = [*prompt.before(), pad, *prompt.after(QUESTION), *prompt.words("red"), *prompt.again(OTHER)]
    pieces += [*prompt.words("blue"), *prompt.again(), pad, *prompt.after("seven ?")]
    assert pieces == lm.tokenizer(whole, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("family", FAMILIES)
def test_told_text_stands_between_the_frames(family: str) -> None:
    """And what was told last, with no frame behind it, stands in front of the question."""
    lm = build(family)
    step = lm.adapter.frames_per_step
    stream, plain = lm.stream(*EVERYTHING), Plain(lm)
    parts = [(video(step), [0.0 + i for i in range(step)]), (video(step, seed=1), [5.0 + i for i in range(step)])]
    stream.push(*parts[0])
    stream.add_text("red blue")
    stream.push(*parts[1])
    stream.add_text("seven")
    plain.watch(*parts[0], 0)
    plain.text(lm.prompt.between("red blue"), closing=True)
    plain.watch(*parts[1], 1)
    plain.text(lm.prompt.after(f"seven\n{OTHER}"), closing=True)
    torch.testing.assert_close(next_logits(stream), plain.logits(), atol=1e-9, rtol=0)
    table = stream.held()
    spoken = table.index[(table.step == 1) & ~table.visual]  # glue of the frame that follows it
    glue = sum(map(len, map(lm.adapter.ids, lm.adapter.glue(1, 5.0))))
    assert len(spoken) == len(lm.prompt.between("red blue")) + len(lm.adapter.closing()) + glue


def test_between_is_what_the_template_writes() -> None:
    lm = build("qwen2_5_vl")
    end, start = lm.tokenizer.convert_tokens_to_ids(["<|vision_end|>", "<|vision_start|>"])
    assert lm.prompt.between("red blue") == [end, *lm.prompt.words("red blue"), start]
    reordering = build("llava_onevision")  # puts the video in front of the text
    assert reordering.prompt.between("red") == reordering.prompt.words("red")


@pytest.mark.parametrize(("family", "steps"), cases(FAMILIES, (4.5, 9), fast=lambda f, s: s == 0 or f in (1, 2)))
def test_kept_turns_are_within_the_budget_and_forgotten_in_turn(
    family: str, steps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest stay whole in a quarter of the room; older ones go first, and the bound holds at every record."""
    lm = build(family)
    room, step = budget(lm, steps), lm.adapter.frames_per_step
    assert room is not None
    longest, record = 0, StreamCache.record

    def measured(cache: StreamCache, new: Any) -> None:
        nonlocal longest
        record(cache, new)
        longest = max(longest, *cache.lengths())
        assert cache.lengths() == [len(table) for table in cache.tables]

    monkeypatch.setattr(StreamCache, "record", measured)
    stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=room))
    kept_turns = []
    for i in range(12):
        stream.push(video(step, seed=i), [float(step * i + j) for j in range(step)])
        answer = stream.ask("red ?", max_new_tokens=2, keep=True)
        assert stream._state.answered == answer.token_ids[-1:]
        newest = stream._state.steps - 1
        table = stream.held()
        text = table.step[(table.chunk >= 0) & ~table.visual].tolist()
        shown = set(table.step[table.visual].tolist())
        turns = sorted({s for s in text if s not in shown})
        assert turns[-1] == newest  # the one that was just kept
        question = len(lm.adapter.closing()) + len(lm.prompt.after("red ?")) + len(answer.token_ids) - 1
        opening = 1 + len(lm.prompt.again())  # of the next video, with the answer's last token
        torn = [s for s in turns if text.count(s) not in (question, opening)]
        assert len(torn) <= 1 and torn in ([], turns[:1])  # at most the oldest, at the edge of the budget
        kept_turns.append(len(turns))
    assert longest <= room and max(kept_turns) < 20 and kept_turns[0] == 1  # of 23


def test_a_turn_that_cannot_be_held_is_refused_before_it_is_answered() -> None:
    lm = build("qwen2_5_vl")
    stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=60))
    stream.push(video(2), [0, 1])
    before = stream.held().index.tolist()
    with pytest.raises(pv.ConfigError, match="can't hold"):
        stream.ask(QUESTION, max_new_tokens=200, keep=True)
    assert stream.held().index.tolist() == before
    assert stream.ask(QUESTION, max_new_tokens=200).frames == 2


def test_a_kept_turn_goes_behind_frames_that_came_meanwhile() -> None:
    """Frames pushed while the answer streams; and an answer that is not read to its end is not kept."""
    lm = build("qwen2_5_vl")
    stream, plain = lm.stream(*EVERYTHING), Plain(lm)
    stream.push(video(2), [0, 1])
    answer = stream.ask(QUESTION, max_new_tokens=3, keep=True, stream=True)
    next(answer)
    stream.push(video(2, seed=1), [2, 3])
    done = answer.finish()
    plain.watch(torch.cat([video(2), video(2, seed=1)]), [0, 1, 2, 3], 0)
    plain.text(lm.prompt.after(QUESTION), closing=True)
    plain.text([*done.token_ids, *lm.prompt.again(OTHER)])
    torch.testing.assert_close(next_logits(stream), plain.logits(), atol=1e-9, rtol=0)
    rows = stream._state.rows
    abandoned = stream.ask(QUESTION, max_new_tokens=5, keep=True, stream=True)
    next(abandoned)
    del abandoned
    assert stream._state.rows == rows


@pytest.mark.parametrize("family", cases(FAMILIES, fast=lambda f: f in (1, 2, 4)))
def test_turns_and_told_text_are_saved(family: str, tmp_path: Any) -> None:
    lm = build(family)
    step = lm.adapter.frames_per_step
    stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=budget(lm, 8)))
    stream.push(video(step), [0.0 + i for i in range(step)])
    stream.ask(QUESTION, max_new_tokens=3, keep=True)
    for told in (False, True):
        if told:
            stream.add_text("seven")
        stream.save(tmp_path / "a.pdrop")
        resumed = lm.resume(tmp_path / "a.pdrop")
        assert torch.equal(next_logits(stream), next_logits(resumed))
        for each in (stream, resumed):
            each.push(video(step, seed=1), [(20.0 if told else 10.0) + i for i in range(step)])
        assert torch.equal(next_logits(stream), next_logits(resumed))


def test_likelihood_is_the_mean_log_probability(tmp_path: Any) -> None:
    """Against one plain forward over the conversation and each option; the stream stays as it was."""
    lm = build("qwen2_5_vl")
    frames, seconds = video(4), [0.0, 1.0, 2.0, 3.0]
    stream = lm.stream(*EVERYTHING)
    stream.push(frames, seconds)
    before = next_logits(stream)
    options = ["red", "blue seven", "what is shown last ?"]
    got = stream.likelihood(QUESTION, options, answer_prefix="how many")
    inputs, _, _ = full_prompt(lm, frames, seconds, QUESTION)
    for option, value in zip(options, got, strict=True):
        ids = [*lm.prompt.words("how many"), *lm.prompt.words(option)]
        whole, place = dict(inputs), inputs["position_ids"]
        whole["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([ids])], dim=1)
        more = place.max() + 1 + torch.arange(len(ids))
        whole["position_ids"] = torch.cat([place, more.expand(3, 1, -1)], dim=-1)
        with torch.no_grad():
            table = lm.model(**whole).logits[0].float().log_softmax(-1)
        count = len(lm.prompt.words(option))
        want = sum(float(table[-count - 1 + i, ids[-count + i]]) for i in range(count)) / count
        assert value == pytest.approx(want, abs=1e-5)
    assert len(set(got)) == 3
    assert torch.equal(next_logits(stream), before)
    for wrong in ([], "red", ["red", " "]):
        with pytest.raises(pv.ConfigError):
            stream.likelihood(QUESTION, wrong)


def test_an_answer_is_begun_for_the_model() -> None:
    """The prefix is what the model would have said: the answer goes on as it did."""
    lm = build("qwen2_5_vl")
    stream = lm.stream(*EVERYTHING)
    stream.push(video(2), [0, 1])
    whole = stream.ask(QUESTION, max_new_tokens=6)
    said = lm.tokenizer.decode(whole.token_ids[:2])
    assert lm.prompt.words(said) == list(whole.token_ids[:2])
    rest = stream.ask(QUESTION, max_new_tokens=4, answer_prefix=said)
    assert rest.token_ids == whole.token_ids[2:]


@pytest.mark.parametrize("text", ["", "  ", None, 3])
def test_nothing_to_tell_is_refused(text: Any) -> None:
    stream = build("qwen2_5_vl").stream()
    with pytest.raises(pv.ConfigError, match="expected some text"):
        stream.add_text(text)
