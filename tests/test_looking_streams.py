"""Answers that look again, asked of streams: plain ones where nothing shifts, and without a trace in the stream."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
import torch
from families import FAMILIES, build, cases, video
from hybrids import HYBRIDS
from hybrids import build as build_hybrid
from looked import said
from more_families import MORE, OTHERS
from rawkeys import small
from test_modes import remembered
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import STORAGES, KeyValueLayer
from pdrop_video.stream.asking import Question

QUESTION = "what is shown first ?"
ASKING = pv.Pyramid(ratios=(0.5, 0.25))
SHIFTING, FIXING = "dstp:tau=1,steps=3", "fixation:keep=0.2,count=2,warm=2,refresh=4,least=1,jump=1"
EVERYTHING = FAMILIES | MORE | OTHERS


def kept(stream: pv.VideoStream) -> tuple[Any, ...]:
    """All that a stream remembers, whatever room is left behind it: an answer that outgrows it leaves it taken."""
    numbers, (lengths, _), *others = remembered(stream)
    return numbers, lengths, *others


def watched(
    lm: pv.VideoLM, memory: pv.Memory | None = None, pyramid: pv.Pyramid | None = None, steps: int = 6
) -> pv.VideoStream:
    step = lm.adapter.frames_per_step
    stream = lm.stream(pyramid or pv.Pyramid(stages=1), memory or pv.Memory(tokens=None))
    for i in range(steps):
        stream.push(video(step, seed=i), [step * i + j for j in range(step)])
    return stream


@pytest.fixture
def logits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[Tensor], pv.Answer]]:
    """What asks, and gives the logits behind each token, too."""
    caught: list[Tensor] = []
    advance = Question.advance

    def advancing(question: Question, token: int) -> Tensor | None:
        found = advance(question, token)
        caught.extend([] if found is None else [found])
        return found

    monkeypatch.setattr(Question, "advance", advancing)

    def ask(stream: pv.VideoStream, *args: Any, **how: Any) -> tuple[list[Tensor], pv.Answer]:
        caught.clear()
        answer = stream.ask(QUESTION, *args, **how)
        return list(caught), answer

    return ask


@pytest.mark.parametrize(
    ("family", "storage"),
    cases(EVERYTHING | HYBRIDS, STORAGES, fast=lambda f, s: f % 6 == 0 and s == f // 6 % 2),
)
def test_what_never_shifts_and_what_sees_all_is_the_plain_answer(family: str, storage: str, logits: Any) -> None:
    """Token for token; dstp bit for bit, and a fixation on everything as close as another order of columns comes."""
    lm = (build_hybrid if family in HYBRIDS else build)(family)
    stream = watched(lm, pv.Memory(tokens=None, storage=storage))
    for decode, pyramid, error in (("dstp:tau=0", ASKING, 0.0), ("fixation:keep=1,least=1,warm=2", None, 1e-9)):
        want, plain = logits(stream, 8, pyramid=pyramid, decode="none")
        got, answer = logits(stream, 8, pyramid=pyramid, decode=decode)
        assert answer.token_ids == plain.token_ids and answer.evidence == plain.evidence
        torch.testing.assert_close(torch.stack(got), torch.stack(want), atol=error, rtol=0)


def test_the_default_looks_again_where_a_question_hides_something() -> None:
    stream = watched(build("qwen2_5_vl"))
    by_default, said = (stream.ask(QUESTION, 8, pyramid=ASKING, decode=decode) for decode in (None, "dstp"))
    assert by_default.looked is not None and by_default.looked == said.looked
    assert by_default.token_ids == said.token_ids and by_default.evidence == said.evidence
    for pyramid, decode in ((ASKING, "none"), (None, None), (pv.Pyramid(layers=(2,), ratios=(1.0,)), None)):
        assert stream.ask(QUESTION, 8, pyramid=pyramid, decode=decode).looked is None


@pytest.mark.parametrize("decode", [SHIFTING, FIXING])
def test_the_stream_is_as_it_was_and_answers_share_nothing(decode: str) -> None:
    """Alone, in turns with others, broken off, and while another thread pushes: the same answer, and no trace."""
    lm = build("qwen2_5_vl")
    stream, how = watched(lm), dict(pyramid=ASKING, decode=decode)
    before = kept(stream)
    alone = [stream.ask(q, 12, **how) for q in (QUESTION, "how many ?")]
    assert all(any(e.again for e in a.evidence) for a in alone) and kept(stream) == before
    live = [stream.ask(q, 12, stream=True, **how) for q in (QUESTION, "how many ?")]
    broken = stream.ask(QUESTION, 12, stream=True, **how)
    for _ in range(6):
        for each in (*live, broken):
            next(each, None)
    broken.close()
    for each, want in zip(live, alone, strict=True):
        answer = each.finish()
        assert answer.token_ids == want.token_ids and answer.evidence == want.evidence
    assert kept(stream) == before
    late, twin = stream.ask(QUESTION, 12, stream=True, **how), watched(lm)
    next(late, None)
    pushes = [(each, i) for i in (20, 22) for each in (stream, twin)]
    pushing = Thread(target=lambda: [each.push(video(2, seed=i), [i, i + 1]) for each, i in pushes])
    pushing.start()
    answer = late.finish()
    pushing.join()
    assert answer.token_ids == alone[0].token_ids and answer.evidence == alone[0].evidence
    assert torch.equal(stream.next_logits(QUESTION), twin.next_logits(QUESTION))
    turn = stream.ask(QUESTION, 5, keep=True, **how)
    assert len(turn.token_ids) == 5 and stream.ask("and then ?", 3, **how).text is not None


def test_the_evidence_says_what_was_looked_at_again_and_when() -> None:
    """Of every shift and jump: its token, the tokens that saw it, layers and seconds; none of it was seen before."""
    lm = build("qwen2_5_vl")
    stream = watched(lm)
    answer = stream.ask(QUESTION, 12, pyramid=pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25)), decode=SHIFTING)
    assert len(answer.token_ids) == 12 and not answer.evidence[0].again
    held = {float(second): int((stream.held(0).seconds == second).sum()) for second in stream.held(0).seconds.unique()}
    for stage, layers in ((1, (2, 3)), (2, (4, 5))):
        evidence = answer.evidence[stage]
        # every fourth token is compared; the twelfth is never fed, so that nobody sees what the eleventh would find
        assert [(a.token, a.first, a.last) for a in evidence.again] == [(0, 1, 3), (4, 5, 7), (8, 9, 10)]
        seen = dict(zip(evidence.seconds, evidence.tokens, strict=True))
        for again in evidence.again:
            assert again.layers == layers and again.seconds == tuple(sorted(again.seconds))
            assert 0 < sum(again.tokens) <= sum(evidence.tokens)
            assert all(n + seen.get(s, 0) <= held[s] for s, n in zip(again.seconds, again.tokens, strict=True))
            assert 0 < sum(again.weight) <= 1 and len(again.weight) == len(again.tokens)
    assert stream.ask(QUESTION, 12, pyramid=ASKING, decode="none").evidence[1].again == ()


@pytest.mark.parametrize("decode", [SHIFTING, FIXING])
def test_archived_steps_in_reserve_are_hidden_until_they_are_looked_at(decode: str, logits: Any) -> None:
    """The question sees what it would without them; the answer then finds them, with the words beside them."""
    lm = build("qwen3_vl")  # whose steps have their times in words
    tokens = 75
    stream = watched(lm, pv.Memory(tokens=tokens, evictor="oldest", positions="original", archive=2**24), steps=9)
    memory, before = set(stream.held(0).seconds[stream.held(0).visual].tolist()), kept(stream)
    _, plain = logits(stream, 12, retrieve=1)
    _, answer = logits(stream, 12, retrieve=1, decode=f"{decode},reserve=3")
    assert answer.token_ids[0] == plain.token_ids[0]
    assert [e.seconds for e in answer.evidence] == [e.seconds for e in plain.evidence]
    for mine, its in zip(answer.evidence, plain.evidence, strict=True):
        torch.testing.assert_close(mine.weight, its.weight, atol=1e-9, rtol=0)
    again = [a for e in answer.evidence for a in e.again]
    found = {s for a in again for s in a.seconds} - memory - set(answer.evidence[0].seconds)
    assert again and 0 < len(found) <= 3 * lm.num_layers
    assert kept(stream) == before
    # what a layer lets a token see: of a step of the archive its words with the first of its visual tokens, else none
    done = said(stream, 6, None, f"{decode},reserve=3", retrieve=1)
    hidden = said(stream, 6, None, None, retrieve=1)
    for i in range(lm.num_layers):
        assert torch.equal(done.asked[i].sort().values, hidden.asked[i].sort().values)
    assert any(len(seen[0]) > len(done.asked[0]) for seen in done.seen)
    with pytest.raises(pv.ConfigError, match="reserve=3: this stream has no archive"):
        watched(lm).ask(QUESTION, 2, decode=f"{decode},reserve=3")


@pytest.mark.parametrize("decode", [SHIFTING, FIXING])
def test_positions_that_move_while_an_answer_looks(decode: str, logits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are turned under what is hidden: where nothing shifts the answer is the plain one, and no answer fails."""
    hidden: list[bool] = []
    rotate = KeyValueLayer.rotate
    monkeypatch.setattr(
        KeyValueLayer, "rotate", lambda layer, *how: (hidden.append(layer.shown is not None), rotate(layer, *how))[1]
    )
    stream = watched(small("llava_onevision"), pv.Memory(tokens=100, evictor="uniform"), steps=21)
    before = kept(stream)
    want, plain = logits(stream, 100, pyramid=ASKING, decode="none")
    got, answer = logits(stream, 100, pyramid=ASKING, decode="dstp:tau=0")
    assert answer.token_ids == plain.token_ids and torch.equal(torch.stack(got), torch.stack(want))
    other, again = logits(stream, 100, pyramid=ASKING, decode=decode)
    assert len(again.token_ids) > 12 and torch.stack(other).isfinite().all()
    assert any(e.again for e in again.evidence) and kept(stream) == before
    assert any(hidden)
