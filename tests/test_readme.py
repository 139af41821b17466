"""What README.md and docs/ say is there: commands, options, names, figures, links; the README's examples run."""

from __future__ import annotations

import csv
import inspect
import re
import shlex
import textwrap
from dataclasses import fields, is_dataclass
from pathlib import Path
from pydoc import locate
from typing import Any

import methods
import pytest
import typer
from typer.testing import CliRunner

import pdrop_video as pv
from pdrop_video.cli import app
from pdrop_video.models import ADAPTERS
from pdrop_video.stream.methods import catalogue
from pdrop_video.stream.recipe import SLOTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CLIP = ROOT / "demos" / "clips" / "clip.mp4"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def test_the_readme_is_short_and_names_every_family_and_method() -> None:
    assert len(README.splitlines()) <= 150
    for name in (*ADAPTERS, *(name for registry in SLOTS.values() for name in registry)):
        assert f"`{name}`" in README


def block(after: str) -> str:
    """The first block of code behind a heading."""
    found = re.search(r"((?:    .*\n|\n(?=    ))+)", README.split(f"## {after}\n")[1])
    assert found is not None
    return textwrap.dedent(found[1])


def test_the_readmes_stream_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = block("In Python")
    assert "match.mp4" in code
    (tmp_path / "match.mp4").symlink_to(CLIP)
    monkeypatch.chdir(tmp_path)
    there: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), there)
    resumed = there["lm"].resume("match.pdrop")
    assert resumed.status.frames == there["stream"].status.frames == 24
    answers = [stream.ask("Who scored first?").token_ids for stream in (resumed, there["stream"])]
    assert answers[0] == answers[1] != ()


def test_what_make_ask_prints_is_what_the_readme_shows() -> None:
    """Every line that it shows, in that order; docs/start.md shows all of them, but for times."""
    asked = re.search(r"^(?:ABOUT_EXAMPLE :|QUESTIONS \?)= (.+?)\n(?=\S)", MAKEFILE, re.MULTILINE | re.DOTALL)
    assert asked is not None
    questions = shlex.split(asked[1].replace("\\\n", " "))
    done = CliRunner().invoke(app, ["ask", str(CLIP), *questions])
    assert done.exit_code == 0, done.output
    printed = " ".join(done.output.split())
    start = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    for page, first in ((README, "    Q: "), (start, "    watching clip.mp4")):
        shown = page[page.index(first) :].split("\n\n")[0].splitlines()
        assert len(shown) > 5
        position = 0
        for line in (" ".join(line.split()) for line in shown):
            if line != "..." and not line.startswith("time "):
                assert line in printed[position:], line
                position = printed.index(line, position)


# -- commands ----------------------------------------------------------------------------------------------------------


def shown(page: Path) -> list[str]:
    """The lines of code of a page, and its code within lines; a line that ends in a backslash goes on."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("    ")]
    return [*lines, *re.findall(r"`([^`]+)`", text.replace("\n", " "))]


def told(page: Path, pattern: str) -> list[Any]:
    """What a page's code has of a pattern, at the beginning of a line or of a piece of code."""
    return [found for line in shown(page) for found in re.findall(rf"^ *{pattern}", line)]


COMMAND = r"(?:\.venv/bin/)?pdrop-video ([a-z][^#|]*)"
TARGET = r"make ([a-z-]+)((?: [A-Z_]+=\S+)*)"


def test_there_are_commands_and_targets_to_check() -> None:
    assert sum(len(told(page, COMMAND)) for page in PAGES) > 40
    assert sum(len(told(page, TARGET)) for page in PAGES) > 20


@each_page
def test_commands_and_their_options_are_there(page: Path) -> None:
    """Of `pdrop-video`; those of other programs are their own tests' task."""
    for line in told(page, COMMAND):
        words, command = line.split(), typer.main.get_command(app)
        while words and hasattr(command, "commands"):
            assert words[0] in command.commands, f"pdrop-video {line}"
            command = command.commands[words.pop(0)]
        if not command.context_settings.get("ignore_unknown_options"):
            known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
            assert set(re.findall(r"(?<=\s)--[a-z-]+", f" {' '.join(words)}")) <= known, line


@each_page
def test_make_targets_and_their_variables_are_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    for target, rest in told(page, TARGET):
        assert target in targets
        for variable in re.findall(r"([A-Z_]+)=", rest):
            assert re.search(rf"\$\({variable}\)|\$\(if \$\({variable}|\$\(or \$\({variable}", MAKEFILE), variable


@each_page
def test_python_modules_are_there(page: Path) -> None:
    for line in shown(page):
        for module in re.findall(r"python -m ((?:eval|demos)[\w.]*)", line):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module


# -- names -------------------------------------------------------------------------------------------------------------


def names_of(thing: Any) -> set[str]:
    """What follows a dot behind this: attributes, and fields without a default."""
    return {*dir(thing), *(each.name for each in fields(thing))} if is_dataclass(thing) else {*dir(thing)}


def test_the_glossarys_names_are_there() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row[2])]
    assert len(named) > 60
    for name in named:
        if name.endswith("/"):
            assert (ROOT / name).is_dir(), name
            continue
        if name.startswith("pdrop_video."):
            assert locate(name) is not None, name
            continue
        found = re.fullmatch(r"pv\.([\w.]+)(?:\((\w+)=\))?", name)
        assert found is not None, name
        thing: Any = pv
        for part in found[1].split("."):
            assert part in names_of(thing), name
            thing = getattr(thing, part, None)
        if found[2]:
            assert found[2] in inspect.signature(thing).parameters, name


def test_every_method_has_a_formula_whose_parameters_are_its_own() -> None:
    for each in catalogue():
        formula, method = each.facts.formula, SLOTS[each.slot][each.name]
        assert len(formula) > 5 and max(map(len, formula.splitlines())) <= 100, each.name
        own = {field.name for field in fields(method)} if is_dataclass(method) else set()
        words = set(re.findall(r"`(\w+)`|\b(\w+_\w+)\b", formula))
        others = {"two_tier", *(name for registry in SLOTS.values() for name in registry)}
        assert {first or second for first, second in words} <= own | others | {"y_T"}, each.name


def test_every_slot_is_described() -> None:
    assert list(methods.DECIDES) == list(SLOTS)


# -- figures -----------------------------------------------------------------------------------------------------------


def measured(table: str, run: str) -> str:
    """The accuracy of a run in eval/results, as the pages write it."""
    with (ROOT / "eval" / "results" / table / "runs.csv").open(encoding="utf-8") as file:
        accuracy = next(float(row["accuracy"]) for row in csv.DictReader(file) if row["run"] == run)
    return f"{accuracy:.3f}".lstrip("0")


def test_the_readmes_figures_are_those_that_were_measured() -> None:
    rows = dict(re.findall(r"^\| \[([\w ]+)\]\(.+?\) \| (.+?) \| `", README, re.MULTILINE))
    assert list(rows) == ["Accuracy", "Memory", "First token", "Ten hours", "Many streams"]
    accuracies = {
        "Accuracy": [
            ("depth", "pyramid 25%"),
            ("depth", "full"),
            ("reduce", "pyramid, surprise 15%"),
            ("reduce", "full"),
        ],
        "Memory": [("memory", "pyramid, 256"), ("memory", "full"), ("memory", "last 4 frames")],
    }
    for name, runs in accuracies.items():
        shares = [f"{float(measured(*run)):.1%}".replace("%", " %") for run in runs]
        assert re.findall(r"\d+\.\d %(?! of all FLOPs)", rows[name]) == shares
    page = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    others = re.findall(r"(?<![\w.])\d+\.\d+(?! %)|[\d.]+ %(?= of all FLOPs)", " ".join(rows.values()))
    assert len(others) == 6
    for figure in others:
        assert re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", page), figure


def test_the_figures_of_memories_are_those_of_the_table() -> None:
    page = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8").split("## What a memory keeps")[1]
    for name in ("infinipot_v", "stream_mem", "hermes", "random", "uniform", "streaming_vlm"):
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        assert row.split(" | ")[1] == measured("memory", f"{name}, 256")


# -- pages -------------------------------------------------------------------------------------------------------------


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if ":" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target
