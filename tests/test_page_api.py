"""The page's endpoints: right answers for programs, and one clear sentence for whatever else is sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from io import BytesIO
from typing import Any

import httpx
import pytest
from gradio_client import Client
from PIL import Image

import pdrop_video as pv
from demos import client
from demos.actions import Actions
from demos.gallery import CLIPS
from demos.page import build
from demos.sessions import Sessions
from demos.settings import Settings
from demos.uploads import Uploads
from pdrop_video.guard import Guard

CLIP = CLIPS / "clip.mp4"
QUESTIONS = [(item["question"], item["answer"]) for item in json.loads((CLIPS / "clip.json").read_text())["questions"]]
SETTINGS = ["", 0, 8, "0.5, 0.25, 0.125", 6144, "pyramid", "", "", False, "none", "none"]
built_in = cache(pv.load)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        sessions = Sessions({"built-in": built_in}, most=32, each=32)
        page = build(Actions(sessions, Guard((folder, CLIPS)), Uploads(folder)))
        _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, run_history=False, ssr_mode=False)
        yield address
        page.close()


def picture(shade: int, size: tuple[int, int] = (224, 224)) -> str:
    drawn = BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(drawn, "PNG")
    return base64.b64encode(drawn.getvalue()).decode()


def error(address: str, endpoint: str, *values: Any) -> str:
    """What a program is told that knows HTTP alone, and may send anything; fails if it is told nothing."""
    called = httpx.post(f"{address}gradio_api/call/{endpoint}", json={"data": values}, trust_env=False)
    told = httpx.get(f"{address}gradio_api/call/{endpoint}/{called.json()['event_id']}", trust_env=False, timeout=60)
    *_, event, data = told.text.strip().splitlines()
    assert event == "event: error"
    sentence = json.loads(data.removeprefix("data: "))["error"]
    assert isinstance(sentence, str) and sentence.endswith(".")
    return sentence


def test_a_program_gets_the_right_answers(served: str) -> None:
    asked = QUESTIONS[:3]
    assert client.ask(str(CLIP), [question for question, _ in asked], served) == [answer for _, answer in asked]


def test_a_program_pushes_frames_and_is_told_what_is_wrong(served: str) -> None:
    program = Client(served, verbose=False)
    name = program.predict("", api_name="/open")
    pushed = program.predict(name, [picture(0), picture(255)], [0.0, 0.5], api_name="/push")
    assert pushed["frames"] == 2
    status = program.predict(name, api_name="/status")
    assert status["entered"] == pushed["visual_tokens"] > 0
    assert (status["state"], status["frames"], status["seconds"]) == ("idle", 2, [0.0, 0.5])
    for frames, seconds in ((["no picture"], [1.0]), ([], []), ([picture(1)], [0.1, 0.2])):
        with pytest.raises(Exception, match=r"picture|expected"):
            program.predict(name, frames, seconds, api_name="/push")
    for source in ("/etc/passwd", "../../etc/passwd", "http://127.0.0.1/a.mp4"):
        with pytest.raises(Exception, match=r"There is no video|private network"):
            program.predict(source, api_name="/open")
    assert program.predict(name, api_name="/close") is True
    assert program.predict(name, api_name="/close") is False
    with pytest.raises(Exception, match="closed"):
        program.predict(name, api_name="/status")


def test_a_program_chooses_what_is_left_out(served: str) -> None:
    """Of six equal pictures two are looked at, since a step has two; of a later step a quarter is read."""
    program = Client(served, verbose=False)
    name = program.predict("", gate="static", reducer="evs:keep=0.25", api_name="/open")
    pushed = program.predict(name, [picture(90)] * 6, [0, 0.5, 1, 1.5, 2, 2.5], api_name="/push")
    assert (pushed["frames"], pushed["skipped"], pushed["visual_tokens"]) == (6, 4, 16)
    pushed = program.predict(name, [picture(200)] * 2, [3, 3.5], api_name="/push")
    assert (pushed["skipped"], pushed["visual_tokens"]) == (0, 4)
    status = program.predict(name, api_name="/status")
    assert (status["frames"], status["skipped"], status["entered"]) == (8, 4, 20)


def test_only_the_documented_endpoints_are_offered(served: str) -> None:
    named = Client(served, verbose=False).view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {"/open", "/push", "/ask", "/status", "/close"}
    arguments = [argument["parameter_name"] for argument in named["/open"]["parameters"]]
    *first, gate, reducer = [field.name for field in fields(Settings)]
    assert arguments == ["source", *first, "live", gate, reducer]  # those that came later stand behind


NEVER = {"meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"path": "/etc/passwd", **NEVER}, "was not uploaded here"),
        ({"path": "/etc/passwd"}, "There is no video"),
        ({"path": "a.mp4", "url": "http://127.0.0.1/a.mp4", **NEVER}, "was not uploaded here"),
        ({"path": "http://127.0.0.1/a.mp4", **NEVER}, "was not uploaded here"),
        ({"path": None}, "is no text and no file"),
        ({"path": None, **NEVER}, "is no text and no file"),
        ({"path": 5}, "is no text and no file"),
        ({"path": "a.mp4", "size": "large", **NEVER}, "cannot be read"),
        ({}, "is no text and no file"),
        ([1, 2], "is no text and no file"),
        (None, "is no text and no file"),
        ("\0", "Type the name of a video"),
    ],
)
def test_a_source_that_is_none_is_one_sentence(served: str, source: Any, told: str) -> None:
    assert told in error(served, "open", source, *SETTINGS)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (0, 5, "model is '5'; expected text"), (0, "other", "no model 'other'"), (1, None, "fps is None"),
        (1, "x", "fps is 'x'"), (2, 0, "chunk is 0"), (3, 5, "ratios is '5'"), (3, "a", "ratios are 'a'"),
        (4, 32_769, "memory is 32,769; expected 32,768 tokens a layer at most"), 
        (4, 10**7, "expected 32,768 tokens a layer"), (5, [1], "evictor is '[1]'"), (5, "x", "no evictor 'x'"),
        (6, 5, "probe is '5'"), (6, "x" * 2001, "2,001 characters"), (7, {"a": 1}, "ask_ratios is"),
        (7, "2", "expected a share in (0, 1]"), (7, "0.2, 0.5", "ratios are '0.2, 0.5', which rise"),
        (9, 5, "gate is '5'; expected text"), (9, "statik", "no gate 'statik'; choose one of codec"),
        (9, "static:threshold=" + "[" * 1900, "expected a finite number"), (10, ["evs"], "reducer is"),
        (10, "evs:keep=2", "keep is 2.0; expected a share"), (10, "evs:speed=2", "reducer evs has 'speed=2'"),
    ],
)  # fmt: skip
def test_a_setting_that_is_none_is_one_sentence(served: str, place: int, value: Any, told: str) -> None:
    assert told in error(served, "open", "", *SETTINGS[:place], value, *SETTINGS[place + 1 :])


@pytest.mark.parametrize("endpoint", ["push", "ask", "status"])
@pytest.mark.parametrize("session", [None, 5, {}, [], "x"])
def test_a_session_that_is_none_is_one_sentence(served: str, endpoint: str, session: Any) -> None:
    more = {"push": ([], []), "ask": ("what ?", 8), "status": ()}[endpoint]
    assert "This session was closed, or was never opened" in error(served, endpoint, session, *more)
    assert f"0 of {1 + len(more)} value" in error(served, endpoint)


@pytest.mark.parametrize(
    ("endpoint", "values", "told"),
    [
        ("ask", (None, 8), "question is 'None'; expected text"), ("ask", ("", 8), "question is empty"),
        ("ask", ("x" * 2001, 8), "2,001 characters"), ("ask", ("what ?", 10**9), "at most 2048 tokens"),
        ("ask", ("what ?", "x"), "max_new_tokens is 'x'"), ("ask", ("what ?", 8), "nothing was watched yet"),
        ("push", ([None], [0.0]), "a picture cannot be read"), ("push", (["!"], [0.0]), "a picture cannot be read"),
        ("push", ({}, [0.0]), "expected a list"), ("push", ([picture(0)], None), "seconds are None"),
        ("push", ([picture(0)], ["x"]), "not a number"), ("push", ([picture(0)], []), "0 times"),
        ("push", ([picture(0), picture(0, (8, 8))], [0.0, 1.0]), "differ in size"),
        ("push", ([picture(0, (4096, 4096))] * 9, [0.0] * 9), "9 pictures of 4096 x 4096 are too many"),
        ("push", ([picture(0, (14000, 14000))], [0.0]), "a picture cannot be read"),
    ],
)  # fmt: skip
def test_what_a_session_cannot_do_is_one_sentence(
    served: str, endpoint: str, values: tuple[Any, ...], told: str
) -> None:
    name = Client(served, verbose=False).predict("", api_name="/open")
    assert told in error(served, endpoint, name, *values)


def test_a_fault_of_the_server_is_one_sentence_too(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(Sessions, "get", broken)
    assert error(served, "status", "x") == "Something went wrong on the server; its log says what."
