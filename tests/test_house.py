"""The picture of the house is what the code's imports make of it, and what CONTRIBUTING says of files is true."""

from __future__ import annotations

import re
from collections.abc import Iterable
from graphlib import CycleError
from itertools import pairwise
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

FILES = {
    "__init__.py": "from .stream import Stream",
    "errors.py": '"""What goes wrong."""',
    "common/__init__.py": "",
    "common/checks.py": "from ..errors import Wrong",
    "video/__init__.py": '"""Frames.\n\nAnd more of them."""',
    "video/files/__init__.py": "",
    "video/files/reader.py": "from ...common.checks import whole",
    "models/__init__.py": '"""The families\nand their files."""',
    "models/family.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..video.files import reader",
    "costs.py": '"""What it costs."""\ndef of():\n    from .models.family import Family',
    "stream/__init__.py": "from ..costs import of\nfrom ..video import Frame\nfrom . import state",
    "stream/state.py": "import house_of_test.errors",
    "cli.py": "import house_of_test as h",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small package whose imports are written in every way that there is."""
    for name, text in FILES.items():
        path = tmp_path / "house_of_test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "house_of_test"


def test_imports_between_rooms_are_found_wherever_they_are_written(package: str) -> None:
    assert house.rooms(package) == {
        "cli": {"stream"},  # through the package's own name
        "common": {"errors"},
        "costs": {"models"},  # within a function
        "errors": set(),
        "models": {"video"},  # for types only
        "stream": {"costs", "video", "errors"},
        "video": {"common"},
    }


def test_the_picture_of_a_small_house(package: str) -> None:
    way = {"video": "frames and their seconds", "models": "visual tokens and their places", "stream": None}
    drawn = house.picture(house.rooms(package))
    assert re.findall(r"(\w+) ==>\|(.+?)\| (\w+)", drawn) == [(a, way[a], b) for a, b in pairwise(way)]
    # from video to stream there is an arrow in the code; it follows from the three that are drawn
    assert set(re.findall(r"(\w+) --> (\w+)", drawn)) == {
        ("video", "models"),
        ("models", "costs"),
        ("costs", "stream"),
        ("stream", "cli"),
    }
    assert re.findall(r"subgraph ground .*\n((?: {8}\w+\n)+) {4}end", drawn) == ["        common\n        errors\n"]


def test_rooms_in_a_circle_have_no_picture(package: str, tmp_path: Path) -> None:
    (tmp_path / "house_of_test" / "video" / "live.py").write_text("def f():\n    from ..costs import of\n")
    with pytest.raises(CycleError, match="costs"):
        house.picture(house.rooms(package))


def closure(pairs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """All pairs that follow from some."""
    found = set(pairs)
    while more := {(a, d) for a, b in found for c, d in found if b == c} - found:
        found |= more
    return found


def test_what_the_arrows_leave_out_follows_from_them_and_none_is_too_many() -> None:
    imports = house.rooms("pdrop_video")
    way, ground, _ = house.sides(imports)
    assert way[0] == "video" and way[-1] == "stream" and {"errors", "common"} <= set(ground)
    arrows = house.arrows(imports)
    whole = closure((room, above) for above, taken in imports.items() for room in taken if room not in ground)
    assert closure(arrows) == whole
    for arrow in arrows:
        assert arrow not in closure(set(arrows) - {arrow})


def test_no_room_on_the_way_knows_the_next_and_the_last_knows_all() -> None:
    imports = house.rooms("pdrop_video")
    *before, last = house.sides(imports)[0]
    assert len(before) > 3 and imports[last].issuperset(before)
    for room, following in pairwise([*before, last]):
        assert following not in imports[room]


def test_the_picture_in_contributing_is_that_of_the_code() -> None:
    drawn = house.drawn("pdrop_video")
    assert drawn in PAGE, "the code's imports have changed: run `make picture`, and look whether that is what you meant"
    assert PAGE.count(house.BEGIN) == PAGE.count(house.END) == 1


def test_files_that_contributing_names_are_there() -> None:
    there = [f"/{path.relative_to(ROOT).as_posix()}" for path in inhabited()]
    named = {name.rstrip("/") for name in re.findall(r"`([\w./]+(?:\.py|/))`", PAGE)}
    assert len(named) > 20
    assert not {name for name in named if not any(path.endswith(f"/{name}") for path in there)}


def inhabited() -> Iterable[Path]:
    """The folders that code is in, and all that is in them."""
    for name in ("pdrop_video", "eval", "demos", "tests"):
        yield from (ROOT / name, *(ROOT / name).rglob("*"))
