"""The training log: one line per measurement, printed and appended to a CSV file."""

from __future__ import annotations

from pathlib import Path


class Log:
    """Writes `stage,step,seconds,values` lines; `values` is `name=number` pairs separated by blanks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text("stage,step,seconds,values\n")

    def write(self, stage: str, step: int, seconds: float, **values: float) -> None:
        """Add one line; `seconds` is the wall time since this stage was started or resumed."""
        text = " ".join(f"{name}={value:.4g}" for name, value in values.items())
        line = f"{stage},{step},{seconds:.1f},{text}"
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")
