r"""The words around a mention of an option: what answers, denies, doubts, compares and takes back, in patterns.

Knows phrases of English, the marks that models use, and the commonest ones of Chinese and a few more languages. Refuses
to know options and what follows from a phrase. Patterns that end in ``$`` look at what stands before a mention, those
that are matched look at what stands behind it.
"""

from __future__ import annotations

import re

from .mentions import LETTERS, MENTION


def _pattern(*parts: str) -> re.Pattern[str]:
    return re.compile("|".join(parts), re.IGNORECASE)


_NOT = (
    r"\b(?:not|no|never|neither|nor|none|nothing|nobody|cannot|\w+n't|unlike|than|instead\s+of|opposed\s+to|except|"
    r"exclud\w*|eliminat\w*|rul(?:e|es|ed|ing)\s+out|reject\w*|discard\w*|dismiss\w*|wrong|incorrect\w*|false|"
    r"inaccurate|unlikely|impossible|improbable|irrelevant|unsupported|misleading|mistake|distractors?|hardly)\b"
    r"|排除|不|非|错|没"
)
_ADVERBS = (
    r"(?:(?:\w+ly|most likely|only|still|therefore|thus|then|just|indeed|also|in fact|the|la|my|most|more|"
    r"option|choice|letter)\s+)*"
)
_BE = (
    r"(?:is|was|are|seems?(?: to be)?|appears?(?: to be)?|looks?(?: like)?|to be|"
    r"(?:would|must|should|has to|have to|will|might|may|could|can)\s+(?:\w+\s+)?be)"
)
_THING = r"(?:option|choice|one|selection|letter|statement|description|match)"
_COMPARED = rf"over|than|rather\s+than|instead\s+of|unlike|and\s+not|not(?=\s+(?:option\s+)?{MENTION})"

SENTENCE = _pattern(r"[.!?](?=\s|$)|[;\n]")
"""Where sentences end."""

CLAUSE = _pattern(
    r"[.!?](?=\s|$)|[;\n,()\[\]]|\s[-–—]+\s|—|→|[=-]>|[✗✘×❌✓✔✅]",
    r"\b(?:but|so|and|because|since|therefore|thus|hence|while|whereas|although|though|however|yet|which|that|"
    r"leav(?:es|ing))\b",
    r"但是?|而是|因为|所以|因此|故",
)
"""Where a "not" has no more to say."""

IDIOM = _pattern(
    r"\b(?:no|without(?: a| any)?|beyond(?: a| any)?) doubt\b|\bnot only\b|\bno question\b|\bwithout more context\b",
    r"\bif i (?:had|have|must|were)\b[^,.;:]*|\bif (?:i am|i'm) not (?:wrong|mistaken)\b",
)
"""Phrases that deny and doubt nothing."""

ALL_BUT = _pattern(r"\b(?:any(?:thing)?|every(?:thing)?|all) (?:but|except)\b")
"""Another way to say not."""

NEGATION = _pattern(_NOT)
"""Denies what stands in its clause."""

AGAINST = _pattern(_NOT, r"\b(?:without|versus|vs|compared|contrary|over|against|less)\b", "无法", r"\bor\s*$")
"""Before a mention: it is denied, or what another one is compared with."""

CONDITION = _pattern(r"\b(?:if|whether|suppose|supposing|assuming|unless)\b", "如果|是否")
"""Before a mention: nothing is said to be so."""

ALTERNATIVE = _pattern(r"\bor\s*$")
"""Before a mention: another thing was named that is no option."""

DENIED = _pattern(
    r"\s*(?:[-–—:(]+\s*(?:it\s+)?|,\s*(?:which|that|it)\s+)?"
    rf"(?:{_BE}\s+|(?:does|do|did|has|have|was)\s+)?{_ADVERBS}(?:an?\s+)?(?:(?:too|ruled|less)\s+)?"
    rf"(?:(?:{_NOT})(?!\s+(?:option\s+)?{MENTION})|out\b|off\b|contradict|fails?\b|lacks?\b|miss(?:es)?\b|ignores?\b|"
    r"conflicts?\b|tempting|excluded|eliminated|✗|✘|×|❌|项?(?:是)?(?:不|错))",
)
"""Behind a mention: it is not so."""

POSITIVE = _pattern(
    rf"\s*(?:[-–—:(]+\s*(?:(?:this|it)\s+)?)?{_BE}\s+{_ADVERBS}(?:an?\s+|the\s+)?{_ADVERBS}(?:correct|right|best|true|"
    r"accurate|appropriate|likely|plausible|suitable|answer|choice|option|one|closest|fitting|better|supported|consistent)"
    r"\b(?!\s+(?:there|here|next|beside|behind|side|hand|in\s+front|before|after))",
    r"\s*(?:best|most\s+\w+ly|accurately|correctly|closely|clearly)\s+(?:fits?|match(?:es)?|describes?|suits?|captures?|"
    r"represents?|summari[sz]es?|reflects?|aligns?|corresponds?|answers?|explains?|completes?)\b",
    r"\s*(?:fits?|matches|aligns|corresponds|suits|makes\s+(?:the\s+most\s+)?sense|it\s+is)\b",
    r"\s*(?:选?项)?是?(?:正确|对的|最?符合|最合适)|\s*[-–—:(]\s*(?:yes|correct|right|true)\b|\s*[✓✔✅]",
)
"""Behind a mention: it is the answer."""

SUBJECT = _pattern(r"(?:^|\b(?:option|choice|answer|letter|think|believe|say|only)|选项)\s*[:(]?\s*$")
"""In the clause before a mention that something is said of."""

CALLED = _pattern(r"\W{0,4}(?:correct|right|yes|true)\b")
"""Behind an item of a list: it is the answer."""

ENDS = _pattern(
    r"\s*(?:because|since|as|given|due to|based on|considering|for|when|where|which|that|is what|is shown|in the|"
    rf"from the|in my|i\s+(?:think|guess|believe)|i'd\s+say|of\s+course|for\s+sure|definitely|here|by|with|"
    rf"{_COMPARED})\b",
    r"\s*[,.;:!?()\n]|\s*[-–—]|\s*$|\s*(?:项|选项)\s*(?:[.,;]|$)|\s*(?:です|입니다)",
)
"""Behind a mention: what it was said for is over, or reasons follow."""

ANSWER = _pattern(
    r"(?:\b(?:answers?|ans|respuesta|réponse|antwort|resposta|risposta|ответ)\b|答案|正解|答え|정답|答|"
    rf"\b(?:correct|right|best|final|chosen|selected|my)\s+{_THING}\b)[^:=]{{0,80}}?"
    rf"(?:\b(?:{_BE}|es|est|ist)\b|'s\b|\bé\b|\bè\b|:|=|→|->|是|为|為|は|은)[:=(\[{{>\s-]*{_ADVERBS}"
    r"(?:an?\s+)?(?:选项\s*)?[:(\[{\s]*$",
)
"""In the sentence before a mention: the answer is ..."""

ANSWERING = _pattern(
    r"(?:^\W*(?:the\s+)?letter|选择?|选项|選|是|为|"
    r"\b(?:option|choice|answer|choose|chose|choosing|pick(?:ed|ing)?|select(?:ed|ing)?|say|guess|think|believe|prefer|"
    r"favou?r|conclude|(?:go|going|went|stick|stay|side)\s+with|vote\s+for|opt\s+for|settle\s+on|"
    r"lean(?:ing)?\s+(?:to|towards?)|leaves?(?:\s+us\s+with)?|left\s+with|points?\s+to|leads?\s+to|it\s+to|it's|that's|"
    r"likely|probably|possibly|definitely|certainly|clearly|maybe|perhaps|surely|obviously|namely|only|"
    r"or\s+rather|rather|i\s+mean|actually|wait|sorry|no|make\s+(?:that|it)|"
    r"(?:answer|option|choice|it|this|that|what\s+(?:best|happens|fits|matches)|one|response|selection|pick|guess|bet|"
    rf"conclusion|match|likely|correct|right|best|accurate|appropriate)\b[^,.;:]{{0,60}}?\b{_BE}|"
    r"(?:assistant|response|decision|remaining|correct|result|prediction|conclusion|correction|output|verdict|solution|"
    rf"selection|so|final|therefore)\s*:))\s*{_ADVERBS}(?:选项\s*)?[:(\[]?\s*$",
)
"""In the sentence before a mention that is put forward as the answer."""

NAMED = _pattern(r"\b(?:option|choice|answer|letter)\s*[:(]?\s*$")
"""Before a letter that can only be an option's."""

HEDGED = _pattern(r"\b(?:might|may|could|can|maybe|perhaps|possibly)\b")
"""Before a mention that gives way to a surer one."""

CORRECTION = _pattern(
    r"\b(?:wait|actually|correction|scratch|second thought|sorry|i mean|mistake\w*|reconsider\w*|re-?check\w*|rather|"
    r"no|changed?|make (?:that|it))\b",
    "不对|等等",
)
"""Between two answers: the first is taken back."""

TURN = _pattern(
    CORRECTION.pattern,
    r"\b(?:but|however|so|therefore|thus|hence|final\w*|conclu\w*|overall|correct|instead|in fact|ultimately|revis\w*|"
    r"updated?|best)\b",
    "因此|所以|综上|最终|但",
)
"""Between two answers: the second is what it comes to."""

TAKEN_BACK = _pattern(
    r"\b(?:wait|scratch that|second thought|hmm+)\b[^.;\n]{0,40}"
    r"\b(?:wrong|not right|not correct|incorrect|isn't|not sure)\b",
    rf"\bscratch that\b\W*$|^\s*,?\s*no\s+{LETTERS}",
)
"""Behind the last answer: there is none."""

REFUSAL = _pattern(
    r"\b(?:unable|unclear|unsure|uncertain|sorry|cannot|can't|couldn't|don't know|do not know|no idea|impossible|"
    r"not (?:sure|enough|able|possible|clear)|insufficient|hard to (?:say|tell)|difficult to)\b",
    "无法|不知道|不确定",
)
"""Somewhere in a response that gives no answer, whatever it mentions."""
