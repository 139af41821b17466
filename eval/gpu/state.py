"""What is done, on disk: a folder with one JSON file for each part, written whole or not at all.

Knows files. Refuses to know what is measured, and needs nothing but Python.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]
"""Plain values by name."""

DONE, BEGUN, ENDED, FELL = "done", "begun", "ended at its limit", "fell"
"""What can have become of a part: all its cases are through; some are; its time was up; its process came to an end."""


class Folder:
    """The folder of one check.

    Parameters
    ----------
    path : Path
        Made if need be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.path.mkdir(parents=True, exist_ok=True)

    def read(self, part: str) -> dict[str, Any]:
        """What is known of a part; nothing of one that was not begun, or whose file is none."""
        try:
            known = json.loads((self.path / f"{part}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return known if isinstance(known, dict) else {}

    def write(self, part: str, known: dict[str, Any]) -> None:
        """Replace what is known of a part."""
        self.put(f"{part}.json", json.dumps(known, indent=1) + "\n")

    def put(self, name: str, text: str) -> None:
        """Write a file, whole or not at all."""
        made = self.path / f".{name}.{os.getpid()}"
        made.write_text(text, encoding="utf-8")
        os.replace(made, self.path / name)

    def forget(self, part: str) -> None:
        """Let a part be done again from its beginning."""
        (self.path / f"{part}.json").unlink(missing_ok=True)

    def done(self, part: str, how: str) -> bool:
        """Whether all cases of a part are through, on that device and in that size."""
        known = self.read(part)
        return known.get("state") == DONE and known.get("how") == how


def in_words(device: str, small: bool) -> str:
    """What a part was done on, and how much of it: of what was done otherwise nothing counts."""
    return f"{device}, {'small' if small else 'full'}"
