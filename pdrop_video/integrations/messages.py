"""From a harness's visuals and chat messages to one question about one video. Refuses to know models and files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ConfigError
from .answering import Asked


def asked_about(visuals: Sequence[Any] | None, text: str) -> Asked:
    """A question from what lmms-eval calls visuals, and its text.

    Parameters
    ----------
    visuals : sequence
        One video: a path, or a dict of "url" or "path" with, perhaps, "video_start" and "video_end" in seconds.
    text : str

    Raises
    ------
    ConfigError
        If there is anything but one video.
    """
    return _asked(list(visuals or ()), text)


def asked_in(messages: Sequence[Any]) -> Asked:
    """A question from chat messages: at most a system turn, one user turn, at most the beginning of the answer.

    Texts of the user's turn are joined by line breaks and stand behind the video, wherever they stood.

    Parameters
    ----------
    messages : sequence of dict
        Each of "role" and "content", which is text or a list of parts {"type": "text", "text": ...} and {"type":
        "video", "url": ..., "start_time": ..., "end_time": ...}.

    Raises
    ------
    ConfigError
        If there are other turns, or anything but one video.
    """
    roles = [message["role"] for message in messages]
    if [role for role in roles if role != "system"] not in (["user"], ["user", "assistant"]) or "system" in roles[1:]:
        raise ConfigError(
            f"the conversation has the turns {', '.join(roles)}; expected one question: perhaps system, then user, "
            "then perhaps the beginning of the assistant's answer."
        )
    parts = {message["role"]: _parts(message["content"]) for message in messages}
    texts = {role: "\n".join(part["text"] for part in of if part["type"] == "text") for role, of in parts.items()}
    visuals = [part for role in roles for part in parts[role] if part["type"] != "text"]
    return _asked(visuals, texts["user"], texts.get("system") or None, texts.get("assistant", ""))


def _parts(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _asked(visuals: list[Any], text: str, system: str | None = None, prefix: str = "") -> Asked:
    if len(visuals) != 1 or not (where := _place(visuals[0])):
        raise ConfigError(
            f"the question {text[:60]!r} came with {_named(visuals)}; expected one video file. Images, audio and "
            "several videos can't be watched as one stream."
        )
    video, start, end = where
    return Asked(video, text, start, end, system, prefix)


def _place(visual: Any) -> tuple[str, float | None, float | None] | None:
    """Path, start and end of a video; None for anything else."""
    if isinstance(visual, str):
        return visual, None, None
    if not isinstance(visual, dict) or visual.get("type", "video") != "video":
        return None
    inner = visual.get("url") or visual.get("path") or visual.get("video")
    if isinstance(inner, dict):  # a part of a message that holds a visual with its own times
        return _place({"start_time": visual.get("start_time"), "end_time": visual.get("end_time"), **inner})
    if not isinstance(inner, str):
        return None
    return inner, _second(visual, "start"), _second(visual, "end")


def _second(visual: dict[str, Any], name: str) -> float | None:
    value = visual.get(f"{name}_time", visual.get(f"video_{name}"))
    value = visual.get(f"video_{name}") if value is None else value
    return None if value is None else float(value)


def _named(visuals: list[Any]) -> str:
    if not visuals:
        return "no video"
    return ", ".join(str(v.get("type", "a dict")) if isinstance(v, dict) else type(v).__name__ for v in visuals)
