"""The page without a browser: what a stranger may open and set, standing questions, text."""

from __future__ import annotations

import re
import socket
from dataclasses import astuple, replace
from functools import cache
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from told import told

import pdrop_video as pv
from demos import views
from demos.camera import BrowserCamera
from demos.form import fields
from demos.settings import Settings
from demos.standing import Standing
from demos.turn import Turn
from demos.watching import Progress
from pdrop_video.gate import GATES
from pdrop_video.guard import Guard, Refused, counted_by
from pdrop_video.reduce import REDUCERS

built_in = cache(pv.load)


def guarded(tmp_path: Path) -> tuple[Guard, Path]:
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"video")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (folder / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (folder / "away").symlink_to(tmp_path)
    return Guard((folder,)), folder


def test_files_of_the_folder_are_opened(tmp_path: Path) -> None:
    guard, folder = guarded(tmp_path)
    for text in ("a.mp4", str(folder / "a.mp4"), " a.mp4 "):
        assert guard.source(text).target == str(folder / "a.mp4")


@pytest.mark.parametrize(
    "text",
    [
        "../secret.mp4", "../../etc/passwd", "/etc/passwd", "link.mp4", "away/secret.mp4", "missing.mp4", "", ".",
        "a.mp4\n/etc/passwd", "a\0.mp4", "x" * 5000, "file:a.mp4", "file:///etc/passwd", "concat:a.mp4|/etc/passwd",
        "subfile,,start,0,end,9,,:/etc/passwd", "data:video/mp4;base64,AAAA", "pipe:0", "crypto:a.mp4", "async:a.mp4",
        "/dev/stdin", "/dev/video0", "/dev/video0/../../etc/passwd", "gopher://8.8.8.8/", "http://", "http://[::1",
    ],
)  # fmt: skip
def test_what_is_elsewhere_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        guarded(tmp_path)[0].source(text)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "localhost", "0.0.0.0", "10.1.2.3", "172.16.0.1",
        "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "[::1]", "[fe80::1]", "[fc00::1]",
        "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
    ],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "rtsp", "tcp"])
def test_private_networks_are_refused_unless_allowed(scheme: str, host: str, tmp_path: Path) -> None:
    address = f"{scheme}://{host}:8554/a"
    with pytest.raises(Refused, match="private network"):
        guarded(tmp_path)[0].source(address)
    assert Guard((tmp_path,), private=True).source(address).target == address


def test_a_name_with_one_private_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = ["8.8.8.8", "10.0.0.1"]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (number, 0)) for number in numbers])
    with pytest.raises(Refused, match="private network"):
        guarded(tmp_path)[0].source("rtsp://camera.example/a")
    numbers.pop()
    source = Guard((tmp_path / "uploads",)).source("rtsp://me:pass@camera.example/a")
    assert source.target == "rtsp://me:pass@8.8.8.8/a"  # what was checked is what is opened
    assert source.live
    assert "pass" not in source.name


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.7", "203.0.113.8", False),
        ("203.0.113.7", "::ffff:203.0.113.7", True),
        ("2001:db8:1:2::7", "2001:db8:1:2:3:4:5:6", True),
        ("2001:db8:1:2::7", "2001:db8:1:3::7", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_who_has_a_whole_network_counts_as_one(one: str, other: str, same: bool) -> None:
    assert (counted_by(one) == counted_by(other)) is same


def test_a_slow_model_loses_the_oldest_pictures() -> None:
    camera = BrowserCamera(chunk=2)
    for shade in range(7):
        camera.put(np.full((4, 4, 3), shade, np.uint8))
    assert camera.dropped == 3
    chunk = next(iter(camera))
    assert [int(frame.flatten()[0]) for frame in chunk.frames] == [3, 4]


def test_what_a_standing_question_may_be_answered_with() -> None:
    assert Standing("Is there a dog?").options == ("Yes", "No")
    assert Standing("Is there a dog?", "no").options == ("No", "Yes")
    assert Standing("What colour is it?", " red, blue ,").options == ("red", "blue")
    assert Standing("What colour is it?", "red").again().options == ("red",)
    with pytest.raises(pv.ConfigError, match="empty"):
        Standing(" ")
    for wanted in (",,", "red, Red"):
        with pytest.raises(pv.ConfigError, match=f"The answers are '{wanted}'; expected some that differ"):
            Standing("What colour is it?", wanted)


def test_yes_and_no_are_words_that_the_built_in_model_was_taught() -> None:
    """Whole words of its vocabulary, as its lessons have them, and no pieces of words or letters of options."""
    lm = built_in()
    for options in (Standing("Is a fish shown?").options, Standing("Is a fish shown?", "no").options):
        said = [lm.prompt.words(option) for option in options]
        assert sorted(lm.prompt.tokenizer.convert_ids_to_tokens([word for words in said for word in words])) == [
            "no",
            "yes",
        ]


def test_what_is_held_never_looks_larger_than_its_bound() -> None:
    """1,048,000 of 1,048,576 bytes were "1.05 of 1.0 MB"."""
    for held, bound in ((1_048_000, 1_048_576), (999_999, 1_000_000), (10_000, 14_999), (2_000_000, 1_000_000)):
        shown = views.progress(Progress("watching", frames=1, kept=(1,), cache_bytes=held, bound=bound))
        told = re.search(r"<dt>Memory</dt><dd>([\d.]+) of ([\d.]+) MB</dd>", shown)
        assert told is not None
        assert (float(told[1]) > float(told[2])) == (held > bound)
        assert [len(number.partition(".")[2]) for number in told.groups()] == [2, 2]


def test_a_standing_question_lists_each_event_once_and_the_newest() -> None:
    """An event comes when it begins and when it is over; the second stands in the place of the first."""
    standing = Standing("Is there a dog?")
    for number in range(7):
        begun = pv.Event("Is there a dog?", float(number), None, 0.9, cut=False)
        for event in (begun, replace(begun, end=number + 0.5)):
            standing._note(event)
    assert [(event.begin, event.end) for event in standing.events] == [(n, n + 0.5) for n in (2.0, 3.0, 4.0, 5.0, 6.0)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"fps": -1}, {"fps": "x"}, {"chunk": 0}, {"chunk": 65}, {"memory": 0}, {"memory": float("nan")}, {"fps": True},
        {"gate": "statik"}, {"gate": "static:threshold=-1"}, {"reducer": "evs:keep=0"}, {"reducer": 0.5},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(pv.ConfigError):
        Settings(**wrong)  # type: ignore[arg-type]
    for ratios in ("a", "0.5; 0.2", "2", "0.5, -1"):
        with pytest.raises(pv.PDropError):
            Settings(ratios=ratios).open(built_in())


def test_the_form_offers_what_settings_take_and_begins_with_the_usual() -> None:
    form = fields(["built-in"])
    assert [part.value for part in form] == [*astuple(Settings(model="built-in"))]
    for name, offered, listed in (("gate", form[-2], GATES), ("reducer", form[-1], REDUCERS)):
        values = [value for _, value in offered.choices]
        trained = {
            each for each, method in listed.items() if isinstance(p := getattr(method, "parts", ()), tuple) and p
        }
        alone = {*listed} - trained  # the page loads no trained part
        assert {"none", *alone} <= {*values} and not trained & {*values}
        lines = [Settings(**{name: value})._watching().as_dict().get(name, "none") for value in values]
        assert lines == values


def test_an_answer_without_a_word_says_so() -> None:
    answer = Mock(spec=pv.Answer, evidence=(), seconds=(0.0, 2.0))
    answers = [
        told(views.chat([Turn("?", text, done, answer=(done and answer) or None)])[1]["content"])
        for text, done in (("", False), (" ", True), ("2", True))
    ]
    assert answers == ["…", "(The model ended its answer without a word.)", "2"]


def test_text_of_strangers_stays_text() -> None:
    bad = "<script>alert(1)</script>"
    shown = [message["content"] for message in views.chat([Turn(bad, bad, done=True, error=bad)])]
    shown += [views.progress(Progress("failed", message=bad, warnings=(bad,)), bad)]
    asked = Standing(bad, bad)
    asked._watch = Mock(likelihood=None, error=bad, event=None)
    shown += [views.standing([asked])]
    for text in shown:
        assert "<script" not in text
        assert "&lt;script" in text
