"""Options that several commands have. Knows their words; refuses to know what is done with them."""

from __future__ import annotations

from typing import Annotated

import typer

from ..gate import GATES
from ..reduce import REDUCERS

Model = Annotated[str | None, typer.Option(help="Folder or name on the hub; left out: the built-in model.")]
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
