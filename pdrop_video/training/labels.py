"""Labels of lines that a trainer makes once, kept in a journal, so that what was stopped goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ..common.journal import Journal, read_journal
from ..errors import ConfigError
from .lines import Line


class Labels:
    """What was found for each line, known by its video's name and its question; open for writing inside `with`.

    Parameters
    ----------
    path : Path
        The journal; its first entry holds the settings.
    settings : mapping
        The trainer's.

    Raises
    ------
    ConfigError
        If the journal holds labels of other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        entries = list(read_journal(path)) if path.is_file() else []
        if entries and entries[0].get("settings") != settings:
            raise ConfigError(f"{path} holds labels of other settings; give another --work, or the same settings.")
        self._path, self._settings, self._begun = path, settings, bool(entries)
        self._found = {(entry["video"], entry["question"]): entry for entry in entries[1:]}

    def __enter__(self) -> Labels:
        self._journal = Journal(self._path).__enter__()
        if not self._begun:
            self._journal.append({"settings": self._settings})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.__exit__(kind, error, trace)

    def __contains__(self, line: Line) -> bool:
        return key_of(line) in self._found

    def __getitem__(self, line: Line) -> Mapping[str, Any]:
        return self._found[key_of(line)]

    def add(self, line: Line, **found: Any) -> None:
        """Write down what was found for a line."""
        video, question = key_of(line)
        entry = {"video": video, "question": question, **found}
        self._journal.append(entry)
        self._found[video, question] = entry


def key_of(line: Line) -> tuple[str, str]:
    """By what labels know a line."""
    return Path(line.video).name, line.question
