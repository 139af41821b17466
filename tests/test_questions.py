"""Question sets: JSON lines and Video-MME's layout, and videos that are decoded when they are watched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pdrop_video as pv
from eval.synthetic.make import make
from pdrop_video.search.questions import Film, Kept, QuestionSet


def lines(folder: Path, *rows: object) -> Path:
    for name in ("a.mp4", "b.mp4"):
        (folder / name).write_bytes(b"x")
    path = folder / "asked.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_lines(tmp_path: Path) -> None:
    path = lines(
        tmp_path,
        {"video": "a.mp4", "question": "What?"},
        {"video": "b.mp4", "questions": ["Who?", "What?"]},
        "",
        {"video": "a.mp4", "question": "Where?", "options": ["A. here", "B. there"]},
        {"video": "a.mp4", "question": "What?"},
    )
    assert QuestionSet.read(path).questions == {
        str(tmp_path / "a.mp4"): ("What?", "Where?\nA. here\nB. there\nAnswer with the letter of the right option."),
        str(tmp_path / "b.mp4"): ("Who?", "What?"),
    }


@pytest.mark.parametrize(
    "row,said",
    [
        ("{", "line 1 of .* is no JSON"),
        ([1], "expected .*question"),
        ({"video": "a.mp4"}, "expected .*question"),
        ({"video": "a.mp4", "question": "?", "questions": ["?"]}, "expected .*question"),
        ({"video": "a.mp4", "question": "?", "answer": "A"}, "expected .*question"),
        ({"video": "a.mp4", "question": " "}, "some text"),
        ({"video": "c.mp4", "question": "?"}, "names c.mp4, and there is no"),
        ({"video": 3, "question": "?"}, "video in line 1"),
    ],
)
def test_lines_that_are_none(tmp_path: Path, row: object, said: str) -> None:
    with pytest.raises(pv.ConfigError, match=said):
        QuestionSet.read(lines(tmp_path, row))


def test_the_released_layout(tmp_path: Path) -> None:
    make(tmp_path, "dev", 4, {"short": 2, "medium": 0, "long": 0, "very long": 0}, 3, 1)
    found = QuestionSet.read(tmp_path).questions
    assert len(found) == 2 and all(len(asked) == 3 for asked in found.values())
    for video, asked in found.items():
        assert Path(video).exists() and all(len(each.splitlines()) == 6 for each in asked)
    next(iter((tmp_path / "data").iterdir())).unlink()
    with pytest.raises(pv.ConfigError, match=r"there is no .*\.mp4"):
        QuestionSet.read(tmp_path)
    with pytest.raises(pv.ConfigError, match="Video-MME's layout"):
        QuestionSet.read(tmp_path / "data")
    (tmp_path / "videomme" / "test-00000-of-00001.parquet").write_bytes(b"cut short")
    with pytest.raises(pv.ConfigError, match="is not the released"):
        QuestionSet.read(tmp_path)
    with pytest.raises(pv.ConfigError, match="can't be read"):
        QuestionSet.read(tmp_path / "none.jsonl")
    with pytest.raises(pv.ConfigError, match="empty"):
        QuestionSet.read(lines(tmp_path))


def test_what_is_kept_is_bounded_and_the_newest() -> None:
    made: list[str] = []

    def get(kept: Kept, key: str) -> str:
        return kept.get(key, lambda: made.append(key) or key, lambda _: 4)  # type: ignore[func-returns-value]

    kept = Kept(8)
    for key in ("a", "b", "a", "c", "a", "b"):
        assert get(kept, key) == key
    assert made == ["a", "b", "c", "b"] and kept.held == 8


def test_films_are_what_the_video_is(tmp_path: Path) -> None:
    make(tmp_path, "dev", 4, {"short": 1, "medium": 0, "long": 0, "very long": 0}, 1, 1)
    (video,) = QuestionSet.read(tmp_path).questions
    for film in (Film(video, 5, 2, Kept()), Film(video, 5, 2, Kept(1))):
        for _ in range(2):
            with pv.open_video(video, frames=5, chunk=2) as there:
                pairs = list(zip(film, there, strict=True))
            assert len(pairs) == 3 and all(a.seconds == b.seconds and (a.frames == b.frames).all() for a, b in pairs)
