"""What is fetched from the hub, its size and its licence, said before it begins; a bar while it comes.

Knows words and a bar. Refuses to answer with another model than was asked for, unless that was asked for, too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from huggingface_hub import constants
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ..models.hub import Missing, Unreachable, missing
from . import console


@dataclass(frozen=True, slots=True)
class Announced:
    """A model of which is known what it takes to have it.

    Attributes
    ----------
    model : str or None
        The one to be loaded; None for the built-in model.
    missing : Missing or None
        What has to be fetched for it.
    """

    model: str | None
    missing: Missing | None = None

    def fetch(self) -> str | None:
        """Fetch what is missing; the model again, for `load`."""
        if self.missing is not None:
            _fetch(self.missing)
        return self.model


def announced(model: str | None, or_built_in: bool = False, revision: str | None = None) -> Announced:
    """Say what will be fetched for a model, if anything.

    Parameters
    ----------
    model : str or None
    or_built_in : bool
        Where the hub does not answer, take the built-in model, and say so.
    revision : str, optional
        Of the model.

    Raises
    ------
    ModelError
        If the model can't be had.
    """
    try:
        found = looked_up(model, revision)
    except Unreachable as error:
        if not or_built_in:
            raise
        console.ERRORS.print(
            f"[yellow]warning:[/yellow] {escape(str(error).partition(':')[0])}, as the hub does not answer; the "
            "built-in model goes on in its place, which knows the example clip and others of its kind, and guesses "
            "about all else.",
            highlight=False,
            soft_wrap=True,
        )
        return Announced(None)
    if found is not None:
        console.ERRORS.print(escape(f"{model} will be fetched: {said(found)}."), highlight=False, soft_wrap=True)
    return Announced(model, found)


def looked_up(model: str | None, revision: str | None = None) -> Missing | None:
    """What has to be fetched for a model.

    Where the hub does not answer and the cache is enough, nobody in this process asks the hub again: its client would
    try several times for each file, for minutes.

    Raises
    ------
    ModelError
        If the model can't be had.
    """
    if model is None:
        return None
    try:
        return missing(model, revision)
    except Unreachable as error:
        if not error.cached:
            said = f"{error} Or leave --model out: the built-in model needs no network."
            raise Unreachable(said, cached=False) from error
        constants.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"  # for processes that this one starts
        return None


def said(found: Missing) -> str:
    """Size and licence."""
    files = f"{len(found.files)} files" if len(found.files) > 1 else "1 file"
    return f"{size(found.bytes)} in {files}, licence {found.licence or 'not named on its card'}; once, then cached"


def size(number: int) -> str:
    """Bytes for people, as the hub writes them: in powers of 1,000."""
    amount, unit = float(number), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.3g} {unit}"


def _fetch(found: Missing) -> None:
    if not console.ERRORS.is_terminal:
        found.fetch(lambda _: None)
        console.ERRORS.print(escape(f"{found.name} was fetched."), highlight=False, soft_wrap=True)
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console.ERRORS, transient=True) as bar:
        task = bar.add_task(escape(f"fetching {found.name}"), total=found.bytes)
        found.fetch(lambda count: bar.advance(task, count))
