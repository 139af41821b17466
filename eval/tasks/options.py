"""Letters in front of options: put there, taken off, and read by the scorers that take the first one they see.

Knows letters and options' texts. What a model meant is read in `letters`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_PREFIX = re.compile(r"^\s*\(?[A-Z][).:]\s*")


def letter_at(index: int) -> str:
    """Name option `index`, counted from 0: A, B, C, ..."""
    return chr(ord("A") + index)


def letters_for(options: Sequence[str]) -> list[str]:
    """One letter for each option."""
    return [letter_at(index) for index in range(len(options))]


def lettered(options: Sequence[str]) -> list[str]:
    """Options with "A. ", "B. ", ... in front, whatever they begin with: "A. Wade" is a name."""
    return [f"{letter}. {option}" for letter, option in zip(letters_for(options), options, strict=True)]


def bare(options: Sequence[str]) -> tuple[str, ...]:
    """Options without "A. ", "(B) " and the like in front, if all of them have it."""
    if all(_PREFIX.match(option) for option in options):
        return tuple(_PREFIX.sub("", option).strip() for option in options)
    return tuple(option.strip() for option in options)


def first_letter(response: str, letters: str, prefixes: Iterable[str] = ()) -> str | None:
    """Read as lenient scorers do: the first of `letters` anywhere, once the known prefixes are taken out.

    Examples
    --------
    >>> first_letter("The answer is C.", "ABCD", ["The answer is"])
    'C'
    >>> first_letter("A man runs, so C", "ABCD")
    'A'
    """
    text = response.strip()
    for prefix in prefixes:
        text = text.replace(prefix, "")
    found = re.search(f"[{letters}]", text)
    return found[0] if found else None
