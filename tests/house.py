"""The house in one picture, drawn from the code's own imports: `make picture` writes it into CONTRIBUTING.md.

Written down here is the way of one frame alone: its order, and what each room hands on. Which rooms there are, which
imports which and which all others stand on is read from the imports, those for types and within functions included;
what a room is, from its docstring.
"""

from __future__ import annotations

from graphlib import TopologicalSorter
from importlib import import_module
from inspect import getdoc
from itertools import pairwise
from pathlib import Path

import grimp

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"
BEGIN, END = "<!-- drawn by `make picture` -->\n", "<!-- up to here -->\n"

WAY = {
    "video": "frames and their seconds",
    "gate": "frames worth encoding",
    "models": "visual tokens and their places",
    "reduce": "fewer tokens",
    "pyramid": "keys and values of those that stay",
    "memory": "what is remembered",
    "stream": "answers",
}
"""The rooms that a frame comes through, in order, and what each hands on."""


def rooms(package: str) -> dict[str, set[str]]:
    """Which rooms each room of a package imports; whoever imports the package itself takes what that imports."""
    graph = grimp.build_graph(package, cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        imported = found.setdefault(_room(module), set())
        imported |= {_room(other) for other in graph.find_modules_directly_imported_by(module)}
    public = found.pop(package)
    return {room: (of | public if package in of else of) - {room, package} for room, of in sorted(found.items())}


def _room(module: str) -> str:
    """The room that a module is in; of the package itself, its name."""
    return [*module.split("."), ""][1] or module


def reached(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """What each room imports, and what that imports, and so on.

    Raises
    ------
    graphlib.CycleError
        If rooms import each other in a circle.
    """
    found: dict[str, set[str]] = {}
    for room in TopologicalSorter(imports).static_order():
        found[room] = imports[room].union(*(found[other] for other in imports[room]))
    return found


def sides(imports: dict[str, set[str]]) -> tuple[list[str], list[str], list[str]]:
    """The rooms on a frame's way, those that they stand on, which import none of them, and all others."""
    below = reached(imports)
    way = [room for room in WAY if room in imports]
    ground = [room for room in imports if room not in way and not below[room].intersection(way)]
    return way, ground, [room for room in imports if room not in {*way, *ground}]


def arrows(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """From each room to those that import it, but for the ground; what follows from other arrows is left out."""
    below, (_, ground, _) = reached(imports), sides(imports)
    return [
        (room, above)
        for above, taken in imports.items()
        for room in sorted(taken.difference(ground))
        if not any(room in below[between] for between in taken)
    ]


def picture(imports: dict[str, set[str]]) -> str:
    """All rooms in Mermaid, which GitHub draws: thick arrows for the way of one frame, thin ones for imports."""
    way, ground, _ = sides(imports)
    return "\n".join(
        [
            "flowchart BT",
            '    subgraph ground ["what every package may import"]',
            *(f"        {room}" for room in ground),
            "    end",
            f"    ground ~~~ {way[0]}",
            *(f"    {room} ==>|{WAY[room]}| {following}" for room, following in pairwise(way)),
            *(f"    {room} --> {above}" for room, above in arrows(imports)),
            "    classDef way fill:#cfe3ff,stroke:#1f5fbf,stroke-width:2px,color:#000",
            f"    class {','.join(way)} way",
            f"    linkStyle {','.join(map(str, range(1, len(way))))} stroke:#1f5fbf,stroke-width:4px",
        ]
    )


def table(package: str, imports: dict[str, set[str]]) -> str:
    """What each room says of itself, in the order of the way, then what is above it and what it stands on."""
    way, ground, others = sides(imports)
    lines = ["| package | what it is |", "|---|---|"]
    for room in (*way, *others, *ground):
        module = import_module(f"{package}.{room}")
        name = f"{room}/" if hasattr(module, "__path__") else f"{room}.py"
        lines.append(f"| `{name}` | {' '.join((getdoc(module) or '').split(chr(10) * 2)[0].split())} |")
    return "\n".join(lines)


def drawn(package: str) -> str:
    """The picture and the table, as they stand in CONTRIBUTING.md."""
    imports = rooms(package)
    return f"{BEGIN}\n```mermaid\n{picture(imports)}\n```\n\n{table(package, imports)}\n\n{END}"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + drawn("pdrop_video") + rest.partition(END)[2], encoding="utf-8")
