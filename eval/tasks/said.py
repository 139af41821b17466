"""From a raw response to plain text: thoughts, markup, LaTeX, tags and JSON are taken off; what was said stays.

Knows how models dress an answer up. Refuses to know options.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

_THOUGHT_ENDS = re.compile(r"</think(?:ing)?>|\[/think\]|◁/think▷", re.IGNORECASE)
_THOUGHT_BEGINS = re.compile(r"<think(?:ing)?>|\[think\]|◁think▷", re.IGNORECASE)
_NEXT_TURN = re.compile(r"\n[ \t]*(?:question|user|human|q)[ \t]*:", re.IGNORECASE)
_ANSWER_FRAME = re.compile(r"\\(?:boxed|fbox)\s*\{|<\s*(?:final[_ ]?)?answer\s*>", re.IGNORECASE)
_TAG = re.compile(r"<\|[^|<>]{0,40}\|>|</?[a-z][a-z0-9_]{1,20}\s*/?>|</?s>", re.IGNORECASE)
_BOLD = re.compile(r"<([biup])>([^<>]*)</\1>")
_LATEX = re.compile(r"\\[a-zA-Z]+|\\[()\[\],;! ]|\$")
_QUOTED_LETTER = re.compile(r"(?<!\w)'([A-Za-z])'(?!\w)")
_FENCE = re.compile(r"^```[a-z]*|```$", re.IGNORECASE)
_KEYS = ("final_answer", "finalanswer", "final answer", "answer", "correct_answer", "choice", "option", "letter")
_AS_PLAIN = str.maketrans(
    {
        **dict.fromkeys('*`"“”„«»「」『』#~', ""),
        "_": " ",
        "【": "[",
        "】": "]",
        "’": "'",
        "‘": "'",
        "。": ". ",
        "、": ", ",
    }
)


def flat(text: str) -> str:
    """Characters in their plain forms, without markup and without those that nobody sees."""
    kept = (c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) not in ("Cf", "Co", "Cs", "Cn"))
    return "".join(kept).translate(_AS_PLAIN)


def without_thoughts(response: str) -> str:
    """What a response says behind its thoughts; nothing where they don't end."""
    return _THOUGHT_BEGINS.split(_THOUGHT_ENDS.split(response)[-1])[0]


def plain(response: str) -> str:
    """What a response says, as plain text; nothing where its thoughts don't end.

    Examples
    --------
    >>> [plain(said) for said in ("<think>Hm, A?</think>**C**", '{"answer": "C", "why": "A is wrong"}')]
    ['C', 'C']
    """
    text = without_thoughts(response).strip()
    framed = _of_json(_FENCE.sub("", text).strip())
    text = text if framed is None else framed
    text = _NEXT_TURN.split(text.strip())[0]
    text = _BOLD.sub(r"\2", text)
    text = _TAG.sub(" ", _ANSWER_FRAME.sub("\nAnswer: ", text))
    text = _LATEX.sub(" ", text).replace("{", " ").replace("}", " ")
    return _QUOTED_LETTER.sub(r"\1", flat(text)).strip()


def _of_json(text: str) -> str | None:
    """The answer in a text that is JSON as a whole, nothing where it names none; None if it is no JSON."""
    if text[:1] not in ("{", "[", '"'):
        return None
    try:
        return _answer(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _answer(value: Any) -> str:
    if isinstance(value, list):
        return _answer(value[0]) if len(value) == 1 else ""
    if isinstance(value, dict):
        named = {str(key).lower(): of for key, of in value.items()}
        key = next((key for key in _KEYS if key in named), None)
        if key is not None:
            return _answer(named[key])
        return f"{next(iter(value))}. {next(iter(value.values()))}" if len(value) == 1 else ""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
