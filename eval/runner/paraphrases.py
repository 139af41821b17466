"""Questions in other words that keep the answer, by rule or from a file, and how large an edit that is.

Knows text; refuses to know items.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TypeAlias

from pdrop_video.common.checks import shown, text
from pdrop_video.errors import ConfigError

TEMPLATES = {
    "please": "Please answer this question. {question}",
    "about": "Here is a question about the video. {question}",
    "watched": "You have watched the video. {question}",
    "tell": "Tell me, going by the video: {question}",
    "attention": "{question} Pay attention to the video.",
}
"""What stands around a question and can't change its answer, by name."""


Paraphrase: TypeAlias = Callable[[str], str]
"""From a question to the same in other words."""


def paraphraser(rule: str) -> Paraphrase:
    """A function from a question to its paraphrase.

    Parameters
    ----------
    rule : str
        A name in `TEMPLATES`, or a file of JSON lines {"question": ..., "paraphrase": ...} with one for each question.

    Raises
    ------
    ConfigError
        If there is no such rule, the file is not in that form, or, when called, if it lacks the question.
    """
    if rule in TEMPLATES:
        return lambda question: TEMPLATES[rule].format(question=question)
    written = _read(rule)

    def from_file(question: str) -> str:
        if question not in written:
            raise ConfigError(
                f"{rule} has no paraphrase of {question!r}; expected a line for every question, its text unchanged."
            )
        return written[question]

    return from_file


def reworded(prompt: str, question: str, paraphrase: Paraphrase) -> str:
    """A prompt with its question in other words; all that stands around the question stays.

    Raises
    ------
    ConfigError
        If the prompt does not hold the question.
    """
    if not question or question not in prompt:
        raise ConfigError(
            f"the question {question[:60]!r} is not in its prompt {prompt[:60]!r}..., so it can't be put in other "
            "words; leave --paraphrase out."
        )
    before, _, behind = prompt.rpartition(question)  # an earlier turn may have asked the same
    return before + paraphrase(question) + behind


def edit_percent(original: Sequence[Hashable], edited: Sequence[Hashable]) -> float:
    """Token edit distance (Levenshtein's) in per cent of the original's length.

    Parameters
    ----------
    original, edited : sequence of hashable
        Tokens, as the model that is evaluated has them. Of no tokens the distance is counted from one.

    Examples
    --------
    >>> edit_percent("which colour is first".split(), "say which colour comes first".split())
    50.0
    """
    costs = list(range(len(edited) + 1))
    for i, token in enumerate(original, 1):
        diagonal, costs[0] = costs[0], i
        for j, other in enumerate(edited, 1):
            diagonal, costs[j] = costs[j], min(costs[j] + 1, costs[j - 1] + 1, diagonal + (token != other))
    return 100 * costs[-1] / max(len(original), 1)


def _read(rule: str) -> dict[str, str]:
    path = Path(rule)
    if not path.is_file():
        raise ConfigError(
            f"there is no rule or file {shown(rule)}; expected one of {', '.join(TEMPLATES)}, or a JSONL file."
        )
    written = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{rule} can't be read ({error}); expected a JSONL file.") from error
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            question, paraphrase = text("question", entry["question"]), text("paraphrase", entry["paraphrase"])
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f'line {number} of {rule} is {shown(line)}; expected {{"question": ..., "paraphrase": ...}}.'
            ) from error
        written[question] = paraphrase
    return written
