"""`python -m eval.tables NAME`."""

import typer

from . import main

if __name__ == "__main__":
    typer.run(main)
