"""The noise floor on synthetic videos: questions in several phrasings, put to the full model, in one to pruned models.

A question's options are compared by their likelihoods. Watches through the real streaming path.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

import pdrop_video as pv

from ..runner.paraphrases import edit_percent
from ..stats.noise import Reading
from .phrasings import phrasings
from .quiz import KINDS, Question
from .score import clips, watch
from .world import generator


@dataclass
class Readings:
    """What every model said about every question in every wording.

    Attributes
    ----------
    videos : list of int
        The clip of each question.
    likelihoods, scores : dict of str to list
        By name: "full", "again" for the full model that watches and is asked the same once more, the pruned models'
        names, and "wording 1" and so on for the full model in other words, from the least of an edit to the largest.
    edits : dict of str to list
        Of each other wording its token edit distance from the first, in per cent.
    """

    videos: list[int] = field(default_factory=list)
    likelihoods: dict[str, list[tuple[float, ...]]] = field(default_factory=lambda: defaultdict(list))
    scores: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    edits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def of(self, name: str) -> Reading:
        """One of them."""
        return Reading(self.likelihoods[name], self.scores[name])


def most_wordings(split: str) -> int:
    """Other wordings that questions of every kind have in a split."""
    return min(len(phrasings(kind, split)) for kind in KINDS) - 1


def wordings(question: Question, split: str, number: int, rng: np.random.Generator) -> list[str]:
    """So many other sentences that ask the same."""
    others = [text for text in question.wordings(split) if text != question.text]
    return [str(text) for text in rng.choice(others, number, replace=False)]


def read(
    lm: pv.VideoLM, pruned: Mapping[str, pv.Pyramid], seed: int, wanted: int, split: str, number: int, chunk: int = 8
) -> Iterator[Readings]:
    """Watch and ask, video after video; yields the growing readings after each.

    Parameters
    ----------
    lm : VideoLM
    pruned : mapping of str to Pyramid
    seed, wanted, split
        As `eval.synthetic.score` takes them: which clips, how many questions.
    number : int
        Other wordings a question.
    chunk : int
        Frames a push.

    Raises
    ------
    ConfigError
        If the split has fewer wordings.
    """
    if not 1 <= number <= most_wordings(split):
        raise pv.ConfigError(
            f"{number} other wordings were asked for; the {split} split has 1 to {most_wordings(split)} of every kind."
        )
    readings = Readings()
    for index, path, asked in clips(seed, wanted, split):
        rng = generator(split, seed, index, 11)
        full, again = (watch(lm, pv.Pyramid(stages=1), path, chunk) for _ in range(2))
        streams = {name: watch(lm, pyramid, path, chunk) for name, pyramid in pruned.items()}
        for question in asked:
            put = [("full", full, question.text), ("again", again, question.text)]
            put += [(name, stream, question.text) for name, stream in streams.items()]
            others = [(_edited(lm, question.text, text), text) for text in wordings(question, split, number, rng)]
            for i, (edit, text) in enumerate(sorted(others), 1):
                put.append((f"wording {i}", full, text))
                readings.edits[f"wording {i}"].append(edit)
            words = question.options
            for name, stream, text in put:
                found = stream.likelihood(text, words)
                readings.likelihoods[name].append(found)
                readings.scores[name].append(float(words[int(np.argmax(found))] == question.answer))
            readings.videos.append(index)
        yield readings


def _edited(lm: pv.VideoLM, first: str, second: str) -> float:
    """Their token edit distance in per cent, by the model's own tokens."""
    tokenizer = lm.prompt.tokenizer
    return edit_percent(*(tokenizer(text, add_special_tokens=False)["input_ids"] for text in (first, second)))
