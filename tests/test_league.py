"""The league's figures are those of its tables, its page says them, and its rows are runs of eval.run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import pdrop_video as pv
from eval.league import command
from eval.league.aims import aims_of, settled
from eval.league.command import app, written
from eval.league.gates import lets_on, measured
from eval.league.running import Field, collected, run, wanted, with_parts
from eval.league.sharing import Bounded, Shared
from eval.league.standings import breaks, read, sentences, standings, verdict
from eval.runner.config import configured
from eval.runner.execute import execute
from eval.stats.record import read_run
from eval.synthetic.make import make
from eval.tables.entries import Entry
from pdrop_video.parts import loading

ROOT = Path(__file__).parent.parent
PYRAMID = {"ratios": [0.5, 0.25, 0.125], "scorer": "contrast"}


def line(system: str, kind: str, marks: str, at: float | str = 0.15, **more: object) -> dict[str, object]:
    """A row of a made-up table."""
    usual = {"slot": "stage", "trained": False, "paper": "ours", "says": f"what {system} says", "settings": "{}"}
    return {
        "system": system,
        "at": at,
        "kind": kind,
        "items": 40,
        "spent": at,
        "own": 0.01,
        "kib": 1.0,
        "marks": marks,
    } | (usual | more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty items about ten videos; kinds by turns, of which one breaks."""
    items = [
        {"item": f"q{n}", "video": f"v{n // 4}", "sub_category": ("now", "order")[n % 2], "domain": ""}
        for n in range(40)
    ]
    default = "".join("1" if n < 20 else "0" for n in range(40))
    better = "".join("1" if n < 38 else "0" for n in range(40))  # wins 18, loses none
    worse = "".join("0" if n % 2 and n < 30 else "1" for n in range(40))  # no `order` of the first 30
    rows = [
        line("all tokens", "whole", "1" * 40, 1.0, slot="nothing"),
        line("pyramid", "default", default),
        line("better", "system", better, slot="reducer", paper="Better, arXiv 2400.00001"),
        line("worse", "system", worse),
        line("learned", "system", default[:39] + "-", trained=True),
        line("random", "control", "0" * 40, slot="reducer", spent=0.18),
        line("better", "system", better, 0.1, slot="reducer"),
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "flops.csv", index=False)
    pd.DataFrame(items).to_csv(tmp_path / "flops_items.csv", index=False)
    return tmp_path


def test_standings_are_counted_plainly(folder: Path) -> None:
    table = read(folder, "flops")
    assert table is not None
    found = standings(table).set_index(["system", "budget"])
    better = found.loc["better", "15%"]
    assert (better.accuracy, better.wins, better.losses, better["items"]) == (0.95, 18, 0, 40)
    assert better.p == pytest.approx(2 / 2**18)
    assert better.p_holm == pytest.approx(3 * 2 / 2**18)  # of three systems; the control is none
    assert better.beats == 1 and found.loc["worse", "15%"].beats == 0
    # by videos: nine are right, one half so; residuals of sums .2 each, and 2 - 3.8; 10/9 * (9 * .04 + 3.24) / 1600
    assert better.error == pytest.approx((10 / 9 * (9 * 0.2**2 + 1.8**2) / 40**2) ** 0.5)
    worse = found.loc["worse", "15%"]
    assert (worse.wins, worse.losses) == (15, 10) and worse.difference == pytest.approx(5 / 40)
    learned = found.loc["learned", "15%"]
    assert (learned["items"], learned.wins, learned.losses, learned.p) == (39, 0, 0, 1.0)
    assert pd.isna(found.loc["better", "10%"].wins)  # no default to compare with
    said = verdict(table, standings(table))
    assert [each["system"] for each in said["15%"]["beaten_by"]] == ["better"] and "10%" not in said
    assert said["15%"]["best"]["system"] == "better" and said["15%"]["systems"] == 3
    (sentence,) = sentences("flops", said)
    assert "`better` (reducer) by +45.0 points, 18 : 0" in sentence


def test_where_a_system_breaks_is_the_kind_that_loses_most(folder: Path) -> None:
    table = read(folder, "flops")
    assert table is not None
    number = {system: n for n, system in enumerate(table.rows.system)}
    assert breaks(table, number["worse"]) == "`order`: 5 of 20 right, all tokens 20, the default 10"
    assert breaks(table, number["pyramid"]) == "`now`: 10 of 20 right, all tokens 20"  # of equals the first by name
    nothing = pd.read_csv(folder / "flops.csv", dtype=str)
    nothing.loc[3, "marks"] = "1" * 40
    nothing.to_csv(folder / "flops.csv", index=False)
    table = read(folder, "flops")
    assert table is not None and breaks(table, 3).startswith("nowhere")


def test_the_page_says_what_the_tables_say(folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "docs" / "league.md"
    done = CliRunner().invoke(app, ["write", "--results", str(folder), "--page", str(to), "--json"])
    assert done.exit_code == 0, done.output
    text = to.read_text(encoding="utf-8")
    assert json.loads(done.output.splitlines()[-1])["flops"]["15%"]["beaten_by"][0]["wins"] == 18
    lines = [each for each in text[: text.index("## The systems")].splitlines() if each.startswith("|")]
    rows = {each.split(" | ")[0].strip("| "): each for each in lines}
    assert "| .950 ± .050 (18 : 0) ▲ | " in rows["`better`"]
    assert "`order`: 5 of 20 right, all tokens 20, the default 10" in text and "arXiv 2400.00001" in text
    assert text.index("### Without training") < text.index("### Trained") < text.index("### Controls")
    assert " †" not in rows["`worse`"] and " † | " in rows["`random`"]  # which spent a fifth more than the default
    trained = text[text.index("### Trained") : text.index("### Controls")]
    assert "`learned`" in trained and "`worse`" not in trained and "the default" in trained
    assert (folder / "league.png").exists() and (folder / "verdict.json").exists()
    assert written(folder, to)["files"][str(to)] == text  # the same again


def test_the_page_has_a_table_for_bytes_and_one_for_looking_again(folder: Path, tmp_path: Path) -> None:
    items = pd.read_csv(folder / "flops_items.csv")
    whole, half = "1" * 40, "10" * 20
    tables = {
        "bytes": [
            line("pyramid", "default", half, 64, slot="evictor", kib=10.0),
            line("pyramid", "default", whole, 128, slot="evictor", kib=20.0),
            line("hermes", "system", half, 128, slot="evictor", kib=21.0),
        ],
        "decode": [
            line("hidden for good", "default", half, "quarter", slot="decode", spent=0.9),
            line("dstp", "system", whole, "quarter", slot="decode", spent=0.95),
        ],
    }
    for name, rows in tables.items():
        pd.DataFrame([line("all tokens", "whole", whole, 0), *rows]).to_csv(folder / f"{name}.csv", index=False)
        items.to_csv(folder / f"{name}_items.csv", index=False)
    made = written(folder, tmp_path / "page.md")
    text = made["files"][str(tmp_path / "page.md")]
    assert "| system | slot | the bytes of 64 tokens a layer | the bytes of 128 tokens a layer | KiB | breaks |" in text
    assert "| `hermes` | evictor | – | .500 ± .000 (0 : 20) ▼ | –, 21 | `order`: 0 of 20 right" in text
    assert "**`pyramid`: the default** | evictor | .500 ± .000 | 1.000 ± .000 | 10, 20 | nowhere" in text
    assert (
        "With a quarter of the memory left to the question the default, `hidden for good`, is beaten: `dstp`"
        in " ".join(made["said"])
    )


def test_the_committed_page_is_what_the_committed_tables_make() -> None:
    results, page = ROOT / "eval" / "results" / "league", ROOT / "docs" / "league.md"
    assert page.exists() == (results / "about.json").exists()
    if not page.exists():  # the league has not been run on this version of the built-in model
        return
    made = written(Path("eval/results/league"), Path("docs/league.md"))["files"]["docs/league.md"]
    assert page.read_text(encoding="utf-8") == made, "run `python -m eval.league write`"


def test_tables_that_do_not_fit_are_refused(folder: Path) -> None:
    assert read(folder, "bytes") is None
    items = pd.read_csv(folder / "flops_items.csv").iloc[:-1]
    items.to_csv(folder / "flops_items.csv", index=False)
    with pytest.raises(pv.ConfigError, match="a mark for each of 39 items"):
        read(folder, "flops")
    with pytest.raises(pv.ConfigError, match="holds no table"):
        written(folder / "nothing", folder / "page.md")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short videos, two questions each."""
    folder = tmp_path_factory.mktemp("league") / "data"
    make(folder, "dev", 4, {"short": 2, "medium": 0, "long": 0, "very long": 0}, 2, 1)
    return folder


ENTRIES = [
    Entry("all tokens", "nothing", 1.0, {"pyramid": {"stages": 1}}, "whole"),
    Entry("pyramid", "stage", 0.5, {"pyramid": PYRAMID, "gate": "surprise"}, "default"),
    Entry(
        "relevance",
        "stage",
        0.5,
        {"pyramid": {**PYRAMID, "scorer": "relevance"}, "gate": "surprise", "question_aware": True},
    ),
    Entry("evs", "reducer", 0.5, {"pyramid": {"stages": 1}, "gate": "surprise", "reducer": "evs:keep=0.5"}),
    Entry("standby", "reducer", 0.5, {"pyramid": {"stages": 1}, "reducer": "standby", "parts": ("standby",)}),
]


def test_rows_are_those_of_eval_run_to_the_digit_and_are_not_done_twice(data: Path, tmp_path: Path) -> None:
    common = {"task": "videomme", "data": data, "fps": 2.0, "chunk": 8, "answer": "likelihood"}
    field = Field("flops", ENTRIES, common, tmp_path / "runs")
    said: list[str] = []
    run(field, 1, said.append)
    assert len(said) == 5 and "standby 50% (5 of 5)" in said[-1]  # which finds the tower at work
    for entry in ENTRIES[1:]:  # behind what was decoded and looked at for others
        plain = configured(None, {**common, **entry.settings, "out": tmp_path / entry.system})
        execute(plain)
        ours, theirs = (read_run(out).records for out in (field.config(entry).out, plain.out))
        assert [(r.item, r.turns[0].likelihoods, r.flops, r.tower_flops, r.kept) for r in ours] == [
            (r.item, r.turns[0].likelihoods, r.flops, r.tower_flops, r.kept) for r in theirs
        ]
    rows, items = collected(field)
    assert list(rows.system) == ["all tokens", "pyramid", "relevance", "evs", "standby"] and len(items) == 4
    whole, asked = rows.iloc[0], rows.iloc[2]
    assert whole.spent == 1 and whole.own == 0 and 0.0 < rows.iloc[1].spent < 1
    assert asked.own > 0.005 and rows.iloc[1].own < asked.own  # the question's rows behind every chunk
    records = {r.item: r for r in read_run(field.config(ENTRIES[3]).out).records}
    assert rows.iloc[3].marks == "".join(str(int(records[item].score)) for item in items.item)
    before = done_at(tmp_path / "runs")
    run(field, 1, said.append)
    assert len(before) == 15 and done_at(tmp_path / "runs") == before


def done_at(runs: Path) -> dict[Path, int]:
    """When each row's records, its header and what it computes itself were written."""
    names = ("records-*.jsonl", "run.json", "own.json")
    return {path: path.stat().st_mtime_ns for name in names for path in runs.rglob(name)}


def test_the_command_runs_a_part_and_refuses_another_set(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "SHIPPED", tmp_path / "nothing")
    (tmp_path / "gates.csv").write_text("gate,tokens,tower,videos\nsurprise,0.2,0.2,1\n")
    call = ["run", "--data", str(data), "--runs", str(tmp_path / "runs"), "--gates", str(tmp_path / "gates.csv")]
    call += ["--share", "0.15", "--only", "evs", "--only", "trained", "--limit", "3"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    assert "reducer learnpruner, trained 15% is left out:" in " ".join(done.output.split())
    table = read(tmp_path / "runs" / "results", "flops")
    assert table is not None and {"all tokens", "pyramid", "evs"} <= set(table.rows.system)
    assert len(table.items) == 3 and (table.rows["items"] == 3).all()
    other = tmp_path / "other"
    make(other, "dev", 5, {"short": 1, "medium": 0, "long": 0, "very long": 0}, 2, 1)
    again = CliRunner().invoke(app, [*call[:2], str(other), *call[3:]])
    assert again.exit_code == 1 and "another set for flops" in " ".join(again.output.split())
    wrong = CliRunner().invoke(app, [*call, "--share", "0.2"])
    assert wrong.exit_code == 1 and "choose some of 0.1, 0.15, 0.25, 0.5" in " ".join(wrong.output.split())


def test_what_gates_let_on_is_measured(data: Path, tmp_path: Path) -> None:
    common = {"task": "videomme", "data": data, "fps": 2.0, "chunk": 8, "answer": "likelihood"}
    table = measured(Shared(), common, ("static:threshold=255", "static:threshold=0"))
    table.to_csv(tmp_path / "gates.csv", index=False)
    found = lets_on(tmp_path / "gates.csv", "static")
    # nothing differs by more than 255: the first step of each video alone
    assert found.lines["static:threshold=255"] < 0.1 < 0.9 < found.lines["static:threshold=0"] <= 1
    with pytest.raises(pv.ConfigError, match="no line of the gate surprise"):
        lets_on(tmp_path / "gates.csv", "surprise")
    with pytest.raises(pv.ConfigError, match=r"python -m eval\.league gates"):
        lets_on(tmp_path / "nothing.csv", "surprise")


def test_rows_are_planned_again_until_they_spend_what_the_default_does(tmp_path: Path) -> None:
    """Behind the default's front, which spent .09 of a tenth here; and beside it, where the share itself counts."""
    costs = {"default": lambda aim: 0.09, "asks": lambda aim: 1.5 * aim, "frugal": lambda aim: aim - 0.02}
    costs |= {"fits": lambda aim: 0.091, "coarse": lambda aim: 0.12, "beside": lambda aim: 1.1 * aim}
    costs |= {"jumps": lambda aim: 0.2 if aim > 0.07 else aim - 0.001, "floor": lambda aim: 1.1 * aim + 0.01}
    seen: list[dict[str, float]] = []

    def plan(aims: Mapping[str, float]) -> list[Entry]:
        seen.append(dict(aims))
        rows = [Entry("all", "nothing", 1.0, {}, "whole")]
        for name in costs:
            aim = aims.get(f"stage {name} 10%", 0.1)
            aim = 0.1 if name == "floor" and aim < 0.075 else aim  # can't be had for less: the first plan stands in
            gate = {} if name == "beside" else {"gate": "surprise"}
            kind = "default" if name == "default" else "system"
            rows.append(Entry(name, "stage", 0.1, {**gate, "pyramid": {"ratios": [aim]}}, kind))
        return rows

    def spend(rows: Sequence[Entry]) -> dict[str, float]:
        return {row.name: costs[row.system](row.settings["pyramid"]["ratios"][0]) for row in rows}

    table = settled(plan, spend)
    found = table.assign(row=table.row.str.split().str[1]).set_index("row")
    assert (found.target.drop("beside") == 0.09).all() and found.target["beside"] == 0.1
    assert found.aim["asks"] == pytest.approx(0.06, abs=1e-5) and found.spent["asks"] == pytest.approx(0.09)
    assert 0.97 * 0.09 <= found.spent["frugal"] <= 1.02 * 0.09 and found.aim["fits"] == found.aim["default"] == 0.1
    assert found.aim["beside"] == pytest.approx(0.1 / 1.1, abs=1e-5)
    assert found.spent["coarse"] == 0.12
    assert 0.06 < found.spent["jumps"] < 0.07  # close to where it jumps; what spends too much is not taken
    assert 0.075 <= found.aim["floor"] < 0.08 and found.spent["floor"] > 0.09  # the least that it can be had for
    assert seen[0] == {} and {aims["stage fits 10%"] for aims in seen[1:]} == {0.1}
    table.to_csv(tmp_path / "aims.csv", index=False)
    assert aims_of(tmp_path / "aims.csv")["stage asks 10%"] == found.aim["asks"]
    with pytest.raises(pv.ConfigError, match=r"python -m eval\.league aims"):
        aims_of(tmp_path / "nothing.csv")


def test_the_command_for_aims_plans_rows_that_the_run_takes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all rows two are left, which is enough to see one planned again."""
    (tmp_path / "gates.csv").write_text("gate,tokens,tower,videos\nsurprise,0.2,0.2,1\n")
    few = ("all tokens", "stage pyramid 15%", "stage relevance_max 15%")
    whole = command.league_flops
    monkeypatch.setattr(command, "league_flops", lambda *given: [row for row in whole(*given) if row.name in few])
    monkeypatch.setattr(command, "IN_TOWER", {})
    call = ["aims", "--data", str(data), "--runs", str(tmp_path / "runs"), "--gates", str(tmp_path / "gates.csv")]
    done = CliRunner().invoke(app, [*call, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "aims.csv").set_index("row")
    assert list(table.index) == list(few[1:]) and (table.target == table.loc[few[1], "spent"]).all()
    # the question's rows behind every chunk are planned for: less is left for the tokens
    assert table.loc[few[2], "aim"] < table.loc[few[1], "aim"] == 0.15
    assert table.loc[few[2], "spent"] <= 1.02 * table.loc[few[2], "target"]
    runs = [path.parent.name for path in (tmp_path / "runs" / "aims").rglob("run.json")]
    assert sum(name.startswith(few[2]) for name in runs) > 1
    # a few rows anew: what the file has of others stays
    other = pd.DataFrame(
        [{"row": "x", "target": 0.5, "aim": 0.4, "spent": 0.5}, {**table.loc[few[2]], "row": few[2], "aim": 9.0}]
    )
    other.to_csv(tmp_path / "aims.csv", index=False)
    done = CliRunner().invoke(app, [*call, "--out", str(tmp_path), "--only", "relevance_max"])
    assert done.exit_code == 0, done.output
    again = pd.read_csv(tmp_path / "aims.csv").set_index("row")
    assert list(again.index) == ["x", few[2]] and again.loc["x"].tolist() == [0.5, 0.4, 0.5]
    pd.testing.assert_frame_equal(again.loc[[few[2]]], table.loc[[few[2]]])


def test_rows_of_a_part_come_with_all_tokens_and_the_default() -> None:
    names = [entry.name for entry in wanted(ENTRIES, ["evs"], [0.5])]
    assert names == ["all tokens", "stage pyramid 50%", "reducer evs 50%"]


def test_a_row_whose_trained_part_is_not_there_is_left_out_with_a_sentence() -> None:
    entry = Entry("x", "reducer", 0.5, {"parts": ("no_such_part",)}, parts=("no_such_part",))
    _, why = with_parts(entry, None, ())
    assert why.startswith("reducer x 50% is left out:")
    assert with_parts(ENTRIES[0], None, ()) == (ENTRIES[0], "")


def test_what_is_remembered_is_bounded_and_the_oldest_goes() -> None:
    held = Bounded(10)
    held.put("a", 1, 4)
    held.put("b", 2, 4)
    assert held.get("a") == 1  # used, so that b is the oldest
    held.put("c", 3, 4)
    held.put("d", 4, 11)
    assert [held.get(key) for key in "abcd"] == [1, None, 3, None] and held.held == 8
