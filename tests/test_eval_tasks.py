"""Every task through the runner: real streams watch small videos in the official layout, words are given by the tests.

So each question comes at its moment with the frames that it may see, and the figures are those worked out by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import benchmarks
import pytest
from scripted import always, means, one_model, ran, watched

from eval.runner.talk import UNSAID


@pytest.fixture(autouse=True, scope="module")
def _one_model() -> Iterator[None]:
    """Loaded once for all runs of this file."""
    with one_model():
        yield


def test_mlvu(tmp_path: Path) -> None:
    data = benchmarks.mlvu(tmp_path / "data")
    kinds = ["3_ego/ego", "4_count/count", "5_order/order", "6_anomaly_reco/anomaly_reco"]
    names = ["1_plotQA/1", "2_needle/1", *kinds, "7_topic_reasoning/topic_reasoning"]
    benchmarks.write_videos(data / "video", *(f"{name}.mp4" for name in names))
    summary, records = ran("mlvu", data, tmp_path / "out", always("B) it is"), frames=4)
    assert {name: frames for name, (frames, _) in watched(records).items()} == dict.fromkeys(records, 4)
    assert (records["1_plotQA_0"].shared, records["4_count_0"].shared, records["5_order_0"].shared) == (3, 2, 1)
    # plotQA: Blue and "There is" are B; of two candidates "Three" (B, C) officially the last counts, strictly either;
    # where all four are empty, officially the last; all others are not B
    assert means(summary["figures"]) == pytest.approx({"M-Avg": 2 / 3 / 7, "M-Avg, strict": 1.5 / 7})
    assert summary["official"]["overall"] == summary["figures"]["M-Avg"]
    assert summary["accuracy"]["official_all"]["mean"] == pytest.approx(2 / 13)
    assert summary["accuracy"]["strict_all"]["mean"] == pytest.approx(4 / 13)


def test_mlvu_by_likelihood_where_candidates_have_no_text(tmp_path: Path) -> None:
    data = benchmarks.mlvu(tmp_path / "data")
    kinds = ["3_ego/ego", "4_count/count", "5_order/order", "6_anomaly_reco/anomaly_reco"]
    names = ["1_plotQA/1", "2_needle/1", *kinds, "7_topic_reasoning/topic_reasoning"]
    benchmarks.write_videos(data / "video", *(f"{name}.mp4" for name in names))
    summary, records = ran("mlvu", data, tmp_path / "out", always(""), frames=2, answer="likelihood")
    assert summary["items"]["errors"] == 0 and summary["official"] is None
    (archery,), (jars,) = records["1_plotQA_2"].turns, records["3_ego_1"].turns
    assert archery.likelihoods is not None and jars.likelihoods is not None
    assert [n for n, of in enumerate(archery.likelihoods) if of == UNSAID] == [0, 3]
    assert jars.likelihoods[3] == UNSAID < min(jars.likelihoods[:3]) and records["3_ego_1"].response in "ABC"
    nothing = records["7_topic_reasoning_1"]
    assert (nothing.response, nothing.strict, nothing.score) == ("", None, 0.0)  # nothing to compare: unanswered


def test_mlvu_test(tmp_path: Path) -> None:
    data = benchmarks.mlvu_test(tmp_path / "data")
    benchmarks.write_videos(data / "video", *(f"test_AR_{n}.mp4" for n in range(3)))
    said = lambda question, second: "F) None" if second == 11.75 else f"at {second:g}"  # noqa: E731
    summary, records = ran("mlvu-test", data, tmp_path / "out", said, frames=4)
    # 48 frames of 12 s: the last of four is the 48th
    assert watched(records) == dict.fromkeys(["AR_0", "AR_1", "SQA_0"], (4, 11.75))
    assert summary["accuracy"] == dict.fromkeys(summary["accuracy"])  # the answers are withheld
    assert (summary["figures"], summary["items"]["unanswered"]) == ({}, 0)
    assert json.loads((tmp_path / "out" / "mlvu_test.json").read_text()) == [
        {"question_id": name, "question_type": kind, "option": "F"}
        for name, kind in (("AR_0", "anomaly_reco"), ("AR_1", "anomaly_reco"), ("SQA_0", "sportsQA"))
    ]


def test_longvideobench(tmp_path: Path) -> None:
    data = benchmarks.longvideobench(tmp_path / "data")
    benchmarks.write_videos(data / "videos", "va.mp4", "vb.mp4")
    summary, records = ran("longvideobench-subtitles", data, tmp_path / "out", always("B"), frames=4)
    # 48 frames of 12 s: every twelfth, 0, 3, 6 and 9 s
    assert watched(records) == {"va_0": (4, 9.0), "va_1": (4, 9.0), "vb_0": (4, 9.0)}
    assert summary["accuracy"]["official_all"]["mean"] == pytest.approx(1 / 3)  # B, E, C
    assert summary["categories"]["duration_group"]["15"]["mean"] == 0.5
    ran("longvideobench-test", data, tmp_path / "test", always("The answer is D"), frames=4)
    said = json.loads((tmp_path / "test" / "longvideobench_test.json").read_text())
    assert said == {"va_0": "D", "va_1": "D", "vb_0": "The answer is D"}  # of three options D is none


def test_longvideobench_tells_a_last_subtitle_that_ends_behind_the_video(tmp_path: Path) -> None:
    data = benchmarks.longvideobench(tmp_path / "data")
    benchmarks.write_videos(data / "videos", "va.mp4", "vb.mp4")
    path = data / "subtitles" / "va_en.json"
    # from 8 to 20 s: its middle is behind the video's end at 12, and it covers the last frame, at 9 s
    path.write_text(path.read_text().replace("[9.0, null]", "[8.0, 20.0]"))
    _, records = ran("longvideobench-subtitles", data, tmp_path / "long", always("B"), frames=4)
    _, bare = ran("longvideobench", data, tmp_path / "bare", always("B"), frames=4)
    path.write_text(path.read_text().replace("[8.0, 20.0]", "[10.0, 20.0]"))  # covers none
    _, fewer = ran("longvideobench-subtitles", data, tmp_path / "fewer", always("B"), frames=4)
    told = {name: records[name].kept[0] - fewer[name].kept[0] for name in ("va_0", "va_1", "vb_0")}
    assert told == {"va_0": 0, "va_1": 0, "vb_0": 0}  # the same frames
    assert records["va_0"].flops > fewer["va_0"].flops > bare["va_0"].flops  # and one subtitle more


def test_egoschema(tmp_path: Path) -> None:
    data = benchmarks.egoschema(tmp_path / "data")
    uids = [row["q_uid"] for row in json.loads((data / "questions.json").read_text())]
    benchmarks.write_videos(data / "videos", *(f"{uid}.mp4" for uid in uids), seconds=3)
    summary, records = ran("egoschema", data, tmp_path / "out", always("(D)"))
    assert watched(records) == {uids[0]: (3, 2.0), uids[1]: (3, 2.0)}
    assert summary["accuracy"]["strict_all"]["mean"] == 0.5  # 3 and 0
    ran("egoschema-full", data, tmp_path / "full", always("E"))
    assert json.loads((tmp_path / "full" / "egoschema.json").read_text()) == dict.fromkeys(uids, 4)


def test_worldsense(tmp_path: Path) -> None:
    data = benchmarks.worldsense(tmp_path / "data")
    benchmarks.write_videos(data / "videos", "dvOkwKAs.mp4", "aaaaaaaa.mp4")
    heard = lambda question, second: "B" if "la la" in question else "A"  # noqa: E731
    summary, records = ran("worldsense-subtitles", data, tmp_path / "out", heard, frames=6)
    assert {name: r.strict for name, r in records.items()} == {
        "dvOkwKAs_task0": "B", "dvOkwKAs_task1": "B", "aaaaaaaa_task0": "A",
    }  # fmt: skip
    assert summary["accuracy"]["strict_all"]["mean"] == pytest.approx(2 / 3)  # B, C, A
    by_sound = means(summary["categories"]["audio_class"])
    assert by_sound == {
        "Event": 1.0,
        "Music": 0.5,
        "Speech": 0.5,
    }  # a video of two classes counts in both


def test_streamingbench_choices(tmp_path: Path) -> None:
    data = benchmarks.streamingbench(tmp_path / "data")
    names = ["sample_1_real", "sample_2_real", "sample_17_sqa", "sample_32_sqa"]
    benchmarks.write_videos(data / "videos", *(f"{name}.mp4" for name in names), seconds=80, rate=2)
    summary, records = ran("streamingbench-real", data, tmp_path / "real", always("C. BOS"))
    # until 4 s; from 10 to 70 s; until 8 s; both ends included
    assert watched(records) == {"real_0_0": (5, 4.0), "real_0_1": (61, 70.0), "real_1_0": (9, 8.0)}
    assert summary["accuracy"]["official_all"]["mean"] == pytest.approx(1 / 3)  # C, B, A
    _, records = ran("streamingbench-real-full", data, tmp_path / "full", always("C"))
    assert watched(records) == {"real_0_0": (5, 4.0), "real_0_1": (71, 70.0), "real_1_0": (9, 8.0)}
    assert records["real_0_0"].shared == 2  # one pass, in which each question has its moment
    told = lambda question, second: "C" if "Answer: A; " in question else "A"  # noqa: E731
    summary, records = ran("streamingbench-sqa", data, tmp_path / "sqa", told)
    assert [records[f"sqa_{n}"].strict for n in ("0_0", "0_1", "0_2", "1_0")] == ["A", "C", "C", "A"]
    assert summary["accuracy"]["strict_all"]["mean"] == 0.5  # A, C, D, C


def test_streamingbench_in_full_sees_everything_before_the_question(tmp_path: Path) -> None:
    data = benchmarks.streamingbench(tmp_path / "data")
    names = ["sample_1_omni", "sample_2_omni", "sample_17_sqa", "sample_32_sqa"]
    benchmarks.write_videos(data / "videos", *(f"{name}.mp4" for name in names), seconds=80, rate=2)
    path = data / "questions_omni.json"
    path.write_text(path.read_text().replace("00:00:06", "00:01:10", 1))
    sqa = data / "questions_sqa.json"
    sqa.write_text(sqa.read_text().replace("00:00:09", "00:01:15"))
    summary, records = ran("streamingbench-omni", data, tmp_path / "omni", always("D"))
    assert summary["accuracy"]["strict_all"]["mean"] == 0.5  # D, and B
    assert watched(records) == {"omni_0_0": (61, 70.0), "omni_1_0": (7, 6.0)}
    summary, records = ran("streamingbench-omni-full", data, tmp_path / "omni-full", always("B"))
    assert watched(records) == {"omni_0_0": (71, 70.0), "omni_1_0": (7, 6.0)}
    assert summary["accuracy"]["official_all"]["mean"] == 0.5

    told = lambda question, second: "C" if "Answer: A; " in question else "A"  # noqa: E731
    _, records = ran("streamingbench-sqa", data, tmp_path / "sqa", told)
    assert (watched(records)["sqa_0_2"], records["sqa_0_2"].shared) == ((61, 75.0), 1)
    summary, records = ran("streamingbench-sqa-full", data, tmp_path / "sqa-full", told)
    assert watched(records) == {"sqa_0_0": (4, 3.0), "sqa_0_1": (8, 7.0), "sqa_0_2": (76, 75.0), "sqa_1_0": (6, 5.0)}
    assert [records[f"sqa_0_{n}"].shared for n in range(3)] == [3, 3, 3]  # one pass
    assert [r.strict for _, r in sorted(records.items())] == ["A", "C", "C", "A"]
    assert summary["accuracy"]["strict_all"]["mean"] == 0.5  # A, C, D, C


def test_streamingbench_proactive(tmp_path: Path) -> None:
    data = benchmarks.streamingbench(tmp_path / "data")
    benchmarks.write_videos(data / "videos", "sample_17_proactive.mp4")

    def words(question: str, second: float) -> str:
        if "right time" not in question:
            return "3"
        return "Yes." if second >= 6 else "no"

    summary, records = ran("streamingbench-proactive", data, tmp_path / "out", words)
    first, second = records["proactive_0_0"], records["proactive_1_0"]
    # asked at 2 s and polled at 3, 4, 5 and 6; right is 5, and 4: within two seconds both times; "3" is the output of
    # the first
    assert [(turn.at, turn.text) for turn in first.turns] == [
        (3, "no"), (4, "no"), (5, "no"), (6, "Yes."), (6, "3"),
    ]  # fmt: skip
    assert (first.score, second.score, means(summary["details"])) == (1.0, 0.0, {"time accuracy": 1.0})


def test_ovobench_asks_each_question_at_its_moment_in_one_pass(tmp_path: Path) -> None:
    data = benchmarks.ovobench(tmp_path / "data")
    benchmarks.write_videos(data / "src_videos", "Ego4D/clips/one.mp4", "MovieNet/tt01.mp4")

    def words(question: str, second: float) -> str:
        if "clap" in question:
            return "2"
        return ("Yes" if second >= 6 else "No") if "Yes" in question else "A"

    summary, records = ran("ovobench", data, tmp_path / "out", words)
    assert {name: at for name, (_, at) in watched(records).items()} == {
        "0": 9, "1": 5, "2": 6, "3": 3, "4": 4, "5": 5, "6": 5, "7": 8, "8": 10, "9_0": 3, "9_1": 7, "9_2": 11,
        "10_0": 2, "10_1": 6, "11_0": 4, "11_1": 9,
    }  # fmt: skip
    assert all(frames == at + 1 for frames, at in watched(records).values())
    assert {r.shared for r in records.values() if r.video == "MovieNet/tt01"} == {10}
    # EPM, ASI, HLD are not A; OCR, ACR, ATR are, STU, FPD, OJR are not; REC one of three, SSR and CRR all
    forward = (1 / 3 + 1 + 1) / 3
    figures = means(summary["figures"])
    assert [figures[name] for name in ("backward", "realtime", "forward", "total", "backward and realtime")] == (
        pytest.approx([0, 0.5, forward, (0.5 + forward) / 3, 0.25])
    )
    assert len(json.loads((tmp_path / "out" / "ovo_bench_results.json").read_text())["forward"]) == 3


def test_rvs(tmp_path: Path) -> None:
    data = benchmarks.rvs(tmp_path / "data")
    benchmarks.write_videos(data / "ego" / "videos", "e1.mp4")
    benchmarks.write_videos(data / "movie" / "videos", "tt01_0000_0010.mp4")
    summary, records = ran("rvs-ego", data, tmp_path / "out", lambda question, second: f"at {second:g}")
    assert {name: (r.frames, r.response) for name, r in records.items()} == {
        "e1_0": (5, "at 4"), "e1_1": (11, "at 10"),
    }  # fmt: skip
    assert summary["accuracy"] == dict.fromkeys(summary["accuracy"])  # nothing is scored
    written = (tmp_path / "out" / "pred.json").read_text().splitlines()
    assert [json.loads(line)["pred"] for line in written] == ["at 4", "at 10"]
    _, records = ran("rvs-movie", data, tmp_path / "movie", always("A man."))
    assert watched(records) == {"tt01_0000_0010_0": (7, 6.0)}
