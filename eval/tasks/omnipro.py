"""OmniPro (arXiv 2605.18577), online: a model watches and says by itself when something is to be said, and what.

Once a second it is given its instruction, what it said so far and the clock, and may answer with nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from ..stats.record import Record, Turn
from .base import Ask, Dialogue, Item, Mark, Task
from .rows import Clock, Label, Row, Seconds, Text, load_rows, seconds_of, unique
from .spoken import Said, f1, joined, matched

TOLERANCE = 3.0
"""Seconds between what is due and what is said."""
GAP = 2.0
"""What follows within so many seconds goes on with what was said."""
_HOW = 'download the dataset "RuixiangZhao/OmniPro" of the hub, with benchmark.json and raw_videos/'
_REGIONS = [f"{row}-{column}" for row in ("top", "center", "bottom") for column in ("left", "center", "right")]
_REGIONS[4] = "center"
_COUNTS = ("snapshot_counting", "cumulative_counting", "dedup_counting")
_TIME_ONLY = ("instant_event_alert", "semantic_condition_alert")
JUDGED = ("event_narration", "sequential_step_instruction")
"""Kinds whose content only a judge can tell."""

# Word for word the benchmark's own.
_WATCH = 'Watch this live video stream. The user asked:\n  "{question}"\n\n'
_INSTRUCTIONS = {
    "instant_event_alert": (
        'Watch this live video stream and monitor for the event described below. The user asked:\n  "{question}"\n\n'
        "Rules:\n- If the event is NOT happening right now, stay completely silent (output nothing).\n"
        "- If the event has just occurred, briefly describe what happened in one sentence.\n"
        "- Do NOT repeat yourself: once you have alerted for an occurrence, do NOT alert again for the SAME "
        "occurrence. Only alert again if a NEW, separate occurrence happens later."
    ),
    "semantic_condition_alert": (
        "Watch this live video stream and monitor for the semantic condition described below. The user asked:\n"
        '  "{question}"\n\nRules:\n- If the condition is not currently satisfied, stay silent.\n'
        "- When the condition becomes satisfied, briefly describe what made the condition hold in one sentence.\n"
        "- Do NOT repeat yourself: only alert again if the condition becomes satisfied again later in a distinct "
        "moment."
    ),
    "event_narration": (
        f"{_WATCH}Rules:\n- When a noteworthy event occurs, briefly describe what just happened in one sentence.\n"
        "- Otherwise, stay silent.\n- Do NOT repeat yourself: only narrate when something substantially new happens."
    ),
    "sequential_step_instruction": (
        f"{_WATCH}Rules:\n- When a new step begins or is about to begin, describe the step in one sentence.\n"
        "- Otherwise, stay silent.\n- Do NOT repeat yourself: announce a step only once when it begins."
    ),
    "explicit_target_grounding": (
        f"{_WATCH}Rules:\n- If the target event has NOT just occurred, stay silent.\n"
        "- When the target event occurs, output in this format:\n    <brief description>. Position: <region>\n"
        "  where <region> is EXACTLY one of:\n    top-left | top-center | top-right\n"
        "    center-left | center | center-right\n    bottom-left | bottom-center | bottom-right\n"
        "- Do NOT repeat yourself."
    ),
    "snapshot_counting": (
        f"{_WATCH}Rules:\n- If the trigger condition has NOT yet occurred, stay silent.\n"
        "- When the trigger condition occurs, output ONLY the count as a single integer (e.g. 5). No other text.\n"
        "- Do NOT repeat yourself."
    ),
    "cumulative_counting": (
        f"{_WATCH}Rules:\n- When you see a NEW occurrence that increments the cumulative count, output ONLY the "
        "updated total as a single integer (e.g. 3). No other text.\n- Otherwise, stay silent.\n"
        "- Do NOT repeat yourself: emit only once per new occurrence."
    ),
    "dedup_counting": (
        f"{_WATCH}Rules:\n- When a NEW, previously-unseen instance appears, output ONLY the updated distinct count as "
        "a single integer (e.g. 2). No other text.\n- Otherwise, stay silent.\n"
        "- Do NOT repeat yourself: re-appearances do NOT count."
    ),
    "realtime_state_monitor": (
        f"{_WATCH}Possible states:\n{{states}}\n\nRules:\n- When the monitored state CHANGES, output ONLY the new "
        "state name from the list above. No other text.\n- Otherwise, stay silent.\n"
        "- Do NOT repeat yourself: only emit when the state actually changes."
    ),
}


class Trigger(Row):
    """A moment at which something is to be said."""

    trigger_time: Clock | None = None
    trigger_time_sec: Seconds | None = None
    position: str | None = None
    count: int | None = None
    state_from: str | None = None
    state_to: str | None = None
    state: str | None = None

    @model_validator(mode="after")
    def _timed(self) -> Trigger:
        if self.trigger_time is None and self.trigger_time_sec is None:
            raise ValueError("expected trigger_time or trigger_time_sec")
        return self

    @property
    def at(self) -> float:
        """Its second."""
        return seconds_of(self.trigger_time or "") if self.trigger_time_sec is None else self.trigger_time_sec


class Sample(Row):
    """An instruction about a video."""

    id: Text
    task: str
    video_path: Text
    video_id: Label = ""
    question: Text
    duration: Seconds
    question_time: Clock = "00:00"
    audio_dependency: Label = ""
    ground_truth: list[Trigger] = Field(default_factory=list)

    @model_validator(mode="after")
    def _known(self) -> Sample:
        if self.task not in _INSTRUCTIONS:
            raise ValueError(f"there is no task {self.task!r}; expected one of {', '.join(_INSTRUCTIONS)}")
        if seconds_of(self.question_time) > self.duration:
            raise ValueError(f"it is asked at {self.question_time}, behind its video's end at {self.duration:g} s")
        return self


class OmniPro(Task):
    """The online mode: ``benchmark.json`` and ``raw_videos/``. Without sound: about five of six samples need it."""

    note: ClassVar[str] = (
        f"Time F1 within {TOLERANCE:g} s, and joint F1 where content can be told without a judge. Accuracy is the mean "
        "time F1 of a sample. Nothing is heard here, and most samples need sound."
    )
    official: ClassVar[str | None] = "overall time F1"
    tables: ClassVar[bool] = False

    def items(self) -> list[Item]:
        """All samples, in the order of the file."""
        path = self.data / "benchmark.json"
        return unique([self._item(row) for row in load_rows(path, list[Sample], _HOW)], path)

    def _item(self, row: Sample) -> Item:
        begun = seconds_of(row.question_time)
        there = self.data / row.video_path
        return Item(
            id=row.id,
            video=row.video_id or Path(row.video_path).stem,
            path=there if there.exists() else self.data / "raw_videos" / Path(row.video_path).name,
            question=row.question,
            answer="; ".join(f"{trigger.at:g} s" for trigger in row.ground_truth),
            category={"task": row.task, **({"audio": row.audio_dependency} if row.audio_dependency else {})},
            start=float(round(begun)),
            end=float(round(row.duration)),
            first=float(round(begun)),
            extra={"row": row},
        )

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """What the model is told in the first second."""
        return Ask(_told(item.extra["row"], item.start, ()), at=item.start, max_new_tokens=64)

    def dialogue(self, item: Item, seconds: Sequence[float]) -> Dialogue:
        """Once a second, the last one included; an empty answer is silence."""
        assert item.end is not None
        said: list[Said] = []
        for second in range(int(item.start), int(item.end) + 1):
            text = yield Ask(_told(item.extra["row"], second, said), at=float(second), max_new_tokens=64)
            if text.strip():
                said.append(Said(float(second), text))
        return _lines(said)

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """When it spoke, and what it said; the item's score is the F1 of its times."""
        row: Sample = item.extra["row"]
        said = _said(turns)
        due = [trigger.at for trigger in row.ground_truth]
        pairs = matched([one.at for one in said], due, TOLERANCE)
        counts = {"said": float(len(said)), "due": float(len(due)), "in time": float(len(pairs))}
        if row.task not in JUDGED:
            counts["right"] = float(sum(_right(row, said[i], row.ground_truth[j]) for i, j in pairs))
        score = f1(len(pairs), len(said), len(due))
        return Mark(response or None, response or None, score, score, counts)

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """Time F1 and joint F1 over all of a kind, and over everything."""
        done = [record for record in records if "due" in record.details]
        kinds = {kind: [r for r in done if r.category["task"] == kind] for kind in _INSTRUCTIONS}
        found: dict[str, float] = {}
        for name, of in [*kinds.items(), ("overall", done)]:
            total = {key: sum(r.details.get(key, 0.0) for r in of) for key in ("said", "due", "in time", "right")}
            if of:
                found[f"{name} time F1"] = f1(total["in time"], total["said"], total["due"])
            if of and all("right" in record.details for record in of):
                found[f"{name} joint F1"] = f1(total["right"], total["said"], total["due"])
        return found

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """``omnipro/{task}.jsonl``, which the benchmark's own scripts score, with a judge where they want one."""
        rows = {row["id"]: row for row in load_rows(self.data / "benchmark.json", list[dict[str, Any]], _HOW)}
        lines: dict[str, list[str]] = {}
        for record in records:
            if record.error is None:
                row = rows[record.item]
                entry = {
                    **{name: row.get(name) for name in ("id", "task", "video_id", "question", "ground_truth")},
                    "predictions": [{"t_sec": one.at, "raw": one.text} for one in _said(record.turns)],
                    "eval_mode": "online",
                }
                lines.setdefault(row["task"], []).append(json.dumps(entry, ensure_ascii=False) + "\n")
        written = []
        for kind, entries in lines.items():
            path = folder / "omnipro" / f"{kind}.jsonl"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(entries), encoding="utf-8")
            written.append(path)
        return written


def _told(row: Sample, second: float, said: Sequence[Said]) -> str:
    """The prompt of one second."""
    states = sorted({state for t in row.ground_truth for state in (t.state_from, t.state_to) if state})
    listed = "\n".join(f"  - {state}" for state in states)
    instruction = _INSTRUCTIONS[row.task].replace("{states}", listed).replace("{question}", row.question)
    return (
        f"{instruction}\n\nYour previous responses so far:\n{_lines(said) or '(none)'}\n\nCurrent clock: "
        f"{_clock(second)}. What is your output at this moment? (Remember: empty = stay silent.)"
    )


def _lines(said: Sequence[Said]) -> str:
    return "\n".join(f"[{_clock(one.at)}] {one.text.strip()}" for one in said)


def _clock(second: float) -> str:
    return f"{int(second) // 60:02d}:{int(second) % 60:02d}"


def _said(turns: Sequence[Turn]) -> list[Said]:
    return joined([Said(turn.at, turn.text) for turn in turns if turn.text.strip()], GAP)


def _right(row: Sample, said: Said, trigger: Trigger) -> bool:
    """Whether the content of something said in time is right, by the benchmark's rule for its kind."""
    if row.task in _TIME_ONLY:
        return True
    if row.task == "explicit_target_grounding":
        region = _region(said.text)
        return region is not None and region == (trigger.position or "").lower().strip()
    if row.task in _COUNTS:
        number = re.search(r"-?\d+", re.sub(r"\b\d{1,2}:\d{2}(?::\d{2})?\b", " ", said.text.strip()))
        due = trigger.count if row.task == "snapshot_counting" else _count_at(row, said.at)
        return number is not None and due is not None and int(number.group()) == due
    state = (trigger.state_to or trigger.state or "").lower().strip()
    return bool(state) and said.text.strip().strip("'\"").lower().strip() == state


def _region(text: str) -> str | None:
    """The region that is named as such, or else the longest one in the text."""
    named = re.search(r"position\s*:\s*([\w\-]+)", text.lower())
    if named and named.group(1) in _REGIONS:
        return named.group(1)
    return next((region for region in sorted(_REGIONS, key=len, reverse=True) if region in text.lower()), None)


def _count_at(row: Sample, second: float) -> int | None:
    """The count that holds at a moment: of the last trigger until then that says one, be it null."""
    told = sorted((t for t in row.ground_truth if "count" in t.model_fields_set), key=lambda t: t.at)
    until = [trigger.count for trigger in told if trigger.at <= second + 1e-6]
    return until[-1] if until else None
