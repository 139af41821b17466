"""What a run writes down: one record a finished item, and one header for the run. Plain data, and how it is read back.

Refuses to know models, tasks and how items are scheduled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pdrop_video as pv
from pdrop_video.common.journal import read_journal

HEADER = "run.json"
JOURNALS = "records*.jsonl"


def digest(*parts: Any) -> str:
    """Name JSON-ready values by 16 hexadecimal digits, the same on every machine and in every process."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Turn:
    """One question to the model while an item was worked on.

    Attributes
    ----------
    at : float
        Second of the video up to which frames had been watched.
    text : str
        What the model said, an answer prefix left out; with likelihoods, the text that stands for the best option.
    likelihoods : tuple of float or None
        Length-normalised log-likelihood of each option, where answers are read that way.
    """

    at: float
    text: str
    likelihoods: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """A step of time as the deepest stage of the model had it when an item was asked.

    Attributes
    ----------
    seconds : float
    tokens : int
        Visual tokens of it that the question attended to.
    weight : float or None
        How much of the question's attention went to them; None where answers are compared by likelihood.
    grid : (int, int) or None
        Rows and columns of a picture in visual tokens.
    places : str
        Which of them were remembered: a bit each, row by row, as hexadecimal digits; empty where that is not known.
    """

    seconds: float
    tokens: int
    weight: float | None = None
    grid: tuple[int, int] | None = None
    places: str = ""

    @staticmethod
    def packed(grid: tuple[int, int], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> str:
        """Places as text; those outside the grid are left out."""
        kept = np.zeros(grid, bool)
        inside = (rows < grid[0]) & (columns < grid[1])
        kept[rows[inside], columns[inside]] = True
        return np.packbits(kept).tobytes().hex()

    @property
    def kept(self) -> NDArray[np.bool_] | None:
        """Which places [rows, columns] were remembered; None where that is not known."""
        if self.grid is None or not self.places:
            return None
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(self.places), np.uint8), count=self.grid[0] * self.grid[1])
        return bits.astype(bool).reshape(self.grid)

    @classmethod
    def of_json(cls, entry: dict[str, Any]) -> Moment:
        """From an object of its fields."""
        grid = entry.get("grid")
        return cls(**{**entry, "grid": None if grid is None else tuple(grid)})


@dataclass(frozen=True, slots=True)
class Record:
    """One finished item.

    Attributes
    ----------
    key : str
        `digest` of item and configuration: what resuming goes by.
    item, video, task, config : str
        Names of the item and its video, the task, and the digest of the configuration.
    category : dict
        Field to value (or list of values), for the tables.
    question : str
    options : list of str
    answer : str or int or None
        The truth; None where the benchmark withholds it.
    response : str or None
        What the model said, raw; None if an error came before.
    official, strict : str or None
        The prediction as the benchmark's own scorer reads it, and as this project reads it; None if nothing could be.
    official_score, score : float or None
        By those two readings, from 0 to 1; None if there is no truth to compare with. An unread answer scores 0.
    details : dict
        Further scores of the task's own.
    turns : list of Turn
        Every question asked, in order.
    at : float
        Second of the video up to which it was watched.
    frames, visual_tokens : int
        Watched, and entered into the language model.
    kept : list of int
        Visual tokens remembered in each stage, shallow to deep.
    cache_bytes : int
        Bytes of the keys and values remembered.
    archive_bytes : int
        Bytes archived on the host.
    seconds : dict
        Wall-clock time by part: "decode" (video), "prefill" (pushing frames; shared by the items of one pass, and
        counted whole in each), "first_token" and "generate".
    spent : dict
        Wall-clock time of the process since its previous record by part: "decode", "model", and "runner" for everything
        else, writing the previous record included. These add up over a run.
    flops : float
        Analytic FLOPs of the language model, watching and answering, as if the item were alone.
    tower_flops : float or None
        Those of the vision tower; None where the family does not say, and in runs from before it was counted.
    front_flops : float
        Those of the gate before it and the reducer behind it.
    shared : int
        How many items shared the pass over the video.
    warnings : list of str
        What was wrong with the video's file as far as it was watched, one sentence each: part of it could not be read.
    moments : list of Moment
        Some of what was remembered when the last question was put, in the order of time.
    error : str or None
        Why there is no response.
    """

    key: str
    item: str
    video: str
    task: str
    config: str
    category: dict[str, Any]
    question: str
    options: list[str]
    answer: str | int | None
    response: str | None = None
    official: str | None = None
    strict: str | None = None
    official_score: float | None = None
    score: float | None = None
    details: dict[str, float] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    at: float = 0.0
    frames: int = 0
    visual_tokens: int = 0
    kept: list[int] = field(default_factory=list)
    cache_bytes: int = 0
    archive_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0
    tower_flops: float | None = None
    front_flops: float = 0.0
    shared: int = 1
    warnings: list[str] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    error: str | None = None

    @property
    def correct(self) -> bool:
        """Whether the project's own reading gives the full score."""
        return self.score is not None and self.score >= 1

    @property
    def answered(self) -> bool:
        """Whether an answer could be read."""
        return self.strict is not None

    def to_json(self) -> dict[str, Any]:
        """As a JSON-ready object."""
        turns = [{"at": turn.at, "text": turn.text, "likelihoods": turn.likelihoods} for turn in self.turns]
        moments = [asdict(moment) for moment in self.moments]
        return {**{name: getattr(self, name) for name in Record.__slots__}, "turns": turns, "moments": moments}

    @classmethod
    def of_json(cls, entry: dict[str, Any]) -> Record:
        """From what `to_json` gave; fields that a newer version added are left out."""
        known = {f.name: entry[f.name] for f in fields(cls) if f.name in entry}
        turns = [Turn(t["at"], t["text"], _floats(t.get("likelihoods"))) for t in entry.get("turns", ())]
        moments = [Moment.of_json(m) for m in entry.get("moments", ())]
        return cls(**{**known, "turns": turns, "moments": moments})


def _floats(values: Iterable[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


@dataclass(frozen=True, slots=True)
class Run:
    """A run's folder, read back.

    Attributes
    ----------
    folder : Path
    header : dict
        Task, model, revision, recipe as `pdrop_video.Recipe.as_dict` gives it, configuration and its digest, git
        commit, package versions, seed.
    records : list of Record
        In the order of their items' names; the last record of an item that was tried again.
    """

    folder: Path
    header: dict[str, Any]
    records: list[Record]


def read_records(folder: Path) -> dict[str, Record]:
    """All finished items of a folder by their keys, whoever wrote them; a line torn by a crash is left out."""
    records: dict[str, Record] = {}
    for path in sorted(folder.glob(JOURNALS)):
        for entry in read_journal(path):
            try:
                record = Record.of_json(entry)
            except (TypeError, KeyError, AttributeError) as error:
                raise pv.ConfigError(
                    f"{path} has a line that is no record of eval.run ({error}); remove the line and its item is done "
                    "again."
                ) from error
            earlier = records.get(record.key)
            if earlier is None or earlier.error is not None:  # an error that was tried again gives way
                records[record.key] = record
    return records


def read_run(folder: Path) -> Run:
    """Read a run's header and its records.

    Raises
    ------
    ConfigError
        If the folder holds no run, or its header can't be read.
    """
    if not (folder / HEADER).is_file():
        raise pv.ConfigError(f"{folder} holds no {HEADER}; expected the --out folder of a run of eval.run.")
    header = read_header(folder / HEADER)
    records = [r for r in read_records(folder).values() if r.config == header["config_digest"]]
    return Run(folder, header, sorted(records, key=lambda r: r.item))


def writable(folder: Path) -> Path:
    """The same folder, made if need be; `ConfigError` if it can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise pv.ConfigError(f"{folder} can't be written ({error.strerror}); choose another --out.") from error
    return folder


def read_header(path: Path) -> dict[str, Any]:
    """Read a run's header; `ConfigError` if the file holds none."""
    try:
        header: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        header["config_digest"]
    except (ValueError, TypeError, KeyError) as error:
        raise pv.ConfigError(
            f"{path} is damaged; expected the header that eval.run wrote. Remove it: the run's command makes a new one."
        ) from error
    return header
