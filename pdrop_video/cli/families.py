"""`pdrop-video families`: which video models of the installed transformers are served, and how."""

from __future__ import annotations

import json
from typing import Annotated

import transformers
import typer
from rich.markup import escape
from rich.table import Table

from ..models.families import catalogue, markdown
from .console import CONSOLE, clear_errors

EXAMPLES = """
[bold]Examples[/bold]

  pdrop-video families

  pdrop-video families --json
"""


def families(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list and nothing else.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a table in Markdown.")] = False,
) -> None:
    """List every type of video models in transformers: how it is served, or why not. Reads no weights."""
    with clear_errors():
        listed = catalogue()
    if as_json:
        typer.echo(json.dumps([each.as_dict() for each in listed]))
        return
    if as_markdown:
        typer.echo(markdown({transformers.__version__: listed}), nl=False)
        return
    table = Table("model type", "served", "layers", "positions", "sound", "why")
    for each in listed:
        table.add_row(*map(escape, each.cells))
    CONSOLE.print(table)
