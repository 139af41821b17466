"""`python -m pdrop_video.train_part NAME --data D --out DIR --work DIR`: the command of that name by itself."""

from __future__ import annotations

import typer

from .cli.training import EXAMPLES, train_part

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_show_locals=False)
app.command(epilog=EXAMPLES)(train_part)

if __name__ == "__main__":
    app()
