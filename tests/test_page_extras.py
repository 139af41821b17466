"""Compared recipes, exported conversations, presets, moments: against the library itself and plain figures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest.mock import Mock

import gradio as gr
import pytest

import pdrop_video as pv
from demos.actions import Actions
from demos.around import around
from demos.export import markdown
from demos.extras import Extras
from demos.gallery import CLIPS, gallery, suggestions
from demos.presets import PRESETS, chosen
from demos.session import Session
from demos.sessions import Sessions
from demos.settings import Settings
from demos.sources import opener
from demos.times import clock, rested
from demos.turn import Turn
from demos.uploads import Uploads
from demos.visitor import Visitor
from pdrop_video.guard import Guard, Source
from pdrop_video.stream import saved

built_in = cache(pv.load)
CLIP = CLIPS / "clip.mp4"
QUESTION = gallery()[0].questions[0]


def watched(tmp_path: Path, settings: Settings | None = None) -> tuple[Extras, Session]:
    actions = Actions(Sessions({"built-in": built_in}), Guard((CLIP.parent,)), Uploads(tmp_path))
    session = actions.begin("", str(CLIP), settings or Settings())
    session.watcher.join(60)
    return Extras(actions), session


def asked(settings: Settings) -> pv.Answer:
    """By the library alone."""
    stream = settings.open(built_in())
    with pv.open_video(CLIP, built_in().adapter.fps, settings.chunk) as reader:
        for chunk in reader:
            stream.push(chunk)
    return stream.ask(QUESTION)


def cells(table: str, row: str) -> list[str]:
    found = re.search(rf'<th scope="row">{re.escape(row)}</th>(.*?)</tr>', table)
    assert found, row
    return [re.sub("<.*?>", "", cell) for cell in re.findall("<td>(.*?)</td>", found[1])]


@pytest.mark.parametrize("ratios", ["0.5, 0.25, 0.125", "none"])
def test_two_recipes_answer_as_the_library_does_with_each(ratios: str, tmp_path: Path) -> None:
    settings = Settings(ratios=ratios)
    extras, session = watched(tmp_path, settings)
    *steps, table = extras.compare(session.name, QUESTION)
    assert any("Watching with" in step for step in steps) and "Asking both" in steps[-1]
    contrary = replace(settings, ratios="none" if ratios != "none" else Settings().ratios)
    answers = [asked(each) for each in (settings, contrary)]
    assert cells(table, "Answer") == [answer.text.strip() for answer in answers]
    assert cells(table, "Pieces remembered by the deepest layers") == [f"{a.kept[-1]} of 192" for a in answers]
    assert cells(table, "Tokens remembered, all layers together") == [f"{sum(a.cache_tokens):,}" for a in answers]
    assert len({a.kept for a in answers}) == 2
    for row in ("Watching took", "First word after"):
        assert all(re.fullmatch(r"[\d,]+ ms", cell) for cell in cells(table, row))
    assert table.count("<img") == 2 * len(rested(answers[0]))
    assert len(built_in().streams) == 1, "the second one is closed"
    session.clear()


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    extras, session = watched(tmp_path)
    for name, question, why in (
        (session.name, " ", "is empty"),
        ("", QUESTION, "Choose a video"),
        ("x", "?", "closed"),
    ):
        with pytest.raises(gr.Error, match=why):
            list(extras.compare(name, question))
    steps = extras.compare(session.name, QUESTION)
    next(steps)
    session.clear()
    with pytest.raises(gr.Error, match="Another video was chosen"):
        list(steps)
    with pytest.raises(gr.Error, match="Choose a video first"):
        list(extras.compare(session.name, QUESTION))


def test_a_conversation_is_exported_to_read_and_with_its_evidence(tmp_path: Path) -> None:
    extras, session = watched(tmp_path)
    with pytest.raises(gr.Error, match="no conversation yet"):
        extras.export(session.name, "md")
    for _ in session.follow(session.ask(QUESTION)):
        pass
    session.chat.append(Turn("<b>*Is* this a `mark`?</b>\n# no", error="It [failed]."))
    answer = session.last_answer()
    file = json.loads(extras.export(session.name, "json"))
    assert file["name"] == "clip.json"
    told = json.loads(file["text"])
    assert told["settings"]["ratios"] == "0.5, 0.25, 0.125"
    whole, failed = told["turns"]
    assert (whole["question"], whole["text"], failed["error"]) == (QUESTION, answer.text.strip(), "It [failed].")
    assert [tuple(stage["weight"]) for stage in whole["answer"]["evidence"]] == [s.weight for s in answer.evidence]
    assert whole["moments"] == [*rested(answer)]
    text = json.loads(extras.export(session.name, "md"))["text"]
    assert text == markdown(session)
    assert text.splitlines()[:6] == ["# clip.mp4", "", f"**{QUESTION}**", "", "green", ""]
    assert f"looked most at {clock(rested(answer)[0])}; watched up to 11.5 s" in text
    assert r"**\<b\>\*Is\* this a \`mark\`?\</b\> \# no**" in text and r"It \[failed\]." in text
    session.clear()


def test_a_stream_is_saved_and_opened_again_as_it_was(tmp_path: Path) -> None:
    extras, session = watched(tmp_path)
    uploads = extras._actions.uploads
    before = session.stream.ask(QUESTION)
    told = json.loads(extras.save(session.name, Visitor(client="c")))
    path = Path(told["path"])
    assert told["name"] == path.name == "clip.pdrop"
    assert extras._actions.shown.find(str(path)) == path, "its visitor may take it"
    session.clear()
    name, shown, *_ = extras.reopen("", str(path), "built-in", Visitor(client="c"))
    again = extras._sessions.get(name)
    assert "Watched clip: 11.5 s" in shown
    assert extras.around(name)[-1] == "", "nobody knows what it saw"
    for _ in again.follow(turn := again.ask(QUESTION)):
        pass
    assert turn.answer is not None
    assert (turn.answer.text, turn.answer.evidence) == (before.text, before.evidence)
    assert not path.exists() and extras._actions.shown.find(str(path)) is None, "it was read, and is gone"
    assert uploads.bytes.taken == 0
    again.clear()


@pytest.mark.parametrize(
    ("part", "change", "why"),
    [
        ("memory", {"tokens": 1_000_000}, "expected 32,768 tokens"),
        ("memory", {"tokens": None}, "expected 32,768 tokens"),
        ("memory", {"archive_folder": "/tmp", "archive": 1}, "has an archive"),
        ("lookout", {"watches": [{}] * 6}, "more than this page offers"),
    ],
)
def test_a_stranger_s_stream_asks_for_no_more_than_a_visitor_may(
    part: str, change: dict[str, object], why: str, tmp_path: Path
) -> None:
    extras, session = watched(tmp_path)
    path = Path(json.loads(extras.save(session.name, Visitor()))["path"])
    header, tensors = saved.read(path)
    saved.write(path, tensors, header | {part: header[part] | change})
    with pytest.raises(gr.Error, match=why) as refused:
        extras.reopen("", str(path), "built-in", Visitor())
    assert str(tmp_path) not in str(refused.value)
    assert len(extras._sessions.names) == 1, "no session came of it"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"no stream")
    with pytest.raises(gr.Error, match=r"clip\.pdrop"):
        extras.reopen("", str(path), "built-in", Visitor())
    session.clear()


def test_moments_are_the_strongest_that_lie_apart() -> None:
    stage = pv.Evidence((0.0, 0.5, 1.0, 4.0, 8.0, 9.0), (1,) * 6, (0.3, 0.2, 0.05, 0.25, 0.15, 0.02))
    more = pv.Evidence((8.0,), (1,), (0.3,))
    assert rested(Mock(evidence=(stage,))) == (0.0, 4.0, 8.0)  # 0.5 lies next to 0.0
    assert rested(Mock(evidence=(stage, more))) == (0.0, 4.0, 8.0)
    assert rested(Mock(evidence=(more, pv.Evidence((1.0,), (1,), (0.11,))))) == (8.0,)  # the other has too little
    assert rested(Mock(evidence=(pv.Evidence((), (), ()),))) == ()
    assert [clock(s) for s in (0, 59.94, 61, 3723)] == ["0.0 s", "59.9 s", "1:01", "1:02:03"]


def test_presets_are_settings_and_change_what_they_name() -> None:
    for name, changes in PRESETS.items():
        made = Settings(*chosen(name, "m"))
        assert made == Settings(model="m", **changes)
        assert made._watching().as_dict()
    assert len({chosen(name, "m") for name in PRESETS}) == len(PRESETS)


def test_suggestions_fit_the_clip_and_the_model() -> None:
    clips = gallery()
    assert [clip.path.name for clip in clips] == ["clip.mp4", "numbers.mp4", "world.mp4"]
    assert suggestions(None, clips, True) == ""
    for clip in clips[:2]:
        shown = suggestions(str(clip.path), clips, True)
        assert re.findall('data-ask="(.*?)"', shown) == [*clip.questions[:6]]
    for source in (str(clips[2].path), "mine.mp4"):
        assert "know this video. Its answers will be wrong." in suggestions(source, clips, True)
        assert "What happens in this video?" in suggestions(source, clips, False)


def test_a_live_stream_is_read_in_pieces_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is read in the pieces that are set."""
    read: list[tuple[float, int]] = []
    monkeypatch.setattr(pv, "open_video", lambda target, fps, chunk, **how: read.append((fps, chunk)))
    for live, settings in (
        (True, Settings()),
        (True, Settings(fps=30)),
        (True, Settings(chunk=1)),
        (False, Settings()),
    ):
        opener(Source("rtsp://x/", "x", live=live), settings, 2.0)()
    assert read == [(2.0, 2), (30.0, 8), (2.0, 1), (2.0, 8)]


def test_nothing_to_stop_is_nothing_to_press(tmp_path: Path) -> None:
    extras, session = watched(tmp_path)
    states = [each["interactive"] for each in _buttons(extras.around(session.name))]
    assert states == [False, True, True], "stop, start over, watch again"
    states = [each["interactive"] for each in _buttons(around(None, (), True))]
    assert states == [False, False, False]
    session.clear()


def test_a_start_says_what_it_does_before_it_takes_time(tmp_path: Path) -> None:
    """As soon as it begins, and again before the page's own library; here there is no such model, and it ends."""
    command = [sys.executable, "-m", "demos.app", "--model", str(tmp_path / "none")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode
    assert run.stdout.splitlines()[:2] == [
        "Reading the code; PyTorch takes some seconds.",
        "[1/3] Reading gradio, which draws the page.",
    ]


def _buttons(updates: list[object]) -> list[dict[str, object]]:
    return [each.get_config() for each in updates if isinstance(each, gr.Button)]
