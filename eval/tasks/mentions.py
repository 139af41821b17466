r"""Where a text names options, by letter or by text: each mention becomes one character for a grammar of words.

Knows letters, options' texts and what joins them. Refuses to know what is said of them.

Letters become characters from `LETTER` on, texts from `TEXT` on; several at once, as "A or C", become `SEVERAL`. The
mark `LABEL` behind a letter says that it had brackets or stood before its own text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .said import flat

LETTER, TEXT, SEVERAL, LABEL = "\ue000", "\ue100", "\ue400", "\ue401"
"""First characters of each kind, out of those that no text has (see `eval.tasks.said.flat`)."""
LETTERS, TEXTS = "[\ue000-\ue019]", "[\ue100-\ue3ff]"
MENTION = f"(?:{LETTERS}{LABEL}?|[\ue100-\ue400])"

_OWN = re.compile(r"^\s*\(?([A-Za-z])[).:]\s*")
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_BEFORE_CJK = r"(?<![\u3040-\u30ff\u3400-\u9fff])|(?<=[是为為选選])"
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\w)")
_NAME = re.compile(r"(?<!\w)([A-Z])(?!\w)(?!\s+[a-z])|(?<!\w)([B-HJ-Z])(?!\w)")
# A capital letter by itself. "A man" is no option A, "A is right" is; "I think" is no option I.
_FUNCTION = (
    r"(?:is|are|was|were|would|seems?|appears?|looks|because|since|as|and|or|but|nor|fits|matches|does|doesn't|isn't|"
    r"wasn't|aren't|cannot|can't|can\s+be|could|couldn't|must\s+be|should|may\s+be|might|has|over|rather|instead|unlike|"
    r"than|not|vs|versus|makes|aligns|works|correctly|accurately|describes|shows|mentions|says|contradicts|when|where|"
    r"which|that|if|for|in|with|to|from|then|also|(?:best|most\s+\w+ly|clearly|only)\s+(?:is|fits|matches|describes))\b"
)
_STANDING = re.compile(
    rf"(?<![^\W{_CJK}])(?<!['-])(?<!\w\.)(?P<open>[(\[{{<]\s*)?(?:(?P<letter>[A-Z])|(?P<small>[a-z]))"
    rf"(?P<close>\s*[)\]}}>]|:(?!\d))?(?![^\W{_CJK}]|'\w|\.\w(?!\w)|-\w)"
)
_CUED = re.compile(
    r"\b(?:answer|option|choice|letter)\s*(?:(?:is|would be|must be|should be)\b)?(?:\s+(?:option|choice|letter))?"
    r"\s*[:=-]?\s*$",
    re.IGNORECASE,
)
_JOIN = (
    r"\s*(?:[.,]{0,3}\s*(?:and|or)\b|/|&|\+|nor\b|和|或者?|还是|与|及)\s*"
    r"(?:(?:maybe|perhaps|possibly|is\s+it)\s+)?(?:option\s+)?"
)
_ROW = rf"(?:\s*,\s*(?:option\s+)?|(?<={LABEL})[ \t]*)"
_GROUP = re.compile(rf"{MENTION}(?:(?:{_ROW}{MENTION})*(?:{_JOIN}{MENTION})+|(?:{_ROW}{MENTION})+)", re.IGNORECASE)
_SINGULAR = re.compile(r"\s*(?:is|was|does|has|seems|fits|matches|isn't|wasn't|doesn't|cannot|can't)\b", re.IGNORECASE)
_DENYING = re.compile(r"\b(?:not|unlike|than|isn't)\s+(?:option\s+)?$", re.IGNORECASE)


class Options:
    """The options of one question, ready to be found.

    Parameters
    ----------
    options : sequence of str
        With or without "A. " in front.

    Attributes
    ----------
    letters : str
        One for each option; those past Z have none.
    """

    def __init__(self, options: Sequence[str]) -> None:
        self.letters = "".join(chr(ord("A") + i) for i in range(min(len(options), 26)))
        texts = [flat(option).strip() for option in options[:26]]
        own = [_OWN.match(text) for text in texts]
        if all(m is not None and m[1].upper() == name for m, name in zip(own, self.letters, strict=True)):
            texts = [_OWN.sub("", text).strip() for text in texts]
        several = [text for text in texts if len(text.split()) > 1]
        self._names = {_char(m[1] or m[2]) for text in several for m in _NAME.finditer(text)}
        self._exact = [_exact(text) for text in texts]
        self._words = [_words(text) for text in texts]
        groups: dict[tuple[str, ...], set[int]] = {}
        for index, words in enumerate(self._words):
            if words and not (len(words) == 1 and len(words[0]) == 1 and words[0].isalpha() and words[0].isascii()):
                groups.setdefault(words, set()).add(index)
        self._texts = list(groups.items())

    def whole(self, text: str) -> set[int]:
        """The options whose text a text is as a whole; where texts are letters, "(B)" is one in front of an option."""
        if re.fullmatch(r"\W*[A-Za-z]\W+|\W+[A-Za-z]", text):
            return set()
        same = {i for i, option in enumerate(self._exact) if option and option == _exact(text)}
        words = _words(text)
        return same or {i for i, option in enumerate(self._words) if option and option == words}

    def is_name(self, mention: str) -> bool:
        """Whether a bare letter may be one of the options' own texts, as in "Vitamin C"."""
        return mention in self._names

    def members(self, mention: str) -> set[int]:
        """The options that a mention's character may stand for; none of a letter that no option has."""
        if mention == SEVERAL:
            return set()
        if mention >= TEXT:
            return self._texts[ord(mention) - ord(TEXT)][1]
        index = ord(mention) - ord(LETTER)
        return {index} if index < len(self.letters) else set()

    def marked(self, text: str) -> str:
        """The text with a character for each mention."""
        folded = text.casefold()
        there = [i for i, (words, _) in enumerate(self._texts) if all(word in folded for word in words)]
        longest = sorted(there, key=lambda i: -len(" ".join(self._texts[i][0])))
        if longest:
            found = "|".join(f"(?P<t{i}>{_pattern(self._texts[i][0])})" for i in longest)
            text = re.sub(found, lambda m: chr(ord(TEXT) + int(str(m.lastgroup)[1:])), text, flags=re.IGNORECASE)
        text = _STANDING.sub(self._letter, text)
        return _GROUP.sub(self._group, self._with_own_text(text))

    def _letter(self, match: re.Match[str]) -> str:
        """A letter's character, or the text as it is where the letter is an article, a pronoun or an initial."""
        said, behind = match[0], match.string[match.end() :]
        bracketed = bool(match["open"] and match["close"])
        before, alone = match.string[: match.start()], re.match(r"\s*(?:[.,;!?)\n]|$)", behind) is not None
        line = not before.strip() or before.rstrip(" ").endswith("\n")
        if (name := match["letter"]) is None:
            name = match["small"].upper()
            listed = line and (match["close"] or re.match(r"\.(?:\s|$)|\s*(?:\n|$)", behind))
            cued = _CUED.search(before[-40:]) and (alone or re.match(rf"\s+{_FUNCTION}", behind))
            if not (bracketed or listed or cued):
                return said
        elif (
            name in "AI" and not match["close"] and not alone and not re.match(f"[{TEXT}-\ue3ff]|\\W*{LETTERS}", behind)
        ):
            function = re.match(rf"\s+{_FUNCTION}", behind) or re.match(r"\s*[^\w\s]", behind)
            if not function or (name == "I" and not _CUED.search(before[-40:])):
                return said
        if match["open"] and not match["close"]:
            return f"{match['open']}{_char(name)}"
        return _char(name) + (LABEL if match["close"] else "")

    def _with_own_text(self, text: str) -> str:
        """A letter beside its own text becomes one mention; beside another option's whole text it names neither."""

        def joined(match: re.Match[str]) -> str:
            letter, option = match["letter"], match["text"]
            own = self.members(letter) <= self.members(option)
            if own and self.members(letter):
                return letter + LABEL
            return SEVERAL if re.match(r"\s*(?:[.!)\n]|$)", text[match.end() :]) else match[0]

        text = re.sub(rf"(?P<letter>{LETTERS}){LABEL}?[\s).:,(–-]*(?P<text>{TEXTS})\)?", joined, text)
        return re.sub(rf"(?P<text>{TEXTS})\s*(?P<letter>{LETTERS}){LABEL}", joined, text)

    def _group(self, match: re.Match[str]) -> str:
        """`SEVERAL` for a row of different options; a row with commas alone may be two statements."""
        marks = re.findall(MENTION, match[0])
        sets = [self.members(mark[0]) for mark in marks]
        if len({frozenset(s) for s in sets}) == 1:
            return match[0]
        if len({mark[0] >= TEXT for mark in marks}) > 1:  # "a bus, so C": a sentence, not a row
            return match[0]
        joined, texts = re.search(_JOIN, match[0], re.IGNORECASE), marks[0][0] >= TEXT
        before, behind = match.string[max(match.start() - 20, 0) : match.start()], match.string[match.end() :]
        apart = not joined and (texts or _SINGULAR.match(behind) or _DENYING.search(before))
        return match[0] if apart else SEVERAL


def _char(letter: str) -> str:
    return chr(ord(LETTER) + ord(letter) - ord("A"))


def _exact(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'()[]{}")


def _words(text: str) -> tuple[str, ...]:
    """Words in lower case without an article in front; Chinese and Japanese characters are words."""
    text = text.casefold().strip(" .,;:!?\"'()[]{}")
    return tuple(_TOKEN.findall(_ARTICLE.sub("", text)))


def _pattern(words: Sequence[str]) -> str:
    """Finds the words one after the other, an article in front included, and not as a part of something longer."""
    first, last = words[0][0], words[-1][-1]
    before = rf"(?:{_BEFORE_CJK})" if re.match(f"[{_CJK}]", first) else r"(?<![\w'-])"
    if first.isdigit():
        before += r"(?<![.:,/$])"
    behind = rf"(?![{_CJK}])" if re.match(f"[{_CJK}]", last) else rf"(?![^\W{_CJK}]|'\w|-\w)"
    if last.isdigit():
        behind += r"(?![.:,/]\d|\s*[-–]\s*\d)"
    gap = r"\W{0,4}" if any(re.match(f"[{_CJK}]", word) for word in words) else r"\W{1,4}"
    return rf"(?:(?<!\w)(?:an?|the)\s+)?{before}" + gap.join(map(re.escape, words)) + behind
