"""Wheels of what the check needs and a machine without a network lacks.

    python -m eval.gpu.wheels have.txt --python 3.12 --to wheels

`have.txt` is what ``pip freeze``, or ``pip list``, says on that machine. torch and transformers are taken to be there,
with what they need; of the rest the wheels that are missing are downloaded, for that Python on Linux, x86-64.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Annotated

import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NEEDED = ("av", "einops", "pillow", "typer")
"""What ``import pdrop_video`` and the check import beside torch, transformers and what those two bring."""
_BROUGHT = ("torch", "transformers")
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def named(listing: str) -> set[str]:
    """The packages that a listing names, one a line."""
    found = (re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", line) for line in listing.splitlines())
    return {canonicalize_name(each[1]) for each in found if each}


def with_needs(names: tuple[str, ...], python: str) -> set[str]:
    """Packages and all that they need, as those installed here say, under another Python."""
    found: set[str] = set()
    left = [canonicalize_name(name) for name in names]
    where = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux", "extra": ""}
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        try:
            said = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:  # not needed here, by another marker
            continue
        left += [canonicalize_name(each.name) for each in said if each.marker is None or each.marker.evaluate(where)]
    return found


def missing(listing: str, python: str) -> list[str]:
    """What a machine lacks."""
    return sorted(with_needs(NEEDED, python) - with_needs(_BROUGHT, python) - named(listing))


def main(
    have: Annotated[Path, typer.Argument(help="What the machine has: a line for each package.")],
    python: Annotated[str, typer.Option(help="Its version of Python.")] = "3.12",
    to: Annotated[Path, typer.Option(help="Folder of the wheels.")] = Path("wheels"),
) -> None:
    """Download the wheels that a machine lacks."""
    lacks = missing(have.read_text(encoding="utf-8"), python)
    print(f"missing there: {', '.join(lacks) or 'nothing'}")
    if lacks:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", python, "--implementation", "cp", "--dest", str(to)]
        command += [part for platform in _PLATFORMS for part in ("--platform", platform)]
        raise typer.Exit(subprocess.run([*command, *lacks], check=False).returncode)


if __name__ == "__main__":
    typer.run(main)
