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


def mended(pieces: list[str]) -> list[str]:
    """Four options out of five to seven pieces, as 13 questions of StreamingBench have them; four stay as they are.

    Their texts were cut at commas and line breaks. A piece that does not begin with the next letter belongs to the one
    before; empty ones, and those behind the four that begin with a letter of their own, belong to none. One row has its
    options twice.

    Examples
    --------
    >>> mended(["A. One.", "B. He says, 'I pack", "for my trip'.", "C. Two.", "D. Three."])[1]
    "B. He says, 'I pack for my trip'."
    """
    if len(pieces) <= 4:
        return pieces
    options: list[str] = []
    for piece in pieces:
        if len(options) < 4 and piece.startswith(f"{letter_at(len(options))}."):
            options.append(piece)
        elif options and piece.strip() and not re.match(r"[A-Z]\.", piece):
            options[-1] = options[-1].rstrip() + (piece if piece.startswith(".") else f" {piece.strip()}")
    return [options[0], *(option.partition(options[0])[0] for option in options[1:])] if options else pieces
