"""How tokens are drawn, where answers stop, and how likely their tokens were: against formulas written out plainly."""

from __future__ import annotations

import functools
import math
import threading
from dataclasses import replace

import pytest
import torch
from families import build, video
from test_session import same

import pdrop_video as pv
from pdrop_video.stream import decode
from pdrop_video.stream.asking import Question
from pdrop_video.stream.decode import Ending
from pdrop_video.stream.sampling import Sampling, likeliest

QUESTION = "what is shown first ?"
build_once = functools.cache(build)


@pytest.fixture
def stream() -> pv.VideoStream:
    watched = build_once("qwen2_5_vl").stream(pv.Pyramid(stages=3), pv.Memory(tokens=60))
    watched.push(video(4), [0.0, 1.0, 2.0, 3.0])
    return watched


def drawn(sampling: Sampling, logits: list[float], times: int) -> list[int]:
    choose = sampling.begin()
    return [choose(torch.tensor(logits)) for _ in range(times)]


def test_tokens_come_as_often_as_their_probability() -> None:
    """The softmax of logits over temperature, cut at top_p and made whole again, written with plain numbers."""
    logits, temperature, top_p, times = [1.0, 3.0, 2.0, -1.0, 3.0], 1.7, 0.8, 20_000
    weights = [math.exp(each / temperature) for each in logits]
    order = sorted(range(5), key=lambda i: (-weights[i], i))
    kept: list[int] = []
    for i in order:
        if sum(weights[j] for j in kept) / sum(weights) < top_p:
            kept.append(i)
    assert kept == [1, 4, 2]
    counts = torch.bincount(torch.tensor(drawn(Sampling(temperature, top_p, seed=1), logits, times)), minlength=5)
    for i in range(5):
        chance = weights[i] / sum(weights[j] for j in kept) if i in kept else 0.0
        spread = 4 * math.sqrt(times * chance * (1 - chance))  # a fixed seed: it either holds or not, for good
        assert abs(int(counts[i]) - times * chance) <= spread


@pytest.mark.parametrize("coldness", [Sampling(1e-9, seed=3), Sampling(0), Sampling(5, top_p=1e-9, seed=3)])
def test_what_is_cold_or_narrow_enough_is_greedy(coldness: Sampling, stream: pv.VideoStream) -> None:
    assert drawn(coldness, [0.0, -2.0, 900.0, 899.0], 20) == [2] * 20
    assert stream.ask(QUESTION, 8, sampling=coldness).token_ids == stream.ask(QUESTION, 8).token_ids


def test_a_seed_draws_the_same_whoever_else_draws(stream: pv.VideoStream) -> None:
    hot = Sampling(3.0, seed=7)
    want = stream.ask(QUESTION, 12, sampling=hot).token_ids
    assert len({stream.ask(QUESTION, 12, sampling=Sampling(3.0, seed=seed)).token_ids for seed in range(5)}) == 5
    assert (
        stream.ask(QUESTION, 12, sampling=Sampling(3.0)).token_ids
        != stream.ask(QUESTION, 12, sampling=Sampling(3.0)).token_ids
    )
    got: list[tuple[int, ...]] = []
    threads = [
        threading.Thread(target=lambda: got.append(stream.ask(QUESTION, 12, sampling=hot).token_ids)) for _ in range(3)
    ]
    [thread.start() for thread in threads]
    torch.manual_seed(0)
    [thread.join() for thread in threads]
    assert got == [want] * 3


def test_logprobs_are_those_of_the_logits(stream: pv.VideoStream) -> None:
    """Of greedy and of drawn tokens alike: the model's own, before temperature; as `answer_logits` gives them."""
    for sampling in (None, Sampling(3.0, seed=2)):
        live = stream.ask(QUESTION, 6, sampling=sampling, logprobs=3, stream=True)
        answer = live.finish()
        assert list(answer.logprobs) == list(live.logprobs)
        rows = stream.answer_logits(QUESTION, answer.token_ids)[:-1].log_softmax(-1)
        assert [each.token for each in answer.logprobs] == list(answer.token_ids)
        for row, each in zip(rows, answer.logprobs, strict=True):
            assert each.logprob == pytest.approx(float(row[each.token]), abs=1e-6)
            assert [i for i, _ in each.top] == row.topk(3).indices.tolist()
            assert [p for _, p in each.top] == pytest.approx(row.topk(3).values.tolist(), abs=1e-6)
    assert stream.ask(QUESTION, 3).logprobs == ()


@pytest.mark.parametrize("stops", [("ba",), ("x", "abb"), ("c", "bac"), ("zz",), (), ("abcabc", "cab")])
def test_a_text_in_pieces_ends_where_the_whole_does(stops: tuple[str, ...]) -> None:
    """Every way of cutting a text: nothing of a stop is ever given out, nothing before it is lost."""
    text = "ababcab"
    want = text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
    for cuts in range(2 ** (len(text) - 1)):
        ending, said, piece = Ending(stops), "", ""
        for i, letter in enumerate(text):
            piece += letter
            if cuts >> i & 1 or i == len(text) - 1:
                said += ending(piece)
                assert want.startswith(said)
                piece = ""
            if ending.reached:
                break
        assert said + ending.rest() == want and ending.reached == (want != text)


def test_an_answer_ends_before_the_first_stop(stream: pv.VideoStream) -> None:
    whole = stream.ask(QUESTION, 24)
    words = whole.text.split()
    stop = next(word for word in words[2:] if len(word) > 1)
    asked = stream.ask(QUESTION, 24, stop=("never said", stop), stream=True)
    pieces = list(asked)
    answer = asked.answer
    assert answer is not None and answer.text == whole.text[: whole.text.find(stop)].strip()
    assert "".join(pieces).strip() == answer.text and answer.finished
    assert len(answer.token_ids) < len(whole.token_ids)  # nothing was generated behind it
    assert whole.token_ids[: len(answer.token_ids)] == answer.token_ids


def test_a_turn_of_somebody_elses_is_the_one_that_was_kept(stream: pv.VideoStream) -> None:
    """An answer kept as it was generated, and the same handed in as text, leave the same memory, and go on alike."""
    kept, given = stream.fork(), stream.fork()
    answer = stream.ask(QUESTION, 4)
    ids = stream.lm.prompt.words(answer.text)  # random tokens need not be those that their text is read as
    live = kept.ask(QUESTION, 4, keep=True, stream=True)
    assert live._keep is not None
    live._keep(replace(answer, token_ids=tuple(ids)))
    live.close()
    assert given.add_turn(QUESTION, answer.text) == answer.question_tokens + len(ids)
    for each in (kept, given):
        each.push(video(4, seed=1), [4.0, 5.0, 6.0, 7.0])
    same(kept, given)
    assert kept.ask("and now ?", 4).token_ids == given.ask("and now ?", 4).token_ids


@pytest.mark.parametrize("sampling", [None, Sampling(2.0, 0.9, seed=4)])
def test_tokens_fed_before_the_host_knows_them_are_the_same(
    sampling: Sampling | None, stream: pv.VideoStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a card: whether an answer runs out of tokens, reaches a stop, ends itself, or is kept and gone on from."""
    lm = stream.lm
    plain = stream.ask(QUESTION, 12, sampling=sampling)
    word = plain.text.split()[3]
    ends = plain.token_ids[5]

    def answers() -> tuple[list[pv.Answer], pv.VideoStream]:
        got = [stream.ask(QUESTION, 12, sampling=sampling, logprobs=2)]
        got.append(stream.ask(QUESTION, 12, sampling=sampling, stop=[word]))
        with monkeypatch.context() as patched:
            patched.setattr(lm.model.generation_config, "eos_token_id", ends)
            got.append(stream.ask(QUESTION, 12, sampling=sampling))
        fork = stream.fork()
        got.append(fork.ask(QUESTION, 6, sampling=sampling, keep=True))
        got.append(fork.ask("and then ?", 6, sampling=sampling))
        return [replace(each, timings=plain.timings) for each in got], fork

    want, went_on = answers()
    assert [len(each.token_ids) for each in want][:1] == [12] and want[2].finished
    assert len(want[2].token_ids) == plain.token_ids.index(ends)
    monkeypatch.setattr(Question, "ahead", True)
    got, fork = answers()
    assert got == want
    same(fork, went_on)


@pytest.mark.parametrize("ahead", [False, True])
def test_who_computes_ahead_is_read_after_the_next_token_began(ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tokens; the last is fed to nobody."""
    lm, did = build_once("qwen2_5_vl"), []

    def advance(token: torch.Tensor) -> torch.Tensor:
        did.append(f"feed {int(token)}")
        return torch.eye(192)[int(token) + 1]

    monkeypatch.setattr(decode, "read_later", lambda token: lambda: did.append(f"read {int(token)}") or int(token))
    tokens = [token for token, *_ in decode.generate(lm, torch.eye(192)[40], advance, 3, likeliest, ahead)]
    assert tokens == [40, 41, 42]
    first = ["feed 40", "read 40", "feed 41", "read 41"] if ahead else ["read 40", "feed 40", "read 41", "feed 41"]
    assert did == [*first, "read 42"]
