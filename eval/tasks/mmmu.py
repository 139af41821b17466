"""Answers to exam questions as the MMMU family's scorers read them, and open answers as they were meant.

Knows text, letters and numbers. The official rules are repeated with their mistakes: a letter is found in any word that
ends with it before a full stop, and an open answer is right when the truth is somewhere in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from .options import letters_for
from .said import plain

_STRIPPED = ",.!?;:'"
_CUES = (
    "could be ",
    "so ",
    "is ",
    "thus ",
    "therefore ",
    "final ",
    "answer ",
    "result ",
    "are ",
    "in total ",
    "total ",
    "identify ",
    "recognize ",
    "calculated as ",
    "counted as ",
    "measured as ",
    "observed as ",
    "concluded as ",
    "found to be ",
    "equals ",
    "determined to be ",
    "number of ",
    "value is ",
    "adds up to ",
    "have ",
    "has ",
)
"""What an answer follows, by the official rule; in the last line an equals sign too."""
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
_ANSWER = re.compile(r"\b(?:final\s+)?answer\b\s*(?:is|:|=|would be)+\s*", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:e[+-]?\d+)?(?![\w]|[.,]\d)", re.IGNORECASE
)


def exam_letter(response: str, options: Sequence[str]) -> str | None:
    """The letter that Video-MMMU's released scorer reads: before "." or ":", else in brackets, else before a space.

    Of several the one that stands last in the first of these forms; without any, an option whose text is in a response
    of more than five words.

    Examples
    --------
    >>> options = ["Red", "Blue", "Green"]
    >>> [exam_letter(said, options) for said in ("B", "(B) Blue", "Not A. It is B.", "It is blue, as all can see", "b")]
    ['B', 'B', 'A', 'B', None]
    """
    for mark in _STRIPPED:
        response = response.strip(mark)
    text, letters = f" {response} ", letters_for(options)
    forms: list[tuple[Callable[[str], str], Callable[[str], str]]] = [
        ("({})".format, "({})".format),
        ("{} ".format, " {} ".format),
    ]
    dotted, coloned = ([name for name in letters if f"{name}{mark}" in text] for mark in ".:")
    if dotted or coloned:
        mark = "." if dotted else ":"
        return max([*dotted, *coloned], key=lambda name: text.rfind(f"{name}{mark}"))
    for there, place in forms:
        if named := [name for name in letters if there(name) in text]:
            return named[0] if len(named) == 1 else max(named, key=lambda name: text.rfind(place(name)))
    if len(text.split()) > 5:
        lowered = text.lower()
        pairs = [(name, option.lower()) for name, option in zip(letters, options, strict=True)]
        texts = {name: option for name, option in pairs if option in lowered}
        return max(texts, key=lambda name: lowered.rfind(texts[name]), default=None)
    return None


def exam_right(response: str, truth: str) -> bool:
    """Whether the released scorer calls an open answer right: the truth is in a part of it, or is a number of it."""
    wanted = _normal(truth)
    texts = [text for text in wanted if isinstance(text, str)]
    said = _parts(response)
    said += [number for part in said for pattern in _NUMBERS for number in pattern.findall(part)]
    return any(
        any(text in one for text in texts) if isinstance(one, str) else one in wanted
        for part in said
        for one in _normal(part)
    )


def _parts(response: str) -> list[str]:
    """What stands behind a cue in each line, the shortest of it; the whole response where no line has any."""
    text = response.strip().strip(".").lower()
    lines, found = text.split("\n"), []
    for number, line in enumerate(lines):
        cues = (*_CUES, "=") if number == len(lines) - 1 else _CUES
        shortest = ""
        for tail in (line.split(cue)[-1].strip() for cue in cues if cue in line):
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in (":", ",", ".", "!", "?", ";", "'"):
            found.append(shortest)
    return found or [text]


def _normal(text: str) -> list[str | float]:
    """A number to two places; other text in lower case, where one character alone is no match within a word."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def open_answer(response: str) -> str | None:
    r"""What a response comes to: what stands behind the last "answer is" or "Answer:", else its last line.

    Examples
    --------
    >>> open_answer("We add 3 and 4.\nSo the answer is 7."), open_answer("7 m"), open_answer("")
    ('7', '7 m', None)
    """
    text = plain(response)
    cues = list(_ANSWER.finditer(text))
    said = text[cues[-1].end() :].strip().split("\n")[0] if cues else text.strip().split("\n")[-1]
    return said.strip().rstrip(".").strip() or None


def open_right(said: str | None, truth: str) -> bool:
    """Whether an open answer names the truth: as its only number, to two places, or as words of their own."""
    if said is None:
        return False
    wanted = _normal(truth)[0]
    if isinstance(wanted, float):
        numbers = {_normal(number[0])[0] for number in _NUMBER.finditer(said) if number[0].strip("-")}
        return numbers == {wanted}
    return re.search(rf"(?<!\w){re.escape(truth.strip())}(?!\w)", said, re.IGNORECASE) is not None
