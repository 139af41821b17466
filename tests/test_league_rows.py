"""The league's rows spend what they say, name their systems, and are runs that can be made."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import pdrop_video as pv
from eval.runner.config import RunConfig
from eval.runner.equal import STEPS, TEXT, Way
from eval.tables.base import MARGIN, even_drops, written
from eval.tables.entries import Entry
from eval.tables.league import IN_TOWER, SHARES, LetOn, league_flops
from eval.tables.league_memory import BYTES, league_bytes, league_decode
from pdrop_video.costs.decoder import DecoderShape, prefill_flops
from pdrop_video.memory.evictors import EVICTORS
from pdrop_video.memory.storages import STORAGES
from pdrop_video.pyramid.scorers import SCORERS
from pdrop_video.reduce import REDUCERS

SHAPE = DecoderShape(hidden=256, mlp=704, heads=4, kv_heads=2, head_dim=64, layers=8, vocabulary=248)
WAY = Way(SHAPE, step=141_000_000, places=16)
LINES = {
    "surprise:threshold=2": 0.3,
    "surprise": 0.2,
    "surprise:threshold=9": 0.1,
    "static:threshold=16": 0.8,
    "static:threshold=48": 0.22,
    "event": 0.35,
    "event:theta=0.4": 0.2,
    "event:theta=0.5": 0.15,
    "codec": 0.6,
}
ON = LetOn(LINES)
FULL = STEPS * WAY.step + prefill_flops(SHAPE, pv.Pyramid(stages=1).resolve(8), STEPS * 16, TEXT)


def spent(entry: Entry) -> float:
    """What a row costs on a typical video, counted plainly: tower, decoder, a question."""
    given = entry.settings
    encoded = min(1.0, MARGIN * LINES[given["gate"]]) if "gate" in given else given.get("fps", 2.0) / 2
    keep = float((re.findall(r"(?:keep|most)=([\d.]+)", given.get("reducer", "")) or [1])[0])
    pyramid = pv.Pyramid(**given["pyramid"])
    flops = encoded * STEPS * WAY.step
    flops += prefill_flops(SHAPE, pyramid.resolve(8), round(STEPS * 16 * encoded * keep), TEXT)
    if pyramid.inside is not None:  # three matrices, two FLOPs a number, eight layers
        active = float(pyramid.inside.partition("p=")[2].partition(",")[0])
        flops -= (1 - active) * 6 * 256 * 704 * 8 * round(STEPS * 16 * encoded)
    return flops / FULL


def test_rows_at_equal_flops_spend_the_share_that_they_say() -> None:
    rows = league_flops(WAY, ON)
    assert rows[0].kind == "whole" and spent(rows[0]) == 1
    for row in rows[1:]:
        assert isinstance(row.at, float)
        least = 0 if row.slot == "gate" else 0.95  # gates come in lines
        assert least * row.at < spent(row) <= 1.011 * row.at, (row.name, spent(row))
    gates = {(row.system, row.at): row.settings["gate"] for row in rows if row.slot == "gate"}
    assert gates["static", 0.25] == "static:threshold=48" and gates["surprise", 0.5] == "surprise:threshold=2"
    assert ("codec", 0.25) not in gates  # no line of it lets so little on


def test_every_listed_method_has_a_row_at_its_papers_shape() -> None:
    rows = {row.name: row for row in league_flops(WAY, ON)}
    assert len(rows) == len(league_flops(WAY, ON))
    for share in ("25%", "15%", "10%"):
        assert rows[f"stage pyramid {share}"].kind == "default"
        for name in REDUCERS:
            assert (f"reducer {name} {share}" in rows) == (name not in ("desap", *IN_TOWER))  # a text tower is lacking
        for name, method in SCORERS.items():
            row = rows.get(f"stage {name} {share}")
            late = name == "coast" and share != "25%"  # all tokens in the layers before its drop cost more
            assert (row is None) == (late or name in ("contrast", "relevance")), name  # the default; PyramidDrop's own
            assert row is None or row.settings.get("question_aware", False) == method.facts.needs_question
    own = rows["stage pyramiddrop 15%"].settings
    assert own["pyramid"]["scorer"] == "relevance" and own["pyramid"]["allocator"] == "global" and own["question_aware"]
    assert rows["stage hawk 15%"].settings["pyramid"]["layers"] == [0]
    assert rows["stage fastv 25%"].settings["pyramid"]["layers"] in ([1], [2])
    both = rows["reducer + stage learnpruner 15%"].settings
    assert both["pyramid"]["scorer"] == "text_mean" and both["pyramid"]["layers"] == [3]
    assert rows["reducer random 15%"].kind == "control" and rows["reducer lrcp 15%"].paper.startswith("LRCP")
    trained = rows["reducer learnpruner, trained 15%"]
    assert trained.trained and trained.settings["parts"] == ("learnpruner",) and "score=trained" in str(trained)
    assert rows["stage quota 50%"].settings.get("gate") is None  # the tower alone leaves room


def test_what_leaves_the_tower_through_a_part_spends_its_share_on_frames() -> None:
    """Counted plainly: a tower of 0.6 of its cost, 4 tokens of a step's 16."""
    through = replace(WAY, step=84_600_000, places=4, whole=FULL)
    rows = [row for row in league_flops(WAY, ON, {"uhd": through}) if row.system == "uhd"]
    assert [row.at for row in rows] == list(SHARES) and all(row.parts == ("uhd",) for row in rows)
    assert rows[0].settings == {"pyramid": {"stages": 1}, "reducer": "uhd", "parts": ("uhd",)}  # with room to spare
    for row in rows[1:]:
        encoded = row.settings["fps"] / 2
        flops = encoded * STEPS * 84_600_000
        flops += prefill_flops(SHAPE, pv.Pyramid(stages=1).resolve(8), round(STEPS * 4 * encoded), TEXT)
        assert 0.97 < flops / FULL / float(row.at) <= 1, row.name


def test_a_row_that_missed_its_share_is_planned_for_another_one_behind_the_same_front() -> None:
    name, beside = "stage relevance_max 15%", "stage quota 15%"
    plain = {row.name: row for row in league_flops(WAY, ON)}
    aimed = {row.name: row for row in league_flops(WAY, ON, aims={name: 0.14})}
    assert aimed.keys() == plain.keys() and {n for n in plain if aimed[n] != plain[n]} == {name}
    assert aimed[name].settings["gate"] == plain[name].settings["gate"] and aimed[name].at == 0.15
    assert 0.95 * 0.14 < spent(aimed[name]) <= 1.011 * 0.14 and aimed[beside] == plain[beside]


def test_below_a_fifth_the_default_drops_once_and_the_other_shape_stands_beside_it() -> None:
    rows = {row.name: row for row in league_flops(WAY, ON)}
    for share, layers in (("15%", [0]), ("10%", [0]), ("25%", None)):
        assert rows[f"stage pyramid {share}"].settings["pyramid"].get("layers") == layers
        for allocator in ("global", "uniform"):
            beside = rows[f"allocator contrast, {allocator} {share}"].settings["pyramid"]
            assert beside == {**rows[f"stage pyramid {share}"].settings["pyramid"], "allocator": allocator}
    assert rows["stage contrast at 0 25%"].settings["pyramid"]["layers"] == [0]
    rows = {row.name: row for row in league_flops(WAY, LetOn({"surprise": 0.1}))}  # which leaves room for stages
    assert rows["stage pyramid 15%"].settings["pyramid"]["layers"] == [0]
    staged = rows["stage contrast in stages 15%"].settings
    assert staged["pyramid"]["scorer"] == "contrast" and staged["pyramid"].get("layers") != [0]
    assert staged["pyramid"] | {"scorer": "random"} == rows["stage random 15%"].settings["pyramid"]


def test_a_shape_that_leaves_next_to_nothing_can_be_written() -> None:
    assert written(even_drops(0.03)) == {"ratios": [0.03, 0.0009, 0.0001]}
    assert pv.Pyramid(**written(even_drops(0.03))).ratios == (0.03, 0.0009, 0.0001)
    assert written(even_drops(0.37559)) == {"ratios": [0.3755, 0.141, 0.0529]}


def test_where_no_gate_is_frugal_enough_all_stand_behind_fewer_frames() -> None:
    settings, encoded = LetOn({"surprise": 0.9}).common(WAY, 0.1)
    assert set(settings) == {"fps"} and settings["fps"] == pytest.approx(2 * encoded)
    rows = league_flops(WAY, LetOn({"surprise": 0.9}))
    assert {row.settings["fps"] for row in rows if row.at == 0.1 and row.slot == "reducer"} == {settings["fps"]}
    for row in rows:
        if row.at == 0.1:
            assert spent(row) <= 0.101, row.name


def test_rows_at_equal_bytes_and_while_answering() -> None:
    rows = {row.name: row for row in league_bytes(WAY)}
    kinds = [("evictor", name) for name in EVICTORS] + [("storage", name) for name in STORAGES if name != "full"]
    for tokens in BYTES:
        assert {f"{slot} {name} {tokens}" for slot, name in kinds} <= rows.keys()
        assert [name for name, row in rows.items() if row.kind == "default" and row.at == tokens] == [
            f"storage int8_per_token {tokens}"
        ]
        standing = rows[f"evictor standby {tokens}"]
        assert standing.settings["reducer"] == "standby" and standing.parts == standing.settings["parts"] == (
            "standby",
        )
        assert rows[f"evictor window {tokens}"].settings["memory"] == {"evictor": "window", "tokens": tokens}
        assert rows[f"frames fewer frames {tokens}"].settings["frames"] * 8 == tokens
    assert [row.kind for row in league_decode()] == ["whole", *["control", "default", "system"] * 2]


def test_every_row_is_a_run_that_can_be_made(tmp_path: Path) -> None:
    rows = [row for row in league_flops(WAY, ON) if not row.parts and row.slot != "gate"]  # a line may suit two shares
    for several in (rows, [row for row in league_bytes(WAY) if not row.parts], league_decode()):
        common = {"task": "videomme", "data": tmp_path, "out": tmp_path, "fps": 2, "answer": "likelihood"}
        digests = {RunConfig(**{**common, **row.settings}).digest for row in several}
        assert len(digests) == len(several)  # no row is another one's under a second name
    assert {row.at for row in rows[1:]} == set(SHARES)
