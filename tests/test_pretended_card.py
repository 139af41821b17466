"""Nothing mixes devices: the device check runs on a pretended card, on which whatever does fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eval.gpu.parts import PARTS


def on_card(part: str) -> tuple[str, list[dict[str, Any]]]:
    """What mixing devices raises there, and the rows of a part."""
    command = [sys.executable, str(Path(__file__).parent / "pretended_card.py"), part]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    first, *rows = json.loads(run.stdout.splitlines()[-1])
    return first["mixing"], rows


def test_proofs_hold_on_a_pretended_card() -> None:
    """Nothing dropped, evictions, and a stream that is saved there and resumed there and on the CPU."""
    mixing, rows = on_card("short")
    assert "same device" in mixing
    assert [row["proof"][0] for row in rows] == ["1", "3", "6", "6"] and all(row["passed"] for row in rows)
    assert rows[-1]["error"] > 0  # the CPU went another way to the same logits


@pytest.mark.slow
@pytest.mark.parametrize("part", [part.name for part in PARTS])
def test_the_check_runs_on_a_pretended_card(part: str) -> None:
    _, rows = on_card(part)
    assert rows and all(row.get("passed", True) for row in rows)


@pytest.mark.parametrize(
    "names",
    [
        "qwen2_5_vl",
        *(
            pytest.param(names, marks=pytest.mark.slow)
            for names in ("qwen3_vl,llava_onevision", "gemma4,qwen3_5,exaone4_5")
        ),
    ],
)
def test_layers_on_two_cards_are_those_on_one(names: str) -> None:
    """Watched, saved, resumed and asked, and a prompt in one piece: what accelerate moves, and what it does not."""
    _, rows = on_card(f"spread:{names}")
    assert len(rows) >= len(names.split(",")) and all((row["error"], row["apart"]) == (None, 0) for row in rows)


@pytest.mark.slow
def test_every_method_runs_on_two_cards() -> None:
    """And says what it says on one: scorers, evictors, storages, and what is asked of an archive."""
    _, rows = on_card("spread")
    fell = [row["way"] for row in rows if (row["error"], row["apart"]) != (None, 0)]
    assert fell == ["reducer desap"] and len(rows) > 60


@pytest.mark.slow
def test_every_method_runs_on_a_pretended_card() -> None:
    """But for the one that this family's tower has nothing for."""
    _, rows = on_card("methods")
    fell = {row["way"]: row["error"] for row in rows if row["error"] is not None}
    assert list(fell) == ["reducer desap"] and "ConfigError" in fell["reducer desap"]
    assert len(rows) > 50
    assert all(row["tokens"] == 3 for row in rows if row["error"] is None)
