"""The device check: rehearsed in whole on the CPU; what hangs is ended, what is through stays, what fails is said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from eval.gpu.__main__ import chosen
from eval.gpu.machine import Machine
from eval.gpu.parts import PARTS, Part, Setting
from eval.gpu.proofs import TOLERANCE, Proofs
from eval.gpu.report import exit_code, gathered, write
from eval.gpu.running import How, run_parts
from eval.gpu.state import BEGUN, DONE, ENDED, FELL, Folder
from eval.gpu.wheels import missing, with_needs
from pdrop_video.engine.packing import Group
from pdrop_video.memory.layer import KeyValueLayer
from pdrop_video.stream import saved
from pdrop_video.stream.asking import Question

ROOT = Path(__file__).parent.parent
HOW = How("cpu", small=True, starting=60)


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, as somebody types it."""
    command = [sys.executable, "-m", "eval.gpu", "--device", "cpu", "--small", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


# -- the whole of it -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("check")
    return out, check("--out", str(out), "--limit", "200")  # a busy processor compiles for minutes


def test_rehearsal(rehearsed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Every part on the CPU in small shapes: all proofs hold, and every way is measured."""
    out, run = rehearsed
    assert run.returncode == 0, run.stdout + (out / "log.txt").read_text()
    report = json.loads((out / "report.json").read_text())
    assert report["failed"] == [] and report["unfinished"] == {}
    assert report["machine"]["torch"] == torch.__version__
    rows = {
        name: [row for entry in part["rows"].values() for row in entry["table"]]
        for name, part in report["parts"].items()
    }
    assert list(rows) == [part.name for part in PARTS]
    assert {row["proof"][0] for row in rows["proofs"]} >= set("12356") and all(row["passed"] for row in rows["proofs"])
    assert sum("evictions" in row["proof"] for row in rows["proofs"]) == 3
    off = [row["error"] for row in rows["proofs"] if row["error"] is not None and row["dtype"] == "float32"]
    assert len(off) >= 8 and max(off) <= TOLERANCE[torch.float32]
    ways = {row["way"]: row for row in rows["prefill"][1:]}
    assert set(ways) == {"transformers", "ratio 1", "pyramid", "fastv"}
    assert ways["ratio 1"]["promised"] == 1 and ways["pyramid"]["promised"] > 1.5 and ways["fastv"]["promised"] > 1.5
    decoded = {row["way"]: row for row in rows["answers"] if "tokens" in row}
    assert [row["tokens"] for row in decoded.values()] == [8, 8, 8, 8]
    parts = {row["part"]: row for row in rows["watching"] if "part" in row}
    shares = [parts[name]["share"] for name in ("tower", "decoder", "ranking", "eviction", "host")]
    assert min(shares) > 0 and sum(shares) == pytest.approx(1)
    crowds = {(row["streams"], row["way"]): row["frames"] for row in rows["watching"] if "streams" in row}
    assert crowds == {(1, "in turns"): 16, (4, "in turns"): 64, (1, "engine"): 16, (4, "engine"): 64}
    counted = {row["what"]: row for row in rows["counts"] if "operators" in row}
    assert counted["a token"]["values_read"] == 1  # the host sees each token once
    assert counted["a push"]["operators"] > counted["a token"]["operators"] > 100
    assert {row["where"].rsplit(":")[0] for row in rows["counts"] if "where" in row} >= {"stream/sampling.py"}
    assert [row["pushes"] for row in rows["counts"] if "pushes" in row] == [4, 20, 40]
    page = (out / "report.md").read_text()
    assert f"**{len(rows['proofs'])} of {len(rows['proofs'])} proofs hold.**" in page
    assert all(f"## {part.title}" in page for part in PARTS)


def test_what_is_done_is_not_done_again(rehearsed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """The same command leaves every part as it is; in another size or on another device nothing counts."""
    out, _ = rehearsed
    before = {part.name: (out / f"{part.name}.json").read_bytes() for part in PARTS}
    assert check("--out", str(out)).returncode == 0
    assert {part.name: (out / f"{part.name}.json").read_bytes() for part in PARTS} == before
    assert all(Folder(out).done(part.name, "cpu, small") for part in PARTS)
    assert not any(Folder(out).done(part.name, how) for part in PARTS for how in ("cpu, full", "cuda, small"))


# -- proofs that fail ------------------------------------------------------------------------------------------------


def wrong_values(patch: pytest.MonkeyPatch) -> None:
    real = KeyValueLayer.update
    patch.setattr(KeyValueLayer, "update", lambda me, k, v, *a, **more: real(me, k, v * 1.01, *a, **more))


def traces(patch: pytest.MonkeyPatch) -> None:
    real = Question.prefill

    def prefill(me: Question) -> Any:
        me.origin.rows += 1
        return real(me)

    patch.setattr(Question, "prefill", prefill)


def other_file(patch: pytest.MonkeyPatch) -> None:
    real = saved.read

    def read(path: Any) -> Any:
        header, tensors = real(path)
        return header, tensors | {"values.5": tensors["values.5"] * (1 + 2e-7)}

    patch.setattr(saved, "read", read)


def mixed_rows(patch: pytest.MonkeyPatch) -> None:
    real = Group.given
    patch.setattr(Group, "given", lambda me, *a: None if (found := real(me, *a)) is None else found * 1.001)


@pytest.mark.parametrize(
    ("broken", "proof"),
    [
        (wrong_values, lambda proofs: proofs.nothing_dropped([3, 1, 4, 1])),
        (wrong_values, lambda proofs: proofs.masked("3", 2.6, "uniform")),
        (traces, lambda proofs: proofs.ask_leaves_no_trace()),
        (other_file, lambda proofs: proofs.resumed()[0]),
        (other_file, lambda proofs: proofs.resumed()[1]),
        (mixed_rows, lambda proofs: proofs.packed()),
    ],
)
def test_proofs_fail_of_a_library_that_is_wrong(
    broken: Callable[[pytest.MonkeyPatch], None],
    proof: Callable[[Proofs], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proofs = Proofs(Machine.of(Setting("cpu", small=True, ends=0)), "qwen2_5_vl", torch.float32)
    assert proof(proofs)["passed"] is True
    broken(monkeypatch)
    assert proof(proofs)["passed"] is False


# -- parts that measure nothing --------------------------------------------------------------------------------------


FAKES = {
    "quick": "Part(('a', called), ('b', called))",
    "hanging": "Part(('c', called), ('d', hang), ('e', called))",
    "failing": "Part(('f', called), ('g', fail), ('h', called))",
    "dying": "Part(('i', called), ('j', die), ('k', called))",
    "wrong": "Part(('l', lambda name: called(name, False)), ('m', lambda name: called(name, True)))",
}


class Fakes:
    """Parts of a check by name, in a folder of their own, and what was called of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = Folder(folder / "out"), folder / "calls"

    def part(self, name: str, limit: float = 60) -> Part:
        return Part(name, name, f"fake_{name}", limit)

    def run(self, *parts: Part, how: How = HOW) -> dict[str, Any]:
        run_parts(parts, self.folder, how, lambda line: None)
        return write(parts, self.folder)

    @property
    def calls(self) -> str:
        return "".join(self.log.read_text().split("\n")) if self.log.exists() else ""

    def mend(self) -> None:
        Path(f"{self.log}.well").touch()


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    for name, of in FAKES.items():
        text = f"from gpu_fakes import Part, called, die, fail, hang\n\ncases = {of}.cases\n"
        (tmp_path / f"fake_{name}.py").write_text(text)
    made = Fakes(tmp_path)
    monkeypatch.setenv("CALLS", str(made.log))
    path = [str(ROOT), str(ROOT / "tests"), str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    return made


def test_a_part_that_hangs_is_ended_and_the_next_ones_are_done(fakes: Fakes) -> None:
    """Its cases that are through stay, and the same command goes on behind them."""
    parts = fakes.part("quick"), fakes.part("hanging", 1.5), fakes.part("wrong")
    found = fakes.run(*parts)
    assert fakes.calls == "abcdlm"
    assert [found["parts"][part.name]["state"] for part in parts] == [DONE, ENDED, DONE]
    assert list(found["unfinished"]) == ["hanging"] and ENDED in found["unfinished"]["hanging"]
    assert list(found["parts"]["hanging"]["rows"]) == ["c"]
    page = (fakes.folder.path / "report.md").read_text()
    assert f"- unfinished: hanging, {ENDED}" in page and "**1 of 2 proofs hold.**" in page
    assert "in hang" in (fakes.folder.path / "log.txt").read_text()  # where it was when its time was up
    fakes.mend()
    found = fakes.run(*parts)
    assert fakes.calls == "abcdlm" + "dd welle"
    assert found["unfinished"] == {}


def test_a_check_that_is_killed_goes_on_where_it_was(fakes: Fakes) -> None:
    """Killed, not ended: what it began ends with it, and what is through is not done again."""
    text = (
        "from pathlib import Path\nfrom eval.gpu.parts import Part\nfrom eval.gpu.state import Folder\n"
        "from eval.gpu.running import How, run_parts\n"
        f"parts = [Part(name, name, 'fake_' + name, 60) for name in ('quick', 'hanging', 'wrong')]\n"
        f"run_parts(parts, Folder(Path({str(fakes.folder.path)!r})), How('cpu', True))\n"
    )
    run = subprocess.Popen([sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.DEVNULL)
    _until(lambda: fakes.calls == "abcd")
    child = fakes.folder.read("hanging")["process"]
    run.send_signal(signal.SIGKILL)
    run.wait()
    _until(lambda: not _lives(child))
    assert fakes.folder.read("hanging")["state"] == BEGUN
    fakes.mend()
    found = fakes.run(*(fakes.part(name) for name in ("quick", "hanging", "wrong")))
    assert fakes.calls == "abcd" + "dd welle" + "lm"
    assert found["unfinished"] == {}


def _until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not true():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.02)


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_fails_or_dies_leaves_the_others(fakes: Fakes) -> None:
    """A case that raises leaves its part's other cases, a process that dies the other parts; each says so."""
    parts = fakes.part("failing"), fakes.part("dying"), fakes.part("quick")
    found = fakes.run(*parts)
    assert fakes.calls == "fgh" + "ij" + "ab"
    assert [found["parts"][part.name]["state"] for part in parts] == [FELL, FELL, DONE]
    assert found["parts"]["failing"]["rows"]["g"]["error"] == "RuntimeError: out of something"
    assert "g" in found["unfinished"]["failing"] and "ended with 9" in found["unfinished"]["dying"]
    assert exit_code(found) == 3
    fakes.run(*parts)
    assert fakes.calls == "fgh" + "ij" + "ab" + "g" + "j"  # what is through is not done again


def test_time_for_all_parts_is_bounded(fakes: Fakes) -> None:
    """The part that runs when the time for all is up is ended, those behind it are not begun."""
    parts = fakes.part("hanging"), fakes.part("quick")
    found = fakes.run(*parts, how=How("cpu", small=True, total=4))
    assert found["parts"]["hanging"]["state"] == ENDED
    assert found["unfinished"]["quick"] == "not begun"
    assert "a" not in fakes.calls


def test_exit_codes(fakes: Fakes) -> None:
    """1 for a proof that failed, whatever else; 3 for a part that is unfinished; else 0."""
    for names, code in ((["quick"], 0), (["quick", "wrong"], 1), (["hanging", "quick"], 3), (["hanging", "wrong"], 1)):
        parts = [fakes.part(name, 1 if name == "hanging" else 60) for name in names]
        assert exit_code(fakes.run(*parts)) == code
    found = gathered([fakes.part("wrong")], fakes.folder)
    assert found["failed"] == ["wrong: l, l"]


# -- what is chosen and what travels ---------------------------------------------------------------------------------


def test_parts_are_chosen_by_name() -> None:
    assert [part.name for part in chosen("", "")] == [part.name for part in PARTS]
    assert [part.name for part in chosen("counts,proofs", "")] == ["proofs", "counts"]
    assert [part.name for part in chosen("", "prefill,answers,watching,counts")] == ["proofs"]
    with pytest.raises(typer.BadParameter, match=r"no part speed; choose from proofs, .*counts"):
        chosen("speed", "")


def test_wheels_are_those_that_a_machine_lacks() -> None:
    everything = "\n".join(with_needs(("av", "einops", "pillow", "typer", "torch", "transformers"), "3.12"))
    assert missing(everything, "3.12") == []
    assert missing("torch==2.11.0\nEinops   0.8.1\nPillow==12.0\n", "3.12") == ["av"]
    assert missing("", "3.12") == ["av", "einops", "pillow"]
