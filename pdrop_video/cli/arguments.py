"""Options that several commands have. Knows their words; refuses to know what is done with them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..gate import GATES
from ..reduce import REDUCERS

Model = Annotated[str | None, typer.Option(help="Folder or name on the hub; left out: the built-in model.")]
OrBuiltIn = Annotated[
    bool,
    typer.Option("--or-built-in", help="Where the hub does not answer, go on with the built-in model, and say so."),
]
Fps = Annotated[float | None, typer.Option(help="Frames per second to watch; left out: the model's own.")]
Chunk = Annotated[int, typer.Option(help="Frames per push.", min=1)]
Start = Annotated[float | None, typer.Option(help="Watch from this second on.", min=0)]
End = Annotated[float | None, typer.Option(help="Stop watching at this second.", min=0)]
Device = Annotated[str | None, typer.Option(help="For example cuda or cpu; left out: the best there is.")]
Dtype = Annotated[
    str,
    typer.Option(help="For example bfloat16; auto: the checkpoint's own, or float32 on a CPU that is slower in it."),
]
Ratios = Annotated[
    str | None,
    typer.Option(
        help="Share of visual tokens left after each boundary, as 0.5,0.25,0.125; 'none' drops nothing; "
        "or a .json file that search wrote."
    ),
]
RecipeFile = Annotated[
    str | None,
    typer.Option(
        "--recipe", help="A .yaml or .json file that says gate, reducer, ratios, memory and all methods at once."
    ),
]
Gate = Annotated[
    str | None,
    typer.Option(help=f"Which frames are encoded: {', '.join(GATES)}, as static:threshold=5; left out: all."),
]
Reducer = Annotated[
    str | None,
    typer.Option(help=f"Which visual tokens enter: {', '.join(REDUCERS)}, as evs:keep=0.25; left out: all."),
]


Parts = Annotated[
    list[str] | None,
    typer.Option(
        "--part",
        help="A trained part that methods may use: a name that ships with the built-in model, a file, NAME=FILE, or a "
        "folder; may be repeated.",
    ),
]


def _away(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel="Addresses and cameras")


Timeout = Annotated[float, _away("Seconds to wait for the source to open, and for each packet of it.")]
Retries = Annotated[int, _away("Attempts to make a lost connection again.")]
Policy = Annotated[str | None, _away("If frames come too fast: block, or latest to drop the oldest; left out: latest.")]
Protocols = Annotated[
    str | None, _away("What may read the source and all that it names, as file,http,tcp; left out: what it needs.")
]
AllowPrivate = Annotated[
    bool, typer.Option("--allow-private", help="Open addresses on private networks, this machine's included.")
]
AllowDevices = Annotated[
    bool, typer.Option("--allow-devices", help="Open this machine's cameras, such as /dev/video0.")
]
