"""`pdrop-video methods`: what there is in every slot."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..stream.methods import catalogue, markdown
from .console import CONSOLE, clear_errors

EXAMPLES = """
[bold]Examples[/bold]

  pdrop-video methods

  pdrop-video methods --json
"""


def methods(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list and nothing else.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
) -> None:
    """List every method by slot: its paper, what it needs, and what a stream carries for it."""
    with clear_errors():
        listed = catalogue()
    if as_json:
        typer.echo(json.dumps([each.as_dict() for each in listed]))
        return
    if as_markdown:
        typer.echo(markdown(listed), nl=False)
        return
    table = Table("slot", "name", "what stays", "paper", "needs", "carries")
    before = ""
    for each in listed:
        if before and each.slot != before:
            table.add_section()
        name, facts = each.slot if each.slot != before else "", each.facts
        table.add_row(*map(escape, (name, each.name, facts.says, each.source, each.needed, facts.carries)))
        before = each.slot
    CONSOLE.print(table)
