"""`pdrop-video demo` and `pdrop-video eval`: they hand on what was typed, to modules that are there and our own."""

from __future__ import annotations

import subprocess
from importlib import import_module, util
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import pdrop_video as pv
from eval.runner.header import git_commit
from pdrop_video import cli
from pdrop_video.cli import beside


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def test_every_command_is_there_under_the_name_that_it_is_listed_by() -> None:
    for where, room in [(beside.PAGE[1], "demos"), *((where, "eval") for where, _ in beside.EVALUATION.values())]:
        module, _, name = where.partition(":")
        made = getattr(import_module(f"{beside.home_of(room)}.{module}"), name)
        assert isinstance(made, typer.Typer) or callable(made)
    listed = run("eval", "--help").output
    assert all(f" {name} " in listed for name in beside.EVALUATION)


def test_options_values_and_refusals_are_the_commands_own(tmp_path: Path) -> None:
    refused = run("eval", "compare", tmp_path, "--margin", "0.03", "--json")
    assert refused.exit_code == 2 and "1 run was named; expected two or more" in refused.output
    wrong = run("eval", "run", "videomme", "--data", tmp_path, "--out", tmp_path / "out", "--frames", "-3")
    assert wrong.exit_code == 1 and "pdrop-video eval run --help" in wrong.output
    for command in (("eval", "run"), ("eval", "compare"), ("demo",)):
        told = run(*command, "--help")
        assert told.exit_code == 0 and f"{' '.join(command)} [OPTIONS]" in told.output
    assert "No such option" in run("demo", "--no-such-thing").output


def test_what_is_missing_is_said_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'pydantic'", name="pydantic")

    monkeypatch.setattr(beside, "import_module", absent)
    end = run("eval", "run").exception
    assert isinstance(end, SystemExit)
    assert str(end.code).endswith("eval run needs pydantic, which is missing: pip install 'pdrop-video[eval]'.")


def test_somebody_elses_package_of_that_name_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = tmp_path / "demos" / "__init__.py"
    stranger.parent.mkdir()
    stranger.touch()
    plain = util.find_spec

    def found(name: str) -> Any:
        if name == "demos":
            return util.spec_from_file_location(name, stranger, submodule_search_locations=[str(stranger.parent)])
        return plain(name)

    monkeypatch.setattr(beside, "find_spec", found)
    with pytest.raises(pv.ConfigError, match="came without its demos"):
        beside.home_of("demos")
    assert beside.home_of("eval") == "eval"


def test_a_run_in_somebody_elses_repository_names_no_commit(tmp_path: Path) -> None:
    """As where an environment stands within a project's folder."""
    as_me = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "theirs.txt").touch()
    subprocess.run(["git", "-C", tmp_path, "add", "."], check=True)
    subprocess.run(["git", "-C", tmp_path, *as_me, "commit", "-qm", "theirs"], check=True)
    installed = tmp_path / "venv" / "runner"
    installed.mkdir(parents=True)
    assert git_commit(installed) is None
    assert git_commit(tmp_path) is not None
