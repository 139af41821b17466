"""The room that text finds: in the budget, and in the positions that a model was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, build, cases, video
from torch import Tensor
from transformers import DynamicCache
from typer.testing import CliRunner

import pdrop_video as pv
from pdrop_video import cli
from pdrop_video.pyramid.heads import per_head, rotate
from pdrop_video.stream.shared import MOST_TOKENS

QUESTION = "what is shown first ?"
EVERYTHING = pv.Pyramid(stages=1)
TRAINED = 160


def small(family: str, trained: int = TRAINED) -> pv.VideoLM:
    lm = build(family)
    lm.model.config.get_text_config().max_position_embeddings = trained
    return lm


def watched(lm: pv.VideoLM, memory: pv.Memory, steps: int, pyramid: pv.Pyramid = EVERYTHING) -> pv.VideoStream:
    """A stream of one step a push, five seconds apart."""
    stream = lm.stream(pyramid, memory)
    for i in range(steps):
        push(stream, i)
    return stream


def push(stream: pv.VideoStream, i: int) -> None:
    step = stream.lm.adapter.frames_per_step
    stream.push(video(step, seed=i), [5.0 * i + j for j in range(step)])


@contextmanager
def placed(stream: pv.VideoStream) -> Iterator[list[Tensor]]:
    """Every batch of position ids that the decoder gets."""
    seen: list[Tensor] = []
    handle = stream.loop.text.rotary_emb.register_forward_pre_hook(lambda module, args: seen.append(args[1].clone()))
    yield seen
    handle.remove()


def furthest(stream: pv.VideoStream, seen: list[Tensor]) -> int:
    """The largest position that anything has, or had since `seen` began."""
    return max(*(int(ids.max()) for ids in seen), *(int(table.now.max()) for table in stream._state.cache.tables))


# -- the answer's length changes nothing before its end ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "positions"),
    cases(FAMILIES, ["window", "compact"], fast=lambda f, p: (f, p) in ((1, 0), (3, 0), (2, 1))),
)
def test_how_long_an_answer_may_become_changes_no_token(family: str, positions: str) -> None:
    """Question and memory stand where they stand; and neither ever leaves the range."""
    lm = small(family)
    memory = pv.Memory(tokens=100, positions=positions, archive=1 << 20, evictor="uniform")
    stream = watched(lm, memory, 24)
    for more in ({}, {"retrieve": 1}):
        runs = {}
        for longest in (1, 5, 5000):
            with placed(stream) as seen:
                answer = stream.ask(QUESTION, longest, **more)
                runs[longest] = answer.token_ids, seen
                assert furthest(stream, seen) < TRAINED
        (one, first), (five, some), (all_of_it, many) = runs.values()
        assert five == all_of_it[:5] and one == five[:1] == (int(stream.next_logits(QUESTION, **more).argmax()),)
        for left, middle, right in zip(first, some, many, strict=False):
            assert torch.equal(left, middle) and torch.equal(left, right)
        assert 20 < len(all_of_it) < TRAINED
        assert max(int(ids.max()) for ids in many) == TRAINED - 1


def test_the_memory_leaves_a_reserve_for_questions() -> None:
    """A quarter of a small range: a question within it moves nothing, in whatever state the stream is."""
    lm = small("llava_onevision")
    stream = lm.stream(EVERYTHING, pv.Memory(tokens=100, evictor="uniform"))
    calm = len(lm.prompt.after(QUESTION)) + 1
    assert calm <= TRAINED // 4
    for i in range(24):
        push(stream, i)
        assert max(int(table.now.max()) for table in stream._state.cache.tables) < TRAINED - TRAINED // 4
        place, shift = stream._state.place.next, stream._state.cache.shifts[0].text
        with placed(stream) as seen:
            stream.next_logits(QUESTION)
        assert seen[0].flatten().tolist()[:calm] == [*range(place - shift, place - shift + calm)]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision", "qwen3_vl"])
def test_an_answer_that_moves_positions_equals_transformers(family: str) -> None:
    """The unmodified decoder, given the keys that are held and the positions that the table says, after the move.

    And what the question's own keys are then is one rotation, by the model, of what they were before any.
    """
    lm = small(family)
    stream = watched(lm, pv.Memory(tokens=60, evictor="uniform"), 18)
    asked = stream._asked(QUESTION, "", None)
    logits, state, said = asked.prefill(), asked.state, []
    before = list(state.cache.shifts)
    while state.cache.shifts == before:
        said.append(int(logits.argmax()))
        following = asked.advance(torch.tensor(said[-1]))
        assert following is not None
        logits = following
    assert len(said) > 5 and all(new.text > old.text for new, old in zip(state.cache.shifts, before, strict=True))
    # the token that moved the rest was fed behind it; feed one more
    cache, held, here = state.cache, state.cache.get_seq_length(), state.place.next - state.cache.shifts[0].text
    plain = DynamicCache()
    for i, layer in enumerate(cache.layers):
        plain.update(layer.keys[:, :, :held].clone(), layer.values[:, :, :held].clone(), i)
    ids = torch.full((3, 1, 1) if stream.loop.axes == 3 else (1, 1), here)
    got = asked.advance(torch.tensor(7))
    with torch.no_grad():
        hidden = stream.loop.text(
            inputs_embeds=lm.adapter.embed([7])[None], position_ids=ids, past_key_values=plain
        ).last_hidden_state
        torch.testing.assert_close(got, lm.model.get_output_embeddings()(hidden[0, -1]), atol=1e-9, rtol=0)
    rows = torch.cat([lm.adapter.closing(), lm.adapter.embed([*lm.prompt.after(QUESTION), *said])])
    layer = stream.loop.text.layers[0]
    table = cache.tables[0]
    now = table.now[-len(rows) + 1 :]
    assert now[:, 0].tolist() == [*range(int(now[0, 0]), int(now[0, 0]) + len(rows) - 1)]
    with torch.no_grad():
        raw = per_head(layer.self_attn, layer.input_layernorm(rows[None, :-1]), "k")
        place = now.T[:, None] if stream.loop.axes == 3 else now.T
        want = rotate(layer.self_attn, raw, stream.loop.text.rotary_emb(raw, place))[0]
    torch.testing.assert_close(cache.layers[0].keys[0][:, len(table) - len(now) : len(table)], want, atol=2e-5, rtol=0)


def test_an_answer_ends_where_the_range_does() -> None:
    """Where nothing is left to move, at the last position; the stream goes on as if it had not been asked."""
    lm = small("llava_onevision")
    stream = watched(lm, pv.Memory(tokens=120, positions="compact", evictor="uniform"), 20)
    taken, rows = stream.cache_tokens[0], len(lm.prompt.after(QUESTION)) + 1
    before = stream.next_logits(QUESTION)
    answer = stream.ask(QUESTION, 5000)
    assert not answer.finished
    assert len(answer.token_ids) == TRAINED - taken - rows + 1  # the last one is not fed any more
    assert torch.equal(stream.next_logits(QUESTION), before)
    assert stream.likelihood(QUESTION, ["red", "blue blue"])  # they find room


# -- questions --------------------------------------------------------------------------------------------------------


def doors(stream: pv.VideoStream) -> dict[str, Callable[[str], Any]]:
    return {
        "ask": lambda text: stream.ask(text, 1),
        "stream": lambda text: stream.ask(text, 1, stream=True),
        "keep": lambda text: stream.ask(text, 1, keep=True),
        "prefix": lambda text: stream.ask("?", 1, answer_prefix=text),
        "likelihood": lambda text: stream.likelihood(text, ["red"]),
        "option": lambda text: stream.likelihood("?", ["red", text]),
        "next_logits": stream.next_logits,
    }


@pytest.mark.parametrize(
    ("family", "tokens"), cases(FAMILIES, [100, None], fast=lambda f, t: (f, t) in ((1, 0), (3, 0), (0, 1)))
)
def test_a_question_without_room_is_refused_before_anything_runs(family: str, tokens: int | None) -> None:
    lm = small(family)
    stream = watched(lm, pv.Memory(tokens=tokens, evictor="uniform"), 6)
    before, held = stream.next_logits(QUESTION), stream.held().index.tolist()
    with placed(stream) as seen:
        for door, call in doors(stream).items():
            with pytest.raises(pv.ConfigError, match=r"room for \d+") as error:
                call("red " * 200)
            assert str(TRAINED) in str(error.value), door
        for name in ("system", "standing_question"):
            with pytest.raises(pv.ConfigError, match=r"(leave|leaves) no room"):
                lm.stream(pv.Pyramid(scorer="relevance"), pv.Memory(tokens=tokens), **{name: "red " * 200})
    assert not seen
    assert stream.held().index.tolist() == held and torch.equal(stream.next_logits(QUESTION), before)


@pytest.mark.parametrize(
    ("family", "positions"),
    cases(FAMILIES, ["window", "compact"], fast=lambda f, p: (f, p) in ((1, 1), (3, 0), (6, 1))),
)
def test_the_room_that_is_said_is_the_room_there_is(family: str, positions: str) -> None:
    """A question of exactly so many tokens ends at the last position of the range; one token more is refused."""
    lm = small(family)
    stream = watched(lm, pv.Memory(tokens=80, evictor="uniform", positions=positions), 16)
    with pytest.raises(pv.ConfigError) as error:
        stream.next_logits("red " * 300)
    room = int(str(error.value).split("there is room for ")[1].split()[0])
    asked = stream._asked("red", "", None).tokens - 1
    with placed(stream) as seen:
        stream.next_logits("red " * (room - asked))
        assert furthest(stream, seen) == TRAINED - 1
        stream.likelihood("red " * (room - asked - 4), ["red " * 5])
        assert furthest(stream, seen) == TRAINED - 1
        for call in (
            lambda: stream.next_logits("red " * (room - asked + 1)),
            lambda: stream.likelihood("red " * (room - asked - 4), ["blue", "red " * 6]),
        ):
            with pytest.raises(pv.ConfigError, match=f"room for {room} "):
                call()


def test_a_door_bounds_tokens() -> None:
    """One place for page, command line and server, below what a model could read."""
    lm = build("qwen2_5_vl")
    assert lm.bounded("the question", "red " * MOST_TOKENS) == "red " * MOST_TOKENS
    with pytest.raises(pv.ConfigError, match=r"the question has 4,097 tokens; expected 4,096 at most"):
        lm.bounded("the question", "red " * (MOST_TOKENS + 1))
    with pytest.raises(pv.ConfigError, match=r"has 160 characters; expected 9 tokens"):
        lm.bounded("the question", " " * 155 + "red ?", 9)
    assert lm.bounded("the question", " " * 139 + "red ?", 9)


@pytest.mark.parametrize("command", ["ask", "search"])
def test_the_command_line_is_such_a_door(command: str, tmp_path: Any) -> None:
    """Before the video is opened, which is none."""
    asked, none = ["red " * (MOST_TOKENS + 1)], tmp_path / "none.mp4"
    none.write_text("no video")
    if command == "search":
        asked = [str(none), "--out", str(tmp_path / "a.json"), "--question", *asked]
    result = CliRunner().invoke(cli.app, [command, str(none), *asked])
    assert result.exit_code == 1
    assert "one of the questions has 4,097 tokens; expected 4,096 at most" in result.output


# -- what stays: turns and told text ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", cases(FAMILIES, fast=lambda f: f in (1, 2, 3)))
def test_a_long_conversation_stays_in_the_range(family: str) -> None:
    """Turns and steps that are more than there are positions, in a budget that would hold them all."""
    lm = small(family)
    stream = lm.stream(EVERYTHING, pv.Memory(tokens=5000, evictor="oldest"))
    limit, kept = TRAINED - TRAINED // 4, 0
    with placed(stream) as seen:
        for i in range(40):
            push(stream, i)
            if i % 3 == 0:
                kept += len(stream.ask(QUESTION, 6, keep=True).token_ids)
            assert max(int(table.now.max()) for table in stream._state.cache.tables) < limit
            prefix = stream.held().chunk < 0
            assert int(prefix.sum()) == len(lm.prompt.before())
        assert furthest(stream, seen) < TRAINED
    places = stream.held().position[:, 0].unique()
    assert limit // 2 < len(places) <= limit and stream._state.rows > limit + kept  # full, and more than that came
    assert stream.held().step.max() == stream._state.steps - 1


def test_what_drops_in_deep_layers_stays_in_the_range() -> None:
    """A chunk takes all its positions in every layer, however few of its tokens a deep one keeps."""
    lm = small("llava_onevision")
    stream = lm.stream(pv.Pyramid(layers=(1, 2, 4), ratios=(0.5, 0.25, 0.1)), pv.Memory(tokens=5000, evictor="uniform"))
    limit = TRAINED - TRAINED // 4
    for i in range(12):
        stream.push(video(3, seed=i), [15.0 * i, 15.0 * i + 5, 15.0 * i + 10])
        assert max(int(table.now.max()) for table in stream._state.cache.tables) < limit
    assert len(stream._state.cache.tables[-1]) > limit // 3


@pytest.mark.parametrize("family", cases(FAMILIES, fast=lambda f: f in (0, 3)))
def test_text_that_no_push_could_take_in_is_not_told(family: str, tmp_path: Any) -> None:
    """Alone, and with what was told before; what was refused has changed nothing, and frames go on."""
    lm = build(family)
    prompt, closing = lm.prompt, len(lm.adapter.closing())
    stream = watched(lm, pv.Memory(tokens=200), 2)
    room = 200 - stream._ingest.reach.text
    with pytest.raises(pv.ConfigError, match=f"text told since the last frame .* room for {room};"):
        stream.add_text("red " * 200)
    assert stream._state.told == ()
    each = closing + len(prompt.between("red blue red"))
    for _ in range(room // each):
        stream.add_text("red blue red")
    with pytest.raises(pv.ConfigError, match="text told since the last frame"):
        stream.add_text("red blue red")
    assert len(stream._state.told) == room // each
    stream.save(tmp_path / "a.pdrop")
    resumed = lm.resume(tmp_path / "a.pdrop")
    for each_stream in (stream, resumed):
        for i in range(2, 5):
            push(each_stream, i)
            each_stream.add_text("blue")
        assert max(each_stream.cache_tokens) <= 200
    assert torch.equal(stream.next_logits(QUESTION), resumed.next_logits(QUESTION))


def test_told_text_of_exactly_the_room_goes_in() -> None:
    lm = build("qwen2_5_vl")
    stream = watched(lm, pv.Memory(tokens=200), 2)
    room, glue = stream._ingest.reach.room, len(lm.prompt.between("red")) - 1
    with pytest.raises(pv.ConfigError, match="told"):
        stream.add_text("red " * (room - glue + 1))
    stream.add_text("red " * (room - glue))
    push(stream, 2)
    assert max(stream.cache_tokens) <= 200


def test_a_saved_stream_goes_on_without_what_it_could_not_take_in(tmp_path: Any) -> None:
    """As earlier versions saved it: too much told text, and half of a character."""
    lm = build("qwen2_5_vl")
    stream = watched(lm, pv.Memory(tokens=200), 2)
    stream._state.told = ("seven", "red " * 300, "caf\ud83d", "blue")
    stream.save(tmp_path / "a.pdrop")
    with pytest.warns(UserWarning, match="left out of what the stream was told") as warned:
        resumed = lm.resume(tmp_path / "a.pdrop")
    assert len(warned) == 2 and resumed._state.told == ("seven", "blue")
    push(resumed, 2)
    assert resumed.ask(QUESTION, 2).frames == 6


def test_a_turn_whose_opening_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in front of the next turn's video must find room as well, or no frame could follow."""
    lm = build("qwen2_5_vl")
    stream = watched(lm, pv.Memory(tokens=200), 1)
    opening = [*lm.prompt.again(), *[7] * 200]
    with monkeypatch.context() as patch:
        patch.setattr(lm.prompt, "again", lambda question=None: opening)
        with pytest.raises(pv.ConfigError, match=f"{len(opening) + 1} tokens of question and answer"):
            stream.ask("red", 1, keep=True)
    stream.ask("red", 1, keep=True)
    push(stream, 1)


# -- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["caf\udce9?", "\ud83d", b"red", None, 5, ["red"], np.array(["red"]), float("nan")])
def test_what_is_no_text_is_refused_at_every_door(bad: Any) -> None:
    lm = build("qwen2_5_vl")
    stream = watched(lm, pv.Memory(tokens=200), 1)
    told = {"tell": stream.add_text, "bounded": lambda text: lm.bounded("the question", text)}
    if bad is not None:
        told |= {n: lambda text, n=n: lm.stream(**{n: text}) for n in ("system", "standing_question")}
    for name, call in (doors(stream) | told).items():
        with pytest.raises(pv.ConfigError, match="expected"):
            call(bad)
        assert stream._state.told == (), name
    push(stream, 1)
    for options in (bad, [bad], []):
        if not isinstance(bad, list | np.ndarray):
            with pytest.raises(pv.ConfigError, match="expected"):
                stream.likelihood("red", options)
    assert stream.likelihood("red", np.array(["red", "blue"])) == stream.likelihood("red", (t for t in ("red", "blue")))
    assert stream.ask("red", max_new_tokens=np.int64(3)).token_ids == stream.ask("red", 3).token_ids  # type: ignore[call-overload]
