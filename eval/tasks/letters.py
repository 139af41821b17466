"""From what a model said to the option that it meant. Knows when a mention is an answer; guesses nothing.

Where two options could be meant, or none, nothing is read: an unread answer counts as unanswered, a wrong guess would
count as the model's. Options' texts are found before letters, so that "Vitamin C" is an option's text and no C; a
letter counts where it is said to be the answer, or stands where an answer stands, and not where it is part of a name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from . import grammar
from .mentions import LABEL, LETTERS, MENTION, SEVERAL, TEXT, TEXTS, Options
from .said import plain

_REACH = 200
"""Characters before and behind a mention that say what it is."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """That some options are the answer: what stands from `begin` to `end` says so, `level` how clearly."""

    options: frozenset[int]
    level: int
    begin: int
    end: int


_GUESS, _STATED, _ANSWERED = 1, 2, 3


def letter(response: str, options: Sequence[str]) -> str | None:
    """The letter of the option that a response names, or None.

    Parameters
    ----------
    response : str
    options : sequence of str
        Their texts, with or without "A. " in front; their number says which letters there are.

    Examples
    --------
    >>> options = ["A red car", "A bus", "A man", "A bicycle"]
    >>> [letter(r, options) for r in ("C", "c", "(C) A man", "Best answer: C", "A man walks by, so C", "a bus")]
    ['C', 'C', 'C', 'C', 'C', 'B']
    >>> [letter(r, options) for r in ("", "I can't see the video.", "A or C", "A person is walking")]
    [None, None, None, None]
    >>> letter("Vitamin C", ["Vitamin A", "Vitamin C", "Iron"]), letter("Team B wins", options)
    ('B', None)
    """
    known, text = Options(options), plain(response)
    whole, alone = known.whole(text), re.fullmatch(r"[A-Za-z]", text)
    if whole:
        meant = whole | ({known.letters.find(alone[0].upper())} - {-1} if alone else set())
    else:
        meant = _meant(grammar.IDIOM.sub(" ", grammar.ALL_BUT.sub("not", known.marked(text))), known)
    return known.letters[meant.pop()] if len(meant) == 1 else None


def _meant(text: str, known: Options) -> set[int]:
    """The options that a text with marked mentions comes to."""
    listed = _listed(text, known)
    found = (_claim(text, match, known, match.start() in listed) for match in re.finditer(MENTION, text))
    claims = [claim for claim in found if claim is not None]
    if claims:
        return set(_settled(text, claims))
    return _mentioned(text, known)


def _listed(text: str, known: Options) -> set[int]:
    """Where the labels of a list of all options stand: the question said again, or gone through."""
    labels = list(re.finditer(f"{LETTERS}(?={LABEL}|\\.)", text))
    every = [{index} for index in range(len(known.letters))]
    for first in range(len(labels) - len(every) + 1):
        row = labels[first : first + len(every)]
        if [known.members(label[0]) for label in row] == every:
            return {label.start() for label in row}
    return set()


def _claim(text: str, match: re.Match[str], known: Options, listed: bool) -> _Claim | None:
    """What one mention claims, if anything; an item of a list of all options only where it is called right."""
    sentence, clause, behind = _around(text, match)
    if grammar.AGAINST.search(clause) or grammar.DENIED.match(behind) or grammar.CONDITION.search(clause):
        return None
    asked = re.match(r"[^.!;\n]*\?", behind)
    if asked and (sentence.strip(" ([{:") or behind[asked.end() :].strip()):
        return None

    def claim(level: int) -> _Claim:
        options = frozenset(known.members(match[0][0]))
        return _Claim(options, level, match.start(), match.end())

    ends, is_text = grammar.ENDS.match(behind), match[0][0] >= TEXT and match[0] != SEVERAL
    if grammar.ANSWER.search(sentence) and (ends or is_text or grammar.POSITIVE.match(behind)):
        return claim(_ANSWERED)
    if grammar.POSITIVE.match(behind) and grammar.SUBJECT.search(clause):
        return claim(_STATED) if not grammar.HEDGED.search(clause) else claim(_GUESS)
    if listed:
        return claim(_STATED) if grammar.CALLED.match(behind) else None
    if known.is_name(match[0]) and not (grammar.NAMED.search(clause) or _line(text[: match.start()], behind)):
        return None
    if _leads(text, match):
        return claim(_STATED)
    bare = not clause.strip() and not is_text and not _continues(text[: match.start()], match[0])
    if ends and (bare or grammar.ANSWERING.search(sentence)):
        return claim(_GUESS if grammar.HEDGED.search(clause) else _STATED)
    return None


def _around(text: str, match: re.Match[str]) -> tuple[str, str, str]:
    """The sentence and the clause before a mention, and what stands behind it."""
    sentence = grammar.SENTENCE.split(text[max(match.start() - _REACH, 0) : match.start()])[-1]
    return sentence, grammar.CLAUSE.split(sentence)[-1], text[match.end() : match.end() + _REACH]


def _line(before: str, behind: str) -> bool:
    """Whether a mention has a line, or the beginning of one up to a full stop, to itself."""
    return not before.rsplit("\n", 1)[-1].strip(" ([{") and re.match(r"\s*(?:[.)\]:]|\n|$)", behind) is not None


def _leads(text: str, match: re.Match[str]) -> bool:
    """Whether a mention is what a response begins with: "C. text", "C because"."""
    behind = text[match.end() :]
    if text[: match.start()].strip(" \n\t([{"):
        return False
    if match[0][0] >= TEXT:
        others = set(re.findall(TEXTS, text)) - {match[0]}
        return not others and re.match(r"\s*(?:[.;:!\n]|$|because\b|since\b)", behind) is not None
    return match[0].endswith(LABEL) or re.match(r"\s*(?:[.,:\n]|$)|\s+(?:because|since|as)\b", behind) is not None


def _continues(before: str, mention: str) -> bool:
    """Whether a mention begins a line of a list: the line before begins with the letter before."""
    lines = before.rsplit("\n", 2)
    return len(lines) > 1 and not lines[-1].strip() and lines[-2].lstrip()[:1] == chr(ord(mention[0]) - 1)


def _settled(text: str, claims: Sequence[_Claim]) -> frozenset[int]:
    """What several claims come to: the last of the clearest, if those before it agree or were taken back."""
    best = max(claim.level for claim in claims)
    chosen = {claim.options: claim for claim in claims if claim.level == best}  # the last for each
    last = max(chosen.values(), key=lambda claim: claim.begin)
    for later in sorted({claim.options: claim for claim in claims}.values(), key=lambda claim: claim.begin):
        between = text[last.end : later.end]
        if later.begin >= last.end and later.options != last.options and grammar.CORRECTION.search(between):
            chosen[later.options] = last = later
    for claim in chosen.values():
        if claim is not last and not grammar.TURN.search(text[claim.end : last.end]):
            return frozenset()
    return frozenset() if grammar.TAKEN_BACK.search(text[last.end :]) else last.options


def _mentioned(text: str, known: Options) -> set[int]:
    """The only option whose whole text is mentioned and not denied; one within another's text gives way to it."""
    if grammar.REFUSAL.search(text):
        return set()
    live: list[set[int]] = []
    denied: list[set[int]] = []
    for match in re.finditer(MENTION, text):
        if match[0][0] < TEXT:
            continue
        sentence, clause, behind = _around(text, match)
        rest = grammar.CLAUSE.split(behind)[0]
        negated = grammar.NEGATION.search(clause) or grammar.NEGATION.search(rest)
        unsure = negated or grammar.ALTERNATIVE.search(clause) or grammar.CONDITION.search(sentence)
        about = re.search(LETTERS, clause + rest)  # "Option B shows a bus" tells of the option, not of the video
        (denied if unsure or about else live).append(known.members(match[0][0]))
    one = live and all(members == live[0] for members in live) and live[0] not in denied
    return live[0] if one else set()
