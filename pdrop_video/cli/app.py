"""The command line: ask, calibrate, demo, eval, families, info, methods, search, serve, train-part, watch.

All else is the library's, the page's and the evaluation's.
"""

from __future__ import annotations

from typing import Annotated

import typer

import pdrop_video as pv

from . import beside
from .ask import EXAMPLES as ASKING
from .ask import ask
from .calibrate import app as calibrate
from .families import EXAMPLES as SERVING
from .families import families
from .info import EXAMPLES as INFORMING
from .info import info
from .methods import EXAMPLES as LISTING
from .methods import methods
from .search import EXAMPLES as SEARCHING
from .search import search
from .serve import EXAMPLES as HOSTING
from .serve import serve
from .training import EXAMPLES as TRAINING
from .training import train_part
from .watch import EXAMPLES as WATCHING
from .watch import watch

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    help="Let a video-LLM watch a video in chunks, drop visual tokens stage by stage, and answer questions about it.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(pv.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


app.command(epilog=ASKING)(ask)
app.add_typer(calibrate, name="calibrate")
beside.add(app)
app.command(epilog=SERVING)(families)
app.command(epilog=INFORMING)(info)
app.command(epilog=LISTING)(methods)
app.command(epilog=SEARCHING)(search)
app.command(epilog=HOSTING)(serve)
app.command("train-part", epilog=TRAINING)(train_part)
app.command(epilog=WATCHING)(watch)
