"""Counts and Yes or No, read from what a model said. As in `letters`, what is not sure is not read."""

from __future__ import annotations

import re

from .said import plain

_COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBERS = {**{word: number for number, word in enumerate(_COUNTS)}, "once": 1, "twice": 2, "thrice": 3}
# Digits that are a number of their own: no part of 1.5, 3:20, 2-3, 2nd or 3+. "One" counts where it is no pronoun.
_NUMBER = re.compile(
    r"(?<![\w.,:/+-])\d+(?![\w+]|[.,:/]\d|\s*[-–]\s*\d)"
    rf"|(?<!\bno )(?<!\bthe )(?<!\bthis )(?<!\bthat )\b(?:{'|'.join(_NUMBERS)})\b(?! (?:of|who|that|another|or)\b)",
    re.IGNORECASE,
)
_UNSURE = re.compile(r"\b(?:not|\w+n't|never|than|least|most|between)\s+(?:\w+\s+)?$", re.IGNORECASE)
_TOTAL = re.compile(r"\b(?:answer|total|count)\b[^.:=\n\d]{0,40}?(?:\bis\b|:|=)\s*", re.IGNORECASE)
_SAID = re.compile(
    r"(?<!\bnot )(?<!n't )(?<!\bnot a )\b(?P<word>yes|no)\b"
    r"(?=\s*(?:[.,;:!?)\n]|$|-)|\s+(?:or|and|he|she|it|they|there|the|we|i|this|that|because|since)\b)",
    re.IGNORECASE,
)


def count_in(response: str) -> str | None:
    """The only number that a response names, in digits or as a word up to twelve; with several, the one of the answer.

    Examples
    --------
    >>> [count_in(said) for said in ("They clap two times.", "3", "1 or 2", "No one claps.", "Step 1: wait. Answer: 4")]
    ['2', '3', None, None, '4']
    """
    text = plain(response)
    numbers = [match for match in _NUMBER.finditer(text) if not _UNSURE.search(text[: match.start()][-40:])]
    found = {_digits(match[0]) for match in numbers}
    if len(found) > 1:
        totals = [match.end() for match in _TOTAL.finditer(text)]
        found = {
            _digits(m[0])
            for m in numbers
            if totals and m.start() == totals[-1] and not re.match(r"\s+or\b", text[m.end() :])
        }
    return found.pop() if len(found) == 1 else None


def _digits(word: str) -> str:
    """A number in plain digits, whatever its length."""
    if not word.isdigit():
        return str(_NUMBERS[word.lower()])
    return "".join(str(int(digit)) for digit in word).lstrip("0") or "0"


def yes_or_no(response: str) -> str | None:
    """Yes or No, whichever of them alone a response says.

    Examples
    --------
    >>> [yes_or_no(said) for said in ("yes.", "No, he does not", "Yes or no?", "No one is there", "not yes")]
    ['Yes', 'No', None, None, None]
    """
    text = plain(response)
    if alone := re.fullmatch(r"\W*([yn])\W*", text, re.IGNORECASE):
        return "Yes" if alone[1].lower() == "y" else "No"
    said = {
        match["word"].capitalize() for match in _SAID.finditer(text) if not _UNSURE.search(text[: match.start()][-40:])
    }
    return said.pop() if len(said) == 1 else None
