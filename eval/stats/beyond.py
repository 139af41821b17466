"""Beyond rewording: the paired test of "Compared to What?" (arXiv 2605.01048), for models that drop tokens.

Each item is its own control: how far dropping moves its answer, less how far a rewording of a known size does. Knows
the likelihoods of options and the video of each item; refuses to know records, models and words.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.special import softmax

from pdrop_video.errors import ConfigError

from .intervals import Values, clustered_mean, holm, mcnemar
from .noise import Likelihoods, Reading, changed, divergences

FLOOR = 1e-10
"""Least probability in a relative entropy, as the authors' code has it."""
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class More:
    """How much larger one measure is than another on the same items.

    Attributes
    ----------
    difference, standard_error : float
        Mean difference, and its error clustered by video.
    t, p_value : float
        One-sided: that the difference is 0 or less. With fewer than two videos, or no difference anywhere, 1.
    bound : float
        One-sided upper confidence bound of the mean difference; nan with fewer than two videos.
    d : float
        Cohen's: the mean difference by the standard deviation of the items' differences; 0 where they are all 0.
    """

    difference: float
    standard_error: float
    t: float
    p_value: float
    bound: float
    d: float


def relative_entropies(full: Likelihoods, other: Likelihoods) -> NDArray[np.float64]:
    """KL(full || other) of two models' option probabilities, item by item, in bits.

    What the full model holds possible and the other one does not weighs most. Probabilities below 1e-10 count as that.
    """
    found = np.empty(len(full))
    for i, (a, b) in enumerate(zip(full, other, strict=True)):
        p, q = (np.maximum(softmax(each), FLOOR) for each in (a, b))
        found[i] = (p * np.log2(p / q)).sum()
    return found


MEASURES = {"JSD": divergences, "KL": relative_entropies}
"""How far an item's answer has moved, in bits, by name."""


def more(measured: Values, control: Values, videos: Sequence[Hashable], confidence: float = 1 - ALPHA) -> More:
    """Whether `measured` is larger than `control` on the same items, counted by videos.

    t is the mean difference by its standard error clustered by video, with a degree of freedom less than there are
    videos: with one item a video the paired t-test of the paper, with equally many the t-test over videos' means.

    Parameters
    ----------
    measured, control : sequence of float
        One value an item.
    videos : sequence of hashable
        The video of each item.
    confidence : float
        One-sided level of the bound.
    """
    if len(measured) != len(control):
        raise ConfigError(f"{len(measured)} values stand against {len(control)}; expected the same items.")
    difference = np.subtract(measured, control)
    mean = clustered_mean(difference, videos)
    spread = float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    d = mean.value / spread if spread else 0.0
    if math.isnan(mean.standard_error):
        return More(mean.value, math.nan, math.nan, 1.0, math.nan, d)
    if not mean.standard_error:  # all videos differ by the same
        t = math.copysign(math.inf, mean.value) if mean.value else 0.0
        return More(mean.value, 0.0, t, 0.0 if t > 0 else 1.0, mean.value, d)
    t, free = mean.value / mean.standard_error, mean.clusters - 1
    bound = mean.value + float(stats.t.ppf(confidence, free)) * mean.standard_error
    return More(mean.value, mean.standard_error, t, float(stats.t.sf(t, free)), bound, d)


def beyond_table(
    full: Reading,
    pruned: Mapping[str, Reading],
    reworded: Mapping[str, Reading],
    videos: Sequence[Hashable],
    edits: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Whether dropping moves answers more than rewording: a row for each pruned run, rewording and measure.

    Parameters
    ----------
    full : Reading
    pruned, reworded : mapping of str to Reading
        By name, on the same items; see `eval.stats.noise.noise_table`.
    videos : sequence of hashable
        The video of each item.
    edits : mapping of str to float, optional
        Of each rewording the mean token edit distance from the first wording, in per cent of its tokens.

    Returns
    -------
    DataFrame
        From the smallest edit to the largest; those of unknown size come last. `p_holm` is adjusted for the number of
        pruned runs, and so is the level of `bound_bits`. `only_pruned` and `only_reworded` count answers that one of
        the two changed alone, with McNemar's statistic and exact p; `overlap` is Jaccard's, of the answers changed.
    """
    sizes = {name: (edits or {}).get(name, math.nan) for name in reworded}
    by_size = sorted(reworded, key=lambda name: (math.isnan(sizes[name]), sizes[name]))
    confidence = 1 - ALPHA / len(pruned)
    rows: list[dict[str, Any]] = []
    for against in by_size:
        moved = changed(full.likelihoods, reworded[against].likelihoods)
        for measure, bits in MEASURES.items():
            control = bits(full.likelihoods, reworded[against].likelihoods)
            family: list[dict[str, Any]] = []
            for name, reading in pruned.items():
                found = more(bits(full.likelihoods, reading.likelihoods), control, videos, confidence)
                flips = changed(full.likelihoods, reading.likelihoods)
                test = mcnemar(flips, moved)
                either = np.maximum(flips, moved).sum()
                family.append(
                    {
                        "run": name,
                        "against": against,
                        "edit_percent": sizes[against],
                        "measure": measure,
                        "items": len(control),
                        "videos": len(set(videos)),
                        "difference_bits": found.difference,
                        "standard_error": found.standard_error,
                        "t": found.t,
                        "p_value": found.p_value,
                        "cohens_d": found.d,
                        "bound_bits": found.bound,
                        "only_pruned": test.only_first,
                        "only_reworded": test.only_second,
                        "mcnemar": test.corrected,
                        "p_mcnemar": test.p_value,
                        "overlap": float((flips * moved).sum() / either) if either else math.nan,
                    }
                )
            for row, p in zip(family, holm([row["p_value"] for row in family]), strict=True):
                row["p_holm"] = p
            rows += family
    return pd.DataFrame(rows)


def said_beyond(table: pd.DataFrame, alpha: float = ALPHA) -> list[str]:
    """One sentence for each pruned run and rewording, by JSD: more than it, less, or neither shown."""
    sentences = []
    for row in table[table.measure == "JSD"].itertuples():
        size = "" if pd.isna(row.edit_percent) else f", {row.edit_percent:.0f} % of the question's tokens"
        figures = f"{row.difference_bits:+.4f} bits, paired by video, p = {row.p_holm:.2g} after Holm"
        bound = "unknown" if pd.isna(row.bound_bits) else f"{row.bound_bits:+.4f}"
        if row.p_holm < alpha:
            shows = "Dropping moves the answers more than this rewording does."
        elif row.bound_bits < 0:
            shows = f"Dropping moves the answers less than this rewording does (upper bound {bound})."
        else:
            shows = f"No more was shown; it is at most {bound} bits (upper bound)."
        sentences.append(f"{row.run} against {row.against}{size}: {figures}. {shows}")
    return sentences
