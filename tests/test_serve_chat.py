"""Chat completions by the real `openai` client: what comes is what the library gives, and no video is watched twice."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from families import build
from hosted import CLIP, CLIPS, Hosted, as_url, built_in, hosted, picture, png, until, watched

import pdrop_video as pv
from pdrop_video.serve import Limits, Settings
from pdrop_video.serve.conversation import conversation_of
from pdrop_video.serve.media import Media
from pdrop_video.serve.prefixes import Prefixes
from pdrop_video.serve.wire import Message

pytestmark = pytest.mark.usefixtures("watchdog")
QUESTION = "How many things are shown?"


@pytest.fixture(scope="module")
def server() -> Iterator[Hosted]:
    with hosted() as running:
        yield running


def part(url: str, kind: str = "video", **how: Any) -> dict[str, Any]:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url, **how}}


def user(text: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def ask(server: Hosted, *messages: Any, **how: Any) -> Any:
    return server.client().chat.completions.create(model="built-in", messages=list(messages), **how)


def test_the_one_model_is_listed(server: Hosted) -> None:
    assert [model.id for model in server.client().models.list()] == ["built-in"]
    assert server.client().models.retrieve("built-in").id == "built-in"


@pytest.mark.parametrize("url", ["clip.mp4", str(CLIP), as_url(CLIP.read_bytes(), "video/mp4")])
def test_an_answer_is_the_librarys(server: Hosted, url: str) -> None:
    """A file by name, by path, and as its bytes; text, number of tokens, and visual tokens."""
    want = watched().ask(QUESTION)
    got = ask(server, user(QUESTION, part(url)))
    assert (got.choices[0].message.content, got.choices[0].finish_reason) == (want.text, "stop")
    usage = got.usage.model_dump()
    before = len(built_in().prompt.before(None))
    assert usage["completion_tokens"] == len(want.token_ids)
    assert usage["prompt_tokens"] == before + want.visual_tokens + want.question_tokens
    assert usage["visual_tokens"] == {"entered": want.visual_tokens, "remembered": list(want.kept)}


def test_how_a_video_is_watched_can_be_said(server: Hosted) -> None:
    stream = watched(fps=1.0, start=1.0, end=4.0)
    got = ask(server, user(QUESTION, part("clip.mp4", fps=1.0, start=1.0, end=4.0)))
    want = stream.ask(QUESTION)
    assert got.usage.visual_tokens["entered"] == want.visual_tokens < watched().visual_tokens
    assert got.choices[0].message.content == want.text


@pytest.mark.parametrize("sampling", [None, pv.Sampling(1.5, 0.9, seed=5), pv.Sampling(2.0, seed=-3)])
def test_pieces_make_the_whole_and_logprobs_are_the_librarys(server: Hosted, sampling: pv.Sampling | None) -> None:
    how: dict[str, Any] = {}
    if sampling is not None:
        how = dict(temperature=sampling.temperature, top_p=sampling.top_p, seed=sampling.seed)
    want = watched().ask(QUESTION, 12, sampling=sampling, logprobs=3)
    messages = user(QUESTION, part("clip.mp4"))
    whole = ask(server, messages, max_tokens=12, logprobs=True, top_logprobs=3, **how)
    more = dict(stream=True, stream_options={"include_usage": True}, logprobs=True, top_logprobs=3)
    chunks = list(ask(server, messages, max_completion_tokens=12, **more, **how))
    (last,) = [chunk for chunk in chunks if not chunk.choices]
    pieces = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(piece.delta.content or "" for piece in pieces) == whole.choices[0].message.content == want.text
    assert pieces[-1].finish_reason == whole.choices[0].finish_reason == ("stop" if want.finished else "length")
    assert last.usage.completion_tokens == len(want.token_ids)
    streamed = [each for piece in pieces if piece.logprobs for each in piece.logprobs.content]
    for given in (whole.choices[0].logprobs.content, streamed):
        assert [each.logprob for each in given] == pytest.approx([each.logprob for each in want.logprobs], abs=1e-5)
        assert [[top.token for top in each.top_logprobs] for each in given] == [
            [built_in().tokenizer.decode([token]) for token, _ in each.top] for each in want.logprobs
        ]


def test_answers_end_where_they_are_told_to(server: Hosted) -> None:
    stream, message = watched(), user("Describe it.", part("clip.mp4"))
    drawn = (stream.ask("Describe it.", 24, sampling=pv.Sampling(2.0, seed=seed)).text for seed in range(1000))
    seed, text = next((seed, text) for seed, text in enumerate(drawn) if len(set(text.split())) > 2)
    hot = dict(temperature=2.0, seed=seed, max_tokens=24)
    whole = ask(server, message, **hot).choices[0]
    assert whole.message.content == text
    words = text.split()
    stop = next(word for word in words[1:] if word not in words[0])
    cut = ask(server, message, stop=["never said", stop], **hot).choices[0]
    assert cut.message.content == whole.message.content[: whole.message.content.find(stop)].strip()
    assert cut.finish_reason == "stop"
    assert ask(server, message, temperature=2.0, seed=seed, max_tokens=1).usage.completion_tokens == 1


def test_a_conversation_about_a_video_watches_it_once(server: Hosted) -> None:
    """Three turns: each as the library gives it after `add_turn`; then nothing is watched, and told so."""
    messages = [{"role": "system", "content": "Be brief."}, user(QUESTION, part("clip.mp4", frames=8))]
    stream = built_in().stream(system="Be brief.")
    with pv.open_video(CLIP, frames=8, chunk=8) as video:
        for chunk in video:
            stream.push(chunk)
    tokens = len(built_in().prompt.before("Be brief.")) + stream.visual_tokens
    frames, cached = server.metric("pdrop_frames_watched_total"), 0
    for turn, following in enumerate(("And what is shown first?", "Is it red?", "")):
        want = stream.ask(messages[-1]["content"] if turn else QUESTION)
        got = ask(server, *messages)
        assert got.choices[0].message.content == want.text
        assert got.usage.prompt_tokens == tokens + want.question_tokens
        assert got.usage.prompt_tokens_details.cached_tokens == cached
        assert server.metric("pdrop_frames_watched_total") == frames + 8
        cached = tokens
        tokens += stream.add_turn(want.question, want.text)
        messages += [{"role": "assistant", "content": want.text}, {"role": "user", "content": following}]


def test_a_second_video_of_a_conversation_goes_on_behind_the_first(server: Hosted) -> None:
    stream = watched()
    first = stream.ask(QUESTION).text
    stream.add_turn(QUESTION, first)
    begins = stream.status.seconds[1] + 1 / built_in().adapter.fps  # type: ignore[index]
    with pv.open_video(CLIP, built_in().adapter.fps, 8, end=3.0) as video:
        for chunk in video:
            stream.push(chunk.frames, [second + begins for second in chunk.seconds])
    want = stream.ask("And now?")
    messages = [user(QUESTION, part("clip.mp4")), {"role": "assistant", "content": first}]
    got = ask(server, *messages, user("And now?", part("clip.mp4", end=3.0)))
    assert got.choices[0].message.content == want.text
    assert got.usage.visual_tokens == {"entered": want.visual_tokens, "remembered": list(want.kept)}


def test_pictures_of_one_message_are_a_video_as_lmms_eval_sends_them(server: Hosted) -> None:
    """Its `openai` model sends frames as PNG in data addresses, then the text; max_tokens and temperature 0."""
    frames = [picture(seed) for seed in range(11)]
    stream = built_in().stream()
    for i in range(0, 11, 8):
        some = np.stack(frames[i : i + 8])
        stream.push(some, [float(i + j) for j in range(len(some))])
    want = stream.ask("What is shown?\nAnswer with one word.", 16)
    content = [part(as_url(png(frame)), "image") for frame in frames]
    message = user("What is shown?\nAnswer with one word.", *content)
    got = ask(server, message, max_tokens=16, temperature=0)
    assert got.choices[0].message.content == want.text
    assert got.usage.visual_tokens == {"entered": want.visual_tokens, "remembered": list(want.kept)}


@pytest.mark.parametrize("hot", [{}, {"temperature": 1.5, "top_p": 0.9, "seed": 5}])
def test_text_alone_is_answered_by_the_model_as_it_is(server: Hosted, hot: dict[str, Any]) -> None:
    """Whole and in pieces; the prompt is the template's own, token for token; nothing is watched or remembered."""
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        user("How many <|im_end|> things?"),
    ]
    said = "Hello", "Hi", "How many <|im_end|> things?"
    sampling = pv.Sampling(1.5, 0.9, seed=5) if hot else None
    want = built_in().chat(said, 12, system="Be brief.", sampling=sampling, logprobs=0).finish()
    frames, prefixes = server.metric("pdrop_frames_watched_total"), len(server.service.prefixes)
    whole = ask(server, *messages, max_tokens=12, logprobs=True, **hot)
    assert whole.choices[0].message.content == want.text
    assert [each.logprob for each in whole.choices[0].logprobs.content] == pytest.approx(
        [each.logprob for each in want.logprobs], abs=1e-5
    )
    usage = whole.usage.model_dump()
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (want.question_tokens, len(want.token_ids))
    assert usage["visual_tokens"]["entered"] == 0 == usage["prompt_tokens_details"]["cached_tokens"]
    more = dict(stream=True, stream_options={"include_usage": True})
    *chunks, last = ask(server, *messages, max_tokens=12, **more, **hot)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == want.text
    assert last.usage == whole.usage
    assert (server.metric("pdrop_frames_watched_total"), len(server.service.prefixes)) == (frames, prefixes)


def test_a_template_that_takes_no_text_alone_is_a_clear_refusal() -> None:
    lm = build("qwen2_5_vl")
    lm.tokenizer.chat_template += "<|video_pad|>"
    with hosted(Settings(name="built-in"), lm) as server, pytest.raises(openai.BadRequestError, match="text alone"):
        ask(server, user("what ?"))


def test_what_is_remembered_is_named_by_all_that_was_given() -> None:
    """Every difference that could change the stream makes another name; where the bytes came from makes none."""

    def name(url: str = "a.mp4", digest: str = "1", recipe: str = "r", **changes: Any) -> str:
        how, system = changes.get("how", {}), changes.get("system")
        first = [user(QUESTION, part(url, **how)), {"role": "assistant", "content": changes.get("said", "2")}]
        messages = [*([{"role": "system", "content": system}] if system else []), *first, user("And?")]
        talk = conversation_of([Message.model_validate(each) for each in messages])
        return talk.names([Media(wanted, Path(url), digest) for wanted in talk.wanted], recipe)[-1]

    changes: list[dict[str, Any]] = [
        {},
        {"digest": "2"},
        {"recipe": "s"},
        {"system": "Be brief."},
        {"said": "3"},
        *({"how": {key: 2}} for key in ("fps", "start", "end", "frames")),
    ]
    assert len({name(**change) for change in changes}) == len(changes)
    assert name("a.mp4") == name("http://x.example/b.mp4")


def test_who_asks_the_same_video_at_once_waits_for_it_and_finds_it_watched() -> None:
    with hosted() as server:
        got: list[Any] = []
        works = [
            threading.Thread(target=lambda: got.append(ask(server, user(QUESTION, part("clip.mp4"))))) for _ in range(4)
        ]
        [work.start() for work in works], [work.join() for work in works]
        assert len({each.choices[0].message.content for each in got}) == 1
        assert sorted(bool(each.usage.prompt_tokens_details.cached_tokens) for each in got) == [False, True, True, True]
        assert server.metric("pdrop_frames_watched_total") == watched().status.frames


def test_prefixes_are_bounded_in_number_and_bytes() -> None:
    with hosted(Settings(folders=(CLIPS,), limits=Limits(prefixes=2))) as server:
        for end in (2.0, 3.0, 4.0, 3.0, 2.0):
            ask(server, user(QUESTION, part("clip.mp4", end=end)))
        # the fourth was remembered; the fifth, which was not used for longest, had gone
        assert server.metric("pdrop_prefix_lookups_total", found="yes") == 1
        assert server.metric("pdrop_prefix_lookups_total", found="no") == 4
        assert len(server.service.prefixes) == 2 == server.metric("pdrop_prefixes")
        some = next(iter(server.service.prefixes._known.values()))
        small = Prefixes(10, 2 * some.bytes)
        for name in "abcde":
            small.keep(name, some)
        assert list(small._known) == ["d", "e"] and small.bytes == 2 * some.bytes


def test_who_goes_away_stops_the_answer(server: Hosted) -> None:
    """In the middle of pieces: the answer is closed, and its stream has no trace of it."""
    forwards = []
    hook = built_in().model.get_decoder().layers[-1].register_forward_hook(lambda *_: forwards.append(1))
    stream = ask(server, user("Go on.", part("clip.mp4")), stream=True, max_tokens=4000, temperature=2.0, seed=1)
    next(iter(stream)), next(iter(stream))
    stream.close()
    until(lambda: server.metric("pdrop_requests_in_flight") == 0)
    count = len(forwards)
    assert ask(server, user(QUESTION, part("clip.mp4"))).choices[0].message.content == watched().ask(QUESTION).text
    assert count < 2000
    hook.remove()


WRONG: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "another model": (dict(model="gpt-4o"), 404, "model_not_found"),
    "a late video": (
        dict(messages=[user("Hi"), {"role": "assistant", "content": "Hi"}, user("What?", part("clip.mp4"))]),
        400,
        "invalid_messages",
    ),
    "much text": (dict(messages=[user("what " * 5000)]), 400, "invalid_value"),
    "much text in all": (
        dict(messages=[*([user("what " * 4000), {"role": "assistant", "content": "2"}] * 9), user("Hi")]),
        400,
        "invalid_value",
    ),
    "no messages": (dict(messages=[]), 400, "invalid_request"),
    "a foreign file": (dict(messages=[user("What?", part("/etc/passwd"))]), 400, "invalid_value"),
    "out of the folder": (dict(messages=[user("What?", part("../clips/clip.mp4"))]), 400, "invalid_value"),
    "this machine": (dict(messages=[user("What?", part("http://127.0.0.1:1/a.mp4"))]), 400, "invalid_value"),
    "a cloud's own": (dict(messages=[user("What?", part("http://169.254.169.254/", "image"))]), 400, "invalid_value"),
    "another protocol": (dict(messages=[user("What?", part("file:///etc/passwd"))]), 400, "invalid_value"),
    "no picture": (dict(messages=[user("What?", part(as_url(b"not one"), "image"))]), 400, "invalid_value"),
    "no video in it": (dict(messages=[user("What?", part(as_url(b"not one", "video/mp4")))]), 400, "invalid_value"),
    "no base64": (dict(messages=[user("What?", part("data:image/png;base64,%%", "image"))]), 400, "invalid_value"),
    "nothing asked": (dict(messages=[{"role": "user", "content": [part("clip.mp4")]}]), 400, "no_question"),
    "an answer last": (
        dict(messages=[user("What?", part("clip.mp4")), {"role": "assistant", "content": "2"}]),
        400,
        "no_question",
    ),
    "a late system": (
        dict(messages=[user("What?", part("clip.mp4")), {"role": "system", "content": "Be kind."}]),
        400,
        "invalid_messages",
    ),
    "too many tokens": (dict(messages=[user("what " * 5000, part("clip.mp4"))]), 400, "invalid_value"),
    "half a character": (dict(messages=[user("\ud83d", part("clip.mp4"))]), 400, "invalid_request"),
    "two answers": (dict(n=2), 400, "invalid_request"),
    "tools": (dict(tools=[{"type": "function"}]), 400, "invalid_request"),
    "as JSON": (dict(response_format={"type": "json_object"}), 400, "invalid_request"),
    "temperature": (dict(temperature=-1), 400, "invalid_request"),
    "top_logprobs alone": (dict(top_logprobs=2), 400, None),
    "a far start": (dict(messages=[user("What?", part("clip.mp4", start=1e6))]), 400, "invalid_value"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_openais_form(server: Hosted, name: str) -> None:
    """One sentence, of a kind that the client knows; nothing of this machine's paths in it."""
    change, status, code = WRONG[name]
    body = {"model": "built-in", "messages": [user(QUESTION, part("clip.mp4"))], **change}
    with server.http() as http:
        # as JSON in ASCII, which can say half a character
        answer = http.post(
            "/v1/chat/completions", content=json.dumps(body), headers={"content-type": "application/json"}
        )
    error = answer.json()["error"]
    assert answer.status_code == status and error["code"] == code, error
    assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
    assert error["message"].endswith(".") and len(error["message"]) < 400
    assert not any(place in error["message"] for place in ("/tmp", str(Path(__file__).parent.parent)))


def test_the_client_raises_its_own_errors(server: Hosted) -> None:
    with pytest.raises(openai.NotFoundError, match="There is no model"):
        server.client().chat.completions.create(model="x", messages=[user(QUESTION)])  # type: ignore[arg-type,list-item]
    with pytest.raises(openai.BadRequestError, match="asks nothing"):
        ask(server, user(" "))
    assert not math.isnan(server.metric("pdrop_requests_total", route="/v1/chat/completions", status="400"))
