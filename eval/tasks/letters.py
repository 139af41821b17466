"""From what a model said to the option that it meant. Knows letters and options' texts; guesses nothing.

Where two options could be meant, or none, nothing is read: an unread answer counts as unanswered, a wrong guess would
count as the model's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_VERBS = "is|are|was|would|seems|appears|because|since|as|and|or|but"
_NOT_ARTICLE = re.compile(rf"(?!\s+(?!(?:{_VERBS})\b)[a-z])")  # "A man" is no option A, "A is right" is
_WORD = r"[0-9_a-zA-ZÀ-ɏ'’]"  # Chinese characters stand beside letters without a space
_START, _END = rf"(?<!{_WORD})", rf"(?!{_WORD})"
_DENIED = re.compile(
    r"\s+(?:is|are|was|would be|seems)\s+(?:also\s+|clearly\s+)?(?:not|incorrect|wrong|false)\b", re.IGNORECASE
)
_CUE = re.compile(
    r"\b(?:answer|option|choice)\b(?:\s+(?:is|would be|must be|should be|seems to be|appears to be))?(?:\s+option)?"
    r"\s*(?::|-|=)?\s*[(\[{]?\s*(?P<letter>[a-z])" + _END,
    re.IGNORECASE,
)
_MORE = re.compile(r"(?:\s*(?:,|&|/|and\b|or\b)?\s*[(\[]?[A-Za-z](?:[).:\]]+|(?!\w)))+\s*")  # letters, nothing else
_ALONE = re.compile(r"[(\[{<\s]*([A-Za-z])[)\]}>.:,;!\s]*")
_LEADING = re.compile(
    r"(?:\(([A-Za-z])\)|\[([A-Za-z])\]|([A-Za-z])[).:](?=\s|$)|([A-Z])(?:\s*\n|,?\s+(?:because|since)\b))"
)
_CAPITAL = re.compile(rf"{_START}(?<!\w-)([A-Z]){_END}(?!-\w)")
_MARKUP = re.compile(r"[*_`\"“”]|\\boxed|\\text|\bn/a\b", re.IGNORECASE)
_QUOTED = re.compile(rf"{_START}['‘’]([A-Za-z])['‘’](?!\w)")
_OWN_LETTER = re.compile(r"^\s*\(?[A-Za-z][).:]\s*")
_DENIAL = re.compile(r"\b(?:not|no|none|neither|nor)\b|n['’]t\b", re.IGNORECASE)
_NEGATED = re.compile(r"\b(?:not|neither|nor|isn't|than)\s+(?:option\s+)?[(\[]?$", re.IGNORECASE)


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
    """
    letters = [chr(ord("A") + i) for i in range(len(options))]
    text = unicodedata.normalize("NFKC", _said(response))
    text = _QUOTED.sub(r"\1", _MARKUP.sub("", text).strip())
    if (alone := _alone(text)) in letters:
        return alone
    texts = [_words(_OWN_LETTER.sub("", option)) for option in options]
    readings = (
        lambda: _same_text(text, texts),
        lambda: _concluded(text, letters),
        lambda: _leading(text),
        lambda: _after_cue(text, letters),
        lambda: _standing(text, letters),
        lambda: _mentioned(text, texts),
    )
    return next((found for read in readings if (found := read()) in letters), None)


def _said(response: str) -> str:
    """The response behind its thoughts; nothing where they don't end."""
    return response.rpartition("</think>")[2].partition("<think>")[0]


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _alone(text: str) -> str | None:
    match = _ALONE.fullmatch(text)
    return match[1].upper() if match else None


def _same_text(text: str, texts: Sequence[str]) -> str | None:
    said = _words(text)
    same = [i for i, option in enumerate(texts) if option and option == said]
    return chr(ord("A") + same[0]) if len(same) == 1 else None


def _leading(text: str) -> str | None:
    """The letter of "C. text", "(C) text", "c) text", "C: text", "C because"; none of several, as in "(A) (C)"."""
    match = _LEADING.match(text)
    if match is None or _MORE.fullmatch(text, match.end()):
        return None
    return next(group for group in match.groups() if group).upper()


def _cues(text: str, letters: Sequence[str]) -> list[tuple[str, str]]:
    """Each "answer is", "option" and the like that has a letter behind it, in lower case, and the letter."""
    found = []
    for match in _CUE.finditer(text):
        named = match["letter"].upper()
        article = named == "A" and not _NOT_ARTICLE.match(text, match.end())
        if named in letters and not article and not _DENIED.match(text, match.end()):
            found.append((match[0].lower(), named))
    return found


def _concluded(text: str, letters: Sequence[str]) -> str | None:
    """The letter of the last "the answer is C" or "Answer: C", whatever options were gone through before."""
    said = [named for cue, named in _cues(text, letters) if re.match(r"answer\b.*(?:[:=]|\bis\b|\bbe\b)", cue)]
    return said[-1] if said else None


def _after_cue(text: str, letters: Sequence[str]) -> str | None:
    """The letter after "answer", "option" and the like: the last one, if "answer" names one, else the only one."""
    found = _cues(text, letters)
    answers = [named for cue, named in found if cue.startswith("answer")]
    return answers[-1] if answers else _only([named for _, named in found])


def _standing(text: str, letters: Sequence[str]) -> str | None:
    """The only capital letter that stands by itself, articles and negated ones left out."""
    found = []
    for match in _CAPITAL.finditer(text):
        article = match[1] == "A" and not _NOT_ARTICLE.match(text, match.end())
        denied = _NEGATED.search(text[: match.start()]) or _DENIED.match(text, match.end())
        if match[1] in letters and not article and not denied:
            found.append(match[1])
    return _only(found)


def _mentioned(text: str, texts: Sequence[str]) -> str | None:
    """The only option whose whole text occurs in the response; one within another's text gives way to it.

    A response that denies something is not read this way.
    """
    if _DENIAL.search(text):
        return None
    said = f" {_words(text)} "
    there = [i for i, option in enumerate(texts) if option and f" {option} " in said]
    longest = [i for i in there if not any(i != j and f" {texts[i]} " in f" {texts[j]} " for j in there)]
    return chr(ord("A") + longest[0]) if len(longest) == 1 else None


def _only(found: Sequence[str]) -> str | None:
    return found[0] if len(set(found)) == 1 else None
