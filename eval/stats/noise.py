"""The noise floor: how far answers move when only the question is worded anew, beside how far dropping moves them.

A pruned model's answers differ from the full model's; so do the full model's own when a question is asked in other
words that mean the same. Only what exceeds the second is an effect of pruning ("Compared to What?", arXiv 2605.01048).
Knows the likelihoods of options and the video of each item; refuses to know records and models.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from pdrop_video.errors import ConfigError

from .intervals import clustered_mean, permutation_test

Likelihoods = Sequence[Sequence[float]]
"""For each item the length-normalised log-likelihood of each of its options."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How one model, asked in one wording, sees the options of the same items.

    Attributes
    ----------
    likelihoods : sequence of sequence of float
    scores : sequence of float
        What each answer is worth, 0 to 1.
    """

    likelihoods: Likelihoods
    scores: Sequence[float]


def divergences(first: Likelihoods, second: Likelihoods) -> NDArray[np.float64]:
    """The Jensen-Shannon divergence of two models' option probabilities, item by item.

    Option probabilities are the softmax of the log-likelihoods. 0 bits are the same probabilities, 1 bit is certainty
    about different options.

    Returns
    -------
    ndarray [items]
        In bits.
    """
    found = np.empty(len(first))
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        if len(a) != len(b):
            raise ConfigError(f"item {i} has {len(a)} options in one run and {len(b)} in the other; expected the same.")
        p, q = softmax(a), softmax(b)
        if not (np.isfinite(p).all() and np.isfinite(q).all()):
            raise ConfigError(f"item {i} has log-likelihoods {tuple(a)} and {tuple(b)}; expected numbers, some finite.")
        # the library gives its square root, nan where rounding made it a little negative
        found[i] = np.nan_to_num(jensenshannon(p, q, base=2)) ** 2
    return found


def changed(first: Likelihoods, second: Likelihoods) -> NDArray[np.float64]:
    """1 where the likeliest option is another one, else 0."""
    return np.array([float(np.argmax(a) != np.argmax(b)) for a, b in zip(first, second, strict=True)])


def noise_table(
    full: Reading,
    pruned: Mapping[str, Reading],
    reworded: Mapping[str, Reading],
    videos: Sequence[Hashable],
    seed: int = 0,
    again: Reading | None = None,
) -> pd.DataFrame:
    """One row for each reading: how far it is from the full model in the first wording, and whether beyond rewording.

    Parameters
    ----------
    full : Reading
    pruned, reworded : mapping of str to Reading
        By name: models with fewer tokens in the first wording, and the full model in other wordings.
    videos : sequence of hashable
        The video of each item.
    seed : int
        Of the permutation test.
    again : Reading, optional
        The full model in the first wording a second time: the control of the harness, whose divergence must be 0.

    Returns
    -------
    DataFrame
        `p_value` is one-sided: the chance of so large a divergence, were pruning just another wording. It is missing
        for the wordings themselves. Standard errors are clustered by video.
    """
    if not pruned or not reworded:
        raise ConfigError(
            f"there are {len(pruned)} pruned runs and {len(reworded)} reworded ones; expected one or more of each."
        )
    floor = [divergences(full.likelihoods, reading.likelihoods) for reading in reworded.values()]
    rows = [_row("full", "reference", full, full, videos)]
    if again is not None:
        rows.append(_row("full, again", "control", full, again, videos))
    for name, reading in reworded.items():
        rows.append(_row(name, "reworded", full, reading, videos))
    for name, reading in pruned.items():
        measured = divergences(full.likelihoods, reading.likelihoods)
        p = permutation_test(measured, floor, videos, seed=seed)
        rows.append(_row(name, "pruned", full, reading, videos) | {"p_value": p})
    return pd.DataFrame(rows)


def _row(name: str, kind: str, full: Reading, reading: Reading, videos: Sequence[Hashable]) -> dict[str, object]:
    divergence = clustered_mean(divergences(full.likelihoods, reading.likelihoods), videos)
    moved = clustered_mean(changed(full.likelihoods, reading.likelihoods), videos)
    accuracy = clustered_mean(reading.scores, videos)
    return {
        "run": name,
        "kind": kind,
        "items": divergence.items,
        "videos": divergence.clusters,
        "divergence_bits": divergence.value,
        "divergence_error": divergence.standard_error,
        "changed": moved.value,
        "changed_error": moved.standard_error,
        "accuracy": accuracy.value,
        "accuracy_error": accuracy.standard_error,
    }


def said(table: pd.DataFrame, alpha: float = 0.05) -> list[str]:
    """One sentence for each pruned run, which claims no more than was shown."""
    floor = table[table.kind == "reworded"].divergence_bits.mean()
    sentences = []
    for row in table[table.kind == "control"].itertuples():
        if row.divergence_bits:
            sentences.append(
                f"CONTROL FAILED: the full model asked the same again is {row.divergence_bits:.2g} bits from itself; "
                "no difference of that size means anything."
            )
        else:
            sentences.append("Control: the full model asked the same again gives the same answers, to the last bit.")
    for row in table[table.kind == "pruned"].itertuples():
        times = f", {row.divergence_bits / floor:.1f} times as much" if floor else ""
        shows = (
            "Dropping moves the answers more than rewording does."
            if row.p_value < alpha
            else "It was not shown that dropping moves the answers more than rewording does; it may."
        )
        sentences.append(
            f"{row.run}: {row.divergence_bits:.4f} bits from the full model, rewording alone {floor:.4f}{times} "
            f"(permutation p = {row.p_value:.2g}). {shows}"
        )
    return sentences
