"""The device check in one command, under eight minutes on one card.

    python -m eval.gpu
    python -m eval.gpu --device cpu --small
    python -m eval.gpu --only proofs,counts --again --limit 60

Each part has its own time limit and is written down case by case: the same command goes on with what is not done. It
ends with 1 if a proof failed, with 3 if a part is unfinished.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .parts import PARTS, Part
from .report import exit_code, write
from .running import How, run_parts
from .state import Folder

_NAMES = ", ".join(part.name for part in PARTS)


def chosen(only: str, skip: str) -> list[Part]:
    """The parts that are named, without those to skip; `typer.BadParameter` for a name of none."""
    wanted, left_out = (set(filter(None, names.split(","))) for names in (only, skip))
    if unknown := sorted((wanted | left_out) - {part.name for part in PARTS}):
        raise typer.BadParameter(f"there is no part {', '.join(unknown)}; choose from {_NAMES}.")
    return [part for part in PARTS if part.name not in left_out and (not wanted or part.name in wanted)]


def main(
    out: Annotated[Path, typer.Option("--out", help="Folder of the parts and the report.")] = Path("runs/gpu"),
    device: Annotated[str, typer.Option(help="cuda, cuda:1, cpu.")] = "cuda",
    small: Annotated[bool, typer.Option("--small", help="A rehearsal: few cases in small shapes.")] = False,
    only: Annotated[str, typer.Option(help=f"Comma-separated: {_NAMES}.")] = "",
    skip: Annotated[str, typer.Option(help="Parts to leave out.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Do parts anew that are done.")] = False,
    limit: Annotated[float | None, typer.Option(help="Seconds for each part, in place of its own.", min=1)] = None,
    total: Annotated[float, typer.Option(help="Seconds for all parts.", min=1)] = 470.0,
) -> None:
    """Check correctness and speed on a device; see README.md beside this file."""
    parts, folder = chosen(only, skip), Folder(out)
    for part in parts if again else ():
        folder.forget(part.name)
    run_parts(parts, folder, How(device, small, limit, total))
    found = write(parts, folder)
    print((folder.path / "report.md").read_text(encoding="utf-8"))
    raise typer.Exit(exit_code(found))


if __name__ == "__main__":
    typer.run(main)
