"""Runs side by side: worked examples by hand, and what is said about items that are missing."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from eval.compare import compare, verdict
from eval.stats.pairs import category_table, match, pair_table, power_table, run_table
from eval.stats.record import Record, read_run
from eval.stats.summary import whole_tflops
from pdrop_video import ConfigError
from pdrop_video.common.journal import Journal

app = typer.Typer()
app.command()(compare)


def record(item: str, score: float | None, **changes) -> Record:
    """One finished item; the video is the item's name up to the dash."""
    video = item.split("-")[0]
    made = Record(
        key=item,
        item=item,
        video=video,
        task="toy",
        config="c",
        category={
            "length": "short" if video < "v2" else "long",
            "skill": ["count", "colour"] if item.endswith("1") else "count",
        },
        question="Which?",
        options=["A. red", "B. blue"],
        answer="A",
        response="A" if score else "B",
        strict="A" if score else "B",
        official_score=score,
        score=score,
        frames=8,
        visual_tokens=100,
        kept=[100, 50],
        cache_bytes=2**20,
        seconds={"decode": 1.0, "prefill": 2.0},
        flops=2e12,
    )
    return replace(made, **changes)


def written(folder: Path, records: list[Record]) -> Path:
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"task": "toy", "config_digest": "c"}))
    with Journal(folder / "records.jsonl") as journal:
        for one in records:
            journal.append(one.to_json())
    return folder


FULL = [record("v1-1", 1.0), record("v1-2", 1.0), record("v2-1", 1.0), record("v2-2", 0.0), record("v3-1", 1.0)]
PRUNED = [
    record("v1-1", 1.0, flops=1e12, cache_bytes=2**19),
    record("v1-2", 0.0, flops=1e12, cache_bytes=2**19, strict=None),
    record("v2-1", 0.0, flops=1e12, cache_bytes=3 * 2**18),
    record("v2-2", 1.0, flops=1e12, cache_bytes=2**19),
    record("v3-1", 1.0, flops=4e12, cache_bytes=2**19),
]


@pytest.fixture
def matched(tmp_path: Path):
    return match([read_run(written(tmp_path / "full", FULL)), read_run(written(tmp_path / "pruned", PRUNED))])


def test_costs_by_hand(matched) -> None:
    full, pruned = run_table(matched).to_dict("records")
    assert full["accuracy"] == pytest.approx(0.8)
    # residual sums by video: +.4, -.6, +.2 -> 3/2 * .56 / 25
    assert full["standard_error"] == pytest.approx((1.5 * 0.56 / 25) ** 0.5)
    assert pruned["accuracy"] == pytest.approx(0.6)
    assert (pruned["unanswered"], pruned["accuracy_of_answered"]) == (1, pytest.approx(0.75))
    assert pruned["tflops"] == pytest.approx((1 + 1 + 1 + 1 + 4) / 5)
    assert "whole_tflops" not in full  # the tower was not counted
    assert pruned["cache_mib"] == 0.75
    assert (full["tokens_kept"], full["decode_seconds"], full["prefill_seconds"]) == ("100 50", 1.0, 2.0)


def test_the_whole_way_is_compared_where_every_item_has_it(tmp_path: Path) -> None:
    counted = [replace(one, tower_flops=3e12, front_flops=1e12) for one in PRUNED]
    runs = [read_run(written(tmp_path / name, records)) for name, records in (("full", FULL), ("pruned", counted))]
    _, pruned = run_table(match(runs)).to_dict("records")
    assert pruned["whole_tflops"] == pytest.approx((1 + 1 + 1 + 1 + 4) / 5 + 4)
    assert whole_tflops([*counted[:-1], PRUNED[-1]]) is None and whole_tflops([]) is None
    earlier = {name: value for name, value in PRUNED[0].to_json().items() if name not in ("tower_flops", "front_flops")}
    assert Record.of_json(earlier) == PRUNED[0]  # of a run from before it was counted


def test_pair_by_hand(matched) -> None:
    (row,) = pair_table(matched, margin=0.5).to_dict("records")
    assert (row["run"], row["against"], row["items"], row["videos"]) == ("pruned", "full", 5, 3)
    assert row["difference"] == pytest.approx(-0.2)
    # differences 0 -1 | -1 +1 | 0 with mean -.2: sums of residuals -.6, +.4, +.2
    assert row["standard_error"] == pytest.approx((1.5 * 0.56 / 25) ** 0.5)
    assert (row["only_reference"], row["only_run"], row["p_mcnemar"]) == (2, 1, 1.0)
    assert row["discordance"] == pytest.approx(0.6)
    reach = 4.302652729911275 * row["standard_error"]  # Student's with two degrees of freedom
    assert (row["low"], row["high"]) == pytest.approx((-0.2 - reach, -0.2 + reach))
    assert row["bound"] < -0.5 and not row["non_inferior"]
    assert "margin" not in pair_table(matched, margin=None)


def test_categories_by_hand(matched) -> None:
    table = category_table(matched).set_index(["category", "value", "run"])
    assert table.loc[("length", "long", "full"), "accuracy"] == pytest.approx(2 / 3)
    assert table.loc[("length", "long", "pruned"), "difference"] == pytest.approx(0)
    assert table.loc[("length", "short", "pruned"), "difference"] == pytest.approx(-0.5)
    assert table.loc[("skill", "colour", "full"), "items"] == 3  # a list counts in each of its values
    assert table.loc[("skill", "count", "pruned"), "items"] == 5


def test_power_of_the_pair(matched) -> None:
    pairs = pd.DataFrame([{"run": "pruned", "items": 900, "discordance": 0.1, "design_effect": 2.0}])
    needed = power_table(pairs, [0.03, 0.2]).items_needed.tolist()
    assert needed[0] == 1740  # twice the 869.7 of independent items
    assert needed[1] == 74  # at a discordance of .2: (1.96 sqrt(.2) + .8416 sqrt(.16))^2 / .04 = 36.8, twice


def test_missing_items_are_said(tmp_path: Path) -> None:
    short = [*FULL[:3], record("v2-2", None, error="VideoError: no frame"), record("v3-2", 1.0)]
    found = match([read_run(written(tmp_path / "full", FULL)), read_run(written(tmp_path / "short", short))])
    assert found.items == ["v1-1", "v1-2", "v2-1"]
    assert found.left_out == {
        "full": {"v3-2": "not finished"},
        "short": {"v2-2": "error: VideoError: no frame", "v3-1": "not finished"},
    }
    said = CliRunner().invoke(app, [str(tmp_path / "full"), str(tmp_path / "short")]).stdout
    assert "full lacks 1 item, which no figure here counts: v3-2 (not finished)." in said
    assert "short lacks 2 items, which no figure here counts: v2-2 (error: VideoError: no frame), v3-1" in said


def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    full = read_run(written(tmp_path / "full", FULL))
    other_truth = read_run(written(tmp_path / "truth", [replace(FULL[0], answer="B"), *FULL[1:]]))
    other_task = read_run(written(tmp_path / "task", [replace(r, task="other") for r in FULL]))
    nothing = read_run(written(tmp_path / "nothing", [record("v9-1", 1.0)]))
    with pytest.raises(ConfigError, match="v1-1 has the answer 'A' in full and 'B' in truth"):
        match([full, other_truth])
    with pytest.raises(ConfigError, match="different tasks"):
        match([full, other_task])
    with pytest.raises(ConfigError, match="no item was finished"):
        match([full, nothing])
    with pytest.raises(ConfigError, match="named twice"):
        match([full, full])
    failed = CliRunner().invoke(app, [str(tmp_path / "full"), str(tmp_path / "missing")])
    assert failed.exit_code == 2 and "holds no run.json" in failed.output


ROW = {
    "run": "pruned",
    "against": "full",
    "difference": -0.02,
    "low": -0.05,
    "high": 0.01,
    "only_reference": 40,
    "only_run": 30,
    "p_mcnemar": 0.28,
    "p_holm": 0.28,
}


def test_words_claim_no_more_than_was_shown() -> None:
    assert verdict(ROW, 0.95) == (
        "pruned against full: -2.0 points (95% interval -5.0 to +1.0 by videos; right alone 40 : 30, "
        "McNemar p = 0.280). No difference was shown, which does not mean that there is none."
    )
    assert verdict(ROW | {"high": -0.01, "p_mcnemar": 2e-4, "p_holm": 4e-4}, 0.95).endswith(
        "McNemar p = 0.0002, 0.0004 after Holm). pruned is worse."
    )
    assert "no difference is claimed" in verdict(ROW | {"p_holm": 0.01}, 0.95)
    assert "no difference is claimed" in verdict(ROW | {"low": 0.01, "high": 0.02}, 0.95)
    claim = ROW | {"margin": 0.03, "bound": -0.041, "non_inferior": False}
    assert verdict(claim, 0.95).endswith("Not worse by 3 points or more: not shown (95% bound -4.1).")
    # one video only: there is no interval, and nothing is claimed from it
    assert "no difference is claimed" in verdict(
        ROW | {"low": float("nan"), "high": float("nan"), "p_holm": 0.01}, 0.95
    )


def test_two_records_of_an_item_are_refused(tmp_path: Path) -> None:
    twice = [*PRUNED, record("v1-1", 0.0, key="another", question="Which one?")]
    runs = [read_run(written(tmp_path / name, of)) for name, of in {"full": FULL, "pruned": twice}.items()]
    with pytest.raises(ConfigError, match="pruned has two records of item v1-1, of different questions"):
        match(runs)


def test_runs_without_categories_are_compared(tmp_path: Path) -> None:
    folders = [
        str(written(tmp_path / name, [replace(one, category={}) for one in of]))
        for name, of in {"full": FULL, "pruned": PRUNED}.items()
    ]
    ran = CliRunner().invoke(app, [*folders, "--out", str(tmp_path / "tables")])
    assert ran.exit_code == 0, ran.output


def test_many_comparisons_are_adjusted(tmp_path: Path) -> None:
    items = [f"v{i}-1" for i in range(12)]
    runs = [
        read_run(written(tmp_path / name, [record(item, float(i >= lost)) for i, item in enumerate(items)]))
        for name, lost in (("full", 0), ("a", 6), ("b", 8))
    ]
    table = pair_table(match(runs), None).set_index("run")
    assert table.p_mcnemar.to_dict() == {"a": 2 / 2**6, "b": 2 / 2**8}
    assert table.p_holm.to_dict() == {"a": 2 / 2**6, "b": 4 / 2**8}


def test_files_and_json_hold_the_same_figures(tmp_path: Path) -> None:
    folders = [str(written(tmp_path / "full", FULL)), str(written(tmp_path / "pruned", PRUNED))]
    out = tmp_path / "tables"
    ran = CliRunner().invoke(app, [*folders, "--margin", "0.1", "--power", "--out", str(out), "--json"])
    assert ran.exit_code == 0, ran.output
    figures = json.loads(ran.stdout.splitlines()[-1])
    assert figures == json.loads((out / "compare.json").read_text())
    assert figures["pairs"][0]["difference"] == pytest.approx(-0.2)
    for name in ("runs", "pairs", "categories", "power"):
        pd.testing.assert_frame_equal(
            pd.read_csv(out / f"{name}.csv"), pd.DataFrame(figures[name]), check_dtype=False, rtol=1e-9
        )
    text = (out / "compare.md").read_text()
    assert "| accuracy             | 80.0 % | 60.0 %   |" in text
    assert "| non inferior   | no" in text
    # sums of residuals -1/3 and +1/3 by videos: 2 (1/9 + 1/9) / 9; differences -1 and +1 in one video, 0 in the other
    assert "| long     | 3       | 66.7 ± 22.2 | 66.7 (+0.0 ± 0.0)" in text
    assert "| short    | 2       | 100.0       | 50.0 (-50.0)" in text  # one video: no error is known
    assert "pruned against full: -20.0 points" in text
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert "equal" not in text.lower()


def test_an_out_that_is_a_file_gets_one_sentence(tmp_path: Path) -> None:
    folders = [str(written(tmp_path / name, records)) for name, records in {"full": FULL, "pruned": PRUNED}.items()]
    (tmp_path / "file").touch()
    failed = CliRunner().invoke(app, [*folders, "--out", str(tmp_path / "file")])
    assert failed.exit_code == 2 and "can't be written (File exists); choose another --out" in failed.stderr


def test_a_damaged_header_is_said_at_once(tmp_path: Path) -> None:
    folder = written(tmp_path / "full", FULL)
    for text in ("{", "{}", "[]"):
        (folder / "run.json").write_text(text)
        with pytest.raises(ConfigError, match=r"run\.json is damaged; expected the header that eval\.run wrote"):
            read_run(folder)
