"""How far a run is: rate, time left and accuracy so far, as a bar on a terminal and as plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..stats.record import Record

LINES = 20
"""About so many plain lines a run."""


class Tally:
    """What is known of a run so far.

    Parameters
    ----------
    known : sequence of Record
        Items that were finished earlier.
    """

    def __init__(self, known: Sequence[Record] = ()) -> None:
        self._begun, self.new, self.errors, self.scored, self.right = perf_counter(), 0, 0, 0, 0.0
        for record in known:
            self._count(record)

    def add(self, record: Record) -> None:
        """Count one more."""
        self.new += 1
        self._count(record)

    def _count(self, record: Record) -> None:
        self.errors += record.error is not None
        if record.score is not None:
            self.scored += 1
            self.right += record.score

    def rate(self) -> float:
        """Items a second in this process."""
        return self.new / max(perf_counter() - self._begun, 1e-9)

    def __str__(self) -> str:
        accuracy = f"{self.right / self.scored:.1%} right" if self.scored else "nothing scored"
        errors = f", {self.errors} errors" if self.errors else ""
        return f"{accuracy}{errors}, {self.rate():.2f} items/s"


def shown(
    records: Iterator[Record], todo: int, known: Sequence[Record], label: str, console: Console
) -> Iterator[Record]:
    """The same records; each is counted when the next one is asked for, that is when it was written down.

    Parameters
    ----------
    records : iterator of Record
    todo : int
        How many will come.
    known : sequence of Record
        Items that were finished earlier.
    label : str
    console : Console
    """
    tally, total = Tally(known), todo + len(known)
    if known:
        console.print(f"{label}: {len(known)} of {total} items were finished earlier", highlight=False, markup=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[tally]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    every = max(todo // LINES, 1)
    drawn = console.is_terminal
    with Progress(*columns, console=console, disable=not drawn, refresh_per_second=2) as bar:
        row = bar.add_task(label, total=total, completed=len(known), tally="")
        for record in records:
            yield record
            tally.add(record)
            if drawn:
                bar.update(row, advance=1, tally=str(tally))
            elif tally.new % every == 0 or tally.new == todo:
                left = (todo - tally.new) / tally.rate()
                text = f"{label}: {tally.new + len(known)} of {total} items, {tally}, {left:.0f} s left"
                print(text, file=console.file, flush=True)
