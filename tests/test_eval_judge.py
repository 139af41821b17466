"""A judge for open answers, against a server of this machine: what it is asked, how it is read, what it comes to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from benchmarks import rvs, write_json
from servers import answering
from typer.testing import CliRunner

from eval.compare import compare
from eval.drivers.jobs import failed
from eval.judge import Judge, judged, main
from eval.stats.open_answers import read_reply
from eval.stats.record import Record, read_run
from eval.stats.verdicts import read_judged
from eval.tasks import task_named
from pdrop_video import ConfigError, PDropError
from pdrop_video.common.journal import Journal

app = typer.Typer()
app.command()(main)
comparing = typer.Typer()
comparing.command()(compare)

ROWS = [
    # video, question, truth, kind, prediction, and the judge's reply
    ("v1", "What did I pick up?", "A cup.", "object", "a cup", "{'pred': 'yes', 'score': 5}"),
    ("v1", "Where am I?", "In a kitchen.", "place", "outside", "{'pred': 'no', 'score': 1}"),
    ("v2", "What is open?", "The door.", "object", "a door", "{'pred': 'Yes.', 'score': 4.8}"),
    ("v2", "Who is there?", "Nobody.", "place", "", '{"pred": "no", "score": "0"}'),
    ("v3", "What falls?", "A {plate}.", "object", "a cup {x}", "```python\n{'pred': 'yes', 'score': 3}\n```"),
]
"""By hand: 3 of 5 are right; scores 5, 1, 4 (4.8 cut), 0 and 3 make 2.6; objects 3 of 3 at 4, places 0 of 2 at .5."""


def make_run(folder: Path, rows: list[tuple[str, ...]] = ROWS, error: bool = False) -> Path:
    """A finished run of RVS-Ego with these predictions; with `error` one more item broke off."""
    videos: dict[str, list[dict[str, Any]]] = {}
    for video, question, answer, kind, *_ in rows:
        videos.setdefault(video, []).append(
            {"question": question, "answer": answer, "start_time": 0.0, "end_time": 5.0, "answer_type": kind}
        )
    if error:
        videos["v9"] = [{"question": "Broken?", "answer": "Yes.", "end_time": 5.0, "answer_type": "place"}]
    data = [
        {"video_id": name, "video_path": f"videos/{name}.mp4", "duration": 9, "conversations": asked}
        for name, asked in videos.items()
    ]
    write_json(folder / "data" / "ego" / "ego4d_oe.json", data)
    task = task_named("rvs-ego", folder / "data")
    write_json(folder / "run.json", {"task": "rvs-ego", "config_digest": "c"})
    responses = {row[1]: row[4] for row in rows}
    with Journal(folder / "records.jsonl") as journal:
        for item in task.items():
            record = failed(item, "rvs-ego", "c", "broke off")
            if item.question in responses:
                mark = task.mark(item, responses[item.question], [])
                record = Record.of_json(
                    {**record.to_json(), "error": None, "response": responses[item.question]}
                    | {"score": mark.score, "official_score": mark.official_score, "strict": mark.strict}
                )
            journal.append(record.to_json())
    return folder


def says(text: Any) -> tuple[int, dict[str, str], Any]:
    return 200, {}, {"choices": [{"message": {"role": "assistant", "content": text}}]}


def by_question(rows: list[tuple[str, ...]] = ROWS) -> Callable[[Any], tuple[int, dict[str, str], Any]]:
    def answer(body: Any) -> tuple[int, dict[str, str], Any]:
        user = body["messages"][1]["content"]
        return says(next(row[5] for row in rows if f"Question: {row[1]}\n" in user))

    return answer


def verdict_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in folder.glob("verdicts-*.jsonl") for line in path.read_text().splitlines()]


def test_figures_by_hand(tmp_path: Path) -> None:
    run = make_run(tmp_path, error=True)
    with answering(by_question()) as server:
        said = judged(run, Judge(f"{server.address}/v1", "m"))
    assert said["accuracy"]["mean"] == pytest.approx(3 / 5)
    assert said["accuracy_errors_wrong"]["mean"] == pytest.approx(3 / 6)
    assert said["score"] == pytest.approx(2.6)
    kinds = said["categories"]["answer_type"]
    assert {kind: (mean["mean"], mean["score"]) for kind, mean in kinds.items()} == {
        "object": (1, 4),
        "place": (0, 0.5),
    }
    assert said["scores"] == {"yes": {"3": 1, "4": 1, "5": 1}, "no": {"0": 1, "1": 1}}
    assert said["items"] == {"open": 6, "errors": 1, "judged": 5, "unreadable": 0, "neither_yes_nor_no": 0}
    # clustered by video: v1 {1, 0}, v2 {1, 0}, v3 {1} about .6 leave -.2, -.2, .4 -> 3/2 * .24 / 25
    assert said["accuracy"]["standard_error"] == pytest.approx((1.5 * 0.24 / 25) ** 0.5)
    assert json.loads((run / "judged.json").read_text()) == said


def test_what_a_judge_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, ROWS[4:])
    monkeypatch.setenv("MY_KEY", "secret-1")
    with answering(by_question()) as server:
        told = [str(run), "--judge", f"{server.address}/v1/", "--judge-model", "judge-7b", "--key-env", "MY_KEY"]
        done = CliRunner().invoke(app, told)
    assert done.exit_code == 0, done.output
    ((path, headers, body),) = server.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret-1"
    assert (body["model"], body["temperature"]) == ("judge-7b", 0.002)
    user = body["messages"][1]["content"]
    assert "Question: What falls?\nCorrect Answer: A {plate}.\nPredicted Answer: a cup {x}\n\n" in user
    assert user.endswith("like this: {'pred': 'yes', 'score': 4.8}.")
    assert not [path for path in run.rglob("*") if path.is_file() and b"secret-1" in path.read_bytes()]


def test_a_judge_that_stops_answering_is_gone_on_with(tmp_path: Path) -> None:
    """What was said before is kept; no answer is judged twice; the figures are those of one that never stopped."""
    left = [3]

    def answer(body: Any) -> tuple[int, dict[str, str], Any]:
        left[0] -= 1
        return by_question()(body) if left[0] >= 0 else (503, {}, {"error": {"message": "no room"}})

    run, whole = make_run(tmp_path / "cut"), make_run(tmp_path / "whole")
    with answering(answer) as server:
        judge = Judge(server.address, "m", retries=0)
        with pytest.raises(PDropError, match=r"1 attempt \(status 503, no room\).*goes on from here"):
            judged(run, judge, parallel=1)
        assert len(verdict_lines(run)) == 3
        left[0], before = 99, len(server.asked)
        said = judged(run, Judge(server.address, "m"))
        assert len(server.asked) - before == 2
        assert judged(run, Judge(server.address, "m")) == said  # and nothing is asked any more
        assert len(server.asked) - before == 2
    with answering(by_question()) as server:
        assert judged(whole, Judge(server.address, "m")) == said


def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    busy = [2]

    def answer(body: Any) -> tuple[int, dict[str, str], Any]:
        busy[0] -= 1
        return by_question()(body) if busy[0] < 0 else (429, {"Retry-After": "0"}, {"error": "slow down"})

    with answering(answer) as server:
        said = judged(make_run(tmp_path), Judge(server.address, "m"))
    assert said["items"]["judged"] == 5
    assert len(server.asked) == 7


def test_nonsense_is_counted_and_asked_again(tmp_path: Path) -> None:
    nonsense = [*ROWS[:4], (*ROWS[4][:5], "I like this answer a lot.")]
    run = make_run(tmp_path)
    with answering(by_question(nonsense)) as server:
        done = CliRunner().invoke(app, [str(run), "--judge", server.address, "--judge-model", "m"])
        assert done.exit_code == 0, done.output
        assert len(server.asked) == 4 + 3  # three readings before it is given up
    assert "4 of 5 items judged; 1 without a verdict that could be read" in " ".join(done.output.split())
    said = json.loads((run / "judged.json").read_text())
    assert (said["items"]["judged"], said["items"]["unreadable"]) == (4, 1)
    assert said["accuracy"]["mean"] == pytest.approx(2 / 4)
    assert read_judged(run).records[4].score is None  # neither right nor wrong
    with answering(by_question()) as server:
        assert judged(run, Judge(server.address, "m"))["items"]["unreadable"] == 0
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("{'pred': 'yes', 'score': 4.8}", ("yes", 4)),
        ("Sure: {'pred': 'no', 'score': 2} as asked", ("no", 2)),
        ('{"pred": "no", "score": 0}', ("no", 0)),
        ("{'pred': 'yes'}", None),
        ("{'pred': 'yes', 'score': 7}", None),
        ("{'pred': 'yes', 'score': -1}", None),
        ("{'pred': 'yes', 'score': 'high'}", None),
        ("{'pred': True, 'score': 4}", None),
        ("{'pred', 'score'}", None),
        ("yes, 4", None),
        ("{'pred': __import__('os'), 'score': 4}", None),
        ("", None),
    ],
)
def test_replies(text: str, read: tuple[str, int] | None) -> None:
    assert read_reply(text) == read


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, {}, {"error": {"message": "wrong key"}}), "refused the request: status 401, wrong key. Check"),
        ((200, {}, b"<html>"), "not JSON; expected an OpenAI-compatible server"),
        ((200, {}, {"choices": []}), "without choices"),
        ((307, {"Location": "http://127.0.0.1:9/elsewhere"}, {}), "status 307"),
    ],
)
def test_wrong_servers(tmp_path: Path, answer: tuple[int, dict[str, str], Any], said: str) -> None:
    with answering(lambda _: answer) as server:
        done = CliRunner().invoke(app, [str(make_run(tmp_path)), "--judge", server.address, "--judge-model", "m"])
    assert done.exit_code == 1
    assert said in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_wrong_settings(tmp_path: Path) -> None:
    with pytest.raises(PDropError, match=r"gave no answer in 1 attempt \(.*refused"):
        judged(make_run(tmp_path / "a"), Judge("http://127.0.0.1:9", "m", retries=0))
    done = CliRunner().invoke(app, [str(tmp_path / "a"), "--judge", "localhost:8000", "--judge-model", "m"])
    assert "expected an address such as http://localhost:8000/v1" in " ".join(done.output.split())
    rvs(tmp_path / "b")  # no run at all
    with pytest.raises(ConfigError, match=r"holds no run\.json"):
        judged(tmp_path / "b", Judge("http://127.0.0.1:9", "m"))
    folder = make_run(tmp_path / "c", [])
    with pytest.raises(ConfigError, match="no open answer to judge"):
        judged(folder, Judge("http://127.0.0.1:9", "m"))


def test_runs_of_one_judge_are_compared(tmp_path: Path) -> None:
    """Without a judge there is nothing to compare; with two of them it would be the judges that differ."""
    worse = [(*row[:5], "{'pred': 'no', 'score': 1}") for row in ROWS]
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second")
    told = [str(first), str(second), "--json"]
    assert "no item was finished with a score" in CliRunner().invoke(comparing, told).output
    with answering(by_question()) as one, answering(by_question(worse)) as other:
        judged(first, Judge(one.address, "m"))
        judged(second, Judge(other.address, "other"))
        assert "first by m, second by other" in " ".join(CliRunner().invoke(comparing, told).output.split())
        judged(second, Judge(other.address, "m"))
    figures = json.loads(CliRunner().invoke(comparing, told).output.splitlines()[-1])
    assert [row["accuracy"] for row in figures["runs"]] == pytest.approx([0.6, 0])
    assert all(record.score is None for record in read_run(first).records)  # the run itself stays as it was
