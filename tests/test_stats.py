"""The statistics of the tables against closed forms, worked examples and plain loops."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from eval.stats.bounds import mean_interval, paired_interval, t_interval, tango_bound, wilson
from eval.stats.intervals import clustered_mean, design_effect, holm, mcnemar, permutation_test
from eval.stats.margins import items_needed, non_inferiority
from pdrop_video import ConfigError


def drawn(seed: int, videos: int, each: int) -> tuple[list[bool], list[bool], list[str]]:
    """Answers of two runs that share each video's difficulty."""
    rng = np.random.default_rng(seed)
    easy = np.repeat(rng.random(videos), each)
    first, second = rng.random(videos * each) < easy, rng.random(videos * each) < easy * 0.9
    return list(first), list(second), [f"v{i // each}" for i in range(videos * each)]


def test_one_item_a_video_is_the_textbook_standard_error() -> None:
    values = [1.0, 0.0, 0.0, 1.0, 1.0, 0.5]
    mean = clustered_mean(values, range(6))
    assert mean.value == pytest.approx(np.mean(values))
    assert mean.standard_error == pytest.approx(scipy_stats.sem(values))  # sqrt(s^2 / n)


def test_clustered_standard_error_by_loops() -> None:
    first, _, clusters = drawn(0, videos=7, each=3)
    first, clusters = first[:-2], clusters[:-2]  # videos of unequal size
    mean = sum(first) / len(first)
    total = 0.0
    for video in sorted(set(clusters)):
        total += sum(f - mean for f, c in zip(first, clusters, strict=True) if c == video) ** 2
    expected = math.sqrt(7 / 6 * total) / len(first)
    assert clustered_mean(first, clusters).standard_error == pytest.approx(expected, rel=1e-12)


def test_copies_of_an_item_add_no_information() -> None:
    values = [1.0, 0.0, 1.0, 1.0]
    once = clustered_mean(values, "abcd")
    thrice = clustered_mean(values * 3, "abcd" * 3)
    assert thrice.standard_error == pytest.approx(once.standard_error)
    # the independent variance is s^2 / 12 with s^2 = 3/4 * 12/11 / 4; the clustered one s^2 / 4 with 3/4 * 4/3 / 4
    assert design_effect(values * 3, "abcd" * 3) == pytest.approx((0.25 / 4) / (0.1875 * 12 / 11 / 12))


def test_one_video_says_nothing_of_the_spread() -> None:
    assert math.isnan(clustered_mean([1, 0, 1], "aaa").standard_error)
    first, second = [True, True], [True, False]
    assert math.isnan(paired_interval(first, second, "aa").low) and math.isnan(mean_interval([1, 0], "aa").high)
    found = non_inferiority(first, second, "aa", 0.9)
    assert math.isnan(found.bound) and not found.shown


def test_mcnemar_by_the_binomial_sum() -> None:
    first = [True] * 12 + [False] * 5 + [True] * 20 + [False] * 3
    second = [False] * 12 + [True] * 5 + [True] * 20 + [False] * 3
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (12, 5)
    tail = sum(math.comb(17, k) for k in range(6)) / 2**17  # 5 or fewer of 17 at one half
    assert found.p_value == pytest.approx(2 * tail, rel=1e-12)
    assert mcnemar(second, first).p_value == found.p_value


def test_mcnemar_without_discordant_items() -> None:
    assert mcnemar([True, False], [True, False]).p_value == 1.0


def test_an_interval_is_student_s_by_videos() -> None:
    # differences +1, 0 | -1, -1 | 0, 0: mean -1/6, sums of residuals 4/3, -5/3, 1/3 -> 3/2 * 42/9 / 36
    first, second = [False, True, True, True, True, True], [True, True, False, False, True, True]
    error = math.sqrt(1.5 * (16 + 25 + 1) / 9) / 6
    found = paired_interval(first, second, "aabbcc", confidence=0.5)
    reach = 0.816496580927726 * error  # of two degrees of freedom
    assert (found.low, found.high) == pytest.approx((-1 / 6 - reach, -1 / 6 + reach))
    assert paired_interval(first, second, "aabbcc").high == 1.0  # no difference is larger
    assert t_interval(0.0, 1.0, 1001).high == pytest.approx(1.9623, abs=1e-4)


def test_an_interval_of_many_videos_is_the_normal_one() -> None:
    first, second, clusters = drawn(1, videos=300, each=3)
    difference = clustered_mean(np.subtract(second, first, dtype=float), clusters)
    found = paired_interval(first, second, clusters)
    z = scipy_stats.norm.ppf(0.975)
    assert found.low == pytest.approx(difference.value - z * difference.standard_error, abs=0.001)
    assert found.high == pytest.approx(difference.value + z * difference.standard_error, abs=0.001)


def test_an_interval_counts_whole_videos() -> None:
    first, second, clusters = drawn(2, videos=60, each=2)
    difference = clustered_mean(np.subtract(second, first, dtype=float), clusters)
    once = t_interval(difference.value, difference.standard_error, 60)
    copied = paired_interval(first * 4, second * 4, clusters * 4)  # of 480 items, which Tango's takes as independent
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high), abs=1e-12)


def test_few_videos_that_show_no_spread_prove_little() -> None:
    same = paired_interval([1, 0, 1], [1, 0, 1], "abc")
    assert same.low == pytest.approx(tango_bound(0, 0, 3, 0.975)) and same.high == -same.low
    right = mean_interval([1, 1, 1], "abc")
    z2 = scipy_stats.norm.ppf(0.975) ** 2
    assert (right.low, right.high) == pytest.approx((3 / (3 + z2), 1.0))  # Wilson's where all are right
    assert wilson(0.0, 3)[1] == pytest.approx(1 - right.low)
    half = mean_interval([0.5, 0.5, 0.5], "abc")
    assert (half.low, half.high) == (0.5, 0.5)  # no share of right answers: nothing but the spread is known
    graded = paired_interval([0.5, 0.5, 0.5], [0.6, 0.6, 0.7], "abc")
    assert graded.low == pytest.approx(0.4 / 3 - 4.302652729911275 * 0.1 / 3)


def hard(rng: np.random.Generator, videos: int, each: int) -> tuple[list[float], list[float], float]:
    """Runs that hardly differ, but on some videos: most videos have no answer that changed. And the true difference."""
    base = np.repeat(rng.beta(2, 1, videos), each)
    first = rng.random(videos * each) < base
    changed = rng.random(videos * each) < np.repeat(rng.beta(0.5, 4, videos), each)
    return list(first * 1.0), list((first ^ changed) * 1.0), 0.5 / 4.5 * (1 - 2 * 2 / 3)


def easy(rng: np.random.Generator, videos: int, each: int) -> tuple[list[float], list[float], float]:
    """Runs that differ on every video."""
    share = np.repeat(rng.random(videos), each)
    return list((rng.random(videos * each) < share) * 1.0), list((rng.random(videos * each) < share * 0.9) * 1.0), -0.05


@pytest.mark.parametrize("drawn_by", [easy, hard])
@pytest.mark.parametrize("videos", [5, 10, 30])
def test_intervals_hold_as_often_as_they_say(drawn_by, videos: int) -> None:
    """Of 600 seeded draws .95 hold, less four standard errors of such a count: .914."""
    rng, held, held_one_sided = np.random.default_rng(videos), 0, 0
    for _ in range(600):
        first, second, true = drawn_by(rng, videos, 3)
        clusters = np.arange(videos * 3) // 3
        found = paired_interval(first, second, clusters)
        held += found.low <= true <= found.high
        held_one_sided += paired_interval(first, second, clusters, 0.9).low <= true
    assert held / 600 > 0.914 and held_one_sided / 600 > 0.914


@pytest.mark.parametrize("videos", [5, 10, 30])
def test_an_accuracy_s_interval_holds_as_often_as_it_says(videos: int) -> None:
    rng, held = np.random.default_rng(videos), 0
    for _ in range(600):
        scores, _, _ = hard(rng, videos, 3)
        found = mean_interval(scores, np.arange(videos * 3) // 3)
        held += found.low <= 2 / 3 <= found.high
    assert held / 600 > 0.914


@pytest.mark.parametrize("items", [5, 60, 2700])
def test_tango_without_discordant_items(items: int) -> None:
    z2 = scipy_stats.norm.ppf(0.95) ** 2
    assert tango_bound(0, 0, items) == pytest.approx(-z2 / (items + z2), abs=1e-8)


@pytest.mark.parametrize(("only_first", "only_second", "items"), [(12, 9, 50), (0, 4, 30), (7, 0, 30), (40, 31, 900)])
def test_tango_is_where_the_score_test_turns(only_first: int, only_second: int, items: int) -> None:
    """At the bound the score statistic is z, with the nuisance parameter found by a search instead of the formula."""
    bound = tango_bound(only_first, only_second, items)
    both = items - only_first - only_second
    shares = np.linspace(max(0.0, -bound), (1 - bound) / 2, 400_001)[1:-1]
    likelihood = (
        only_first * np.log(shares) + only_second * np.log(shares + bound) + both * np.log(1 - 2 * shares - bound)
    )
    share = shares[np.argmax(likelihood)]
    statistic = (only_second - only_first - items * bound) / math.sqrt(items * (2 * share + bound - bound**2))
    assert statistic == pytest.approx(scipy_stats.norm.ppf(0.95), abs=2e-3)


def test_tango_of_all_or_nothing() -> None:
    z2 = scipy_stats.norm.ppf(0.95) ** 2
    assert tango_bound(0, 20, 20) == pytest.approx((20 - z2) / (20 + z2), abs=1e-8)
    assert tango_bound(20, 0, 20) == -1.0


def test_equal_answers_on_few_items_are_not_called_non_inferior() -> None:
    few = non_inferiority([True] * 5, [True] * 5, range(5), margin=0.03)
    assert few.bound == pytest.approx(-0.3511, abs=1e-4) and not few.shown
    many = non_inferiority([True] * 900, [True] * 900, range(900), margin=0.03)
    assert many.shown


def test_non_inferiority_counts_videos() -> None:
    first = [True] * 400
    lost = non_inferiority(first, [i >= 40 for i in range(400)], [i // 40 for i in range(400)], margin=0.15)
    alone = non_inferiority(first, [i >= 40 for i in range(400)], range(400), margin=0.15)
    assert not lost.shown and alone.shown  # one video in ten is lost as a whole: the next ten may hold two


def test_the_margin_must_be_a_share() -> None:
    with pytest.raises(ConfigError, match=r"0\.03 for 3 points"):
        non_inferiority([True], [True], "a", margin=3)


def test_permutation_test_by_enumeration() -> None:
    measured, noise, clusters = [0.9, 0.2, 0.5, 0.4], [0.1, 0.3, 0.2, 0.1], "aabc"
    sums = [(1.1, 0.4), (0.5, 0.2), (0.4, 0.1)]
    observed = sum(m - n for m, n in sums)
    ways = [
        sum((m - n) * sign for (m, n), sign in zip(sums, signs, strict=True))
        for signs in itertools.product((1, -1), repeat=3)
    ]
    expected = sum(way >= observed - 1e-12 for way in ways) / len(ways)
    assert expected == 1 / 8
    assert permutation_test(measured, [noise], clusters) == pytest.approx(expected)


def test_permutation_test_with_two_columns_of_noise() -> None:
    # three columns can be arranged in 6 ways a video; the measured column is largest in both videos: p = (2/6)^2
    assert permutation_test([3.0, 5.0], [[1.0, 2.0], [2.0, 1.0]], "ab") == pytest.approx(1 / 9)


def test_permutation_test_under_the_null_keeps_its_level() -> None:
    rng = np.random.default_rng(3)
    rejected = sum(
        permutation_test(rng.random(40), [rng.random(40)], np.arange(40) // 2, seed=i) < 0.2 for i in range(60)
    )
    assert 4 <= rejected <= 21  # 60 * .2 = 12, three standard deviations of 3.1


def test_holm_by_hand() -> None:
    # sorted .01 .02 .04 -> 3 * .01, max(.03, 2 * .02), max(.04, .04)
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_power_is_what_a_simulation_finds() -> None:
    items = items_needed(0.06, 0.12)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(items, [0.09, 0.03, 0.88], size=4000)
    seen = np.mean([scipy_stats.binomtest(int(a), int(a + b)).pvalue < 0.05 for a, b, _ in counts])
    assert seen == pytest.approx(0.8, abs=0.05)  # the exact test is a little more careful than the formula
    assert items_needed(0.06, 0.12, design_effect=2) == pytest.approx(2 * items, abs=1)


def test_bad_input_says_what_was_expected() -> None:
    with pytest.raises(ConfigError, match="3 scores stand against 2"):
        mcnemar([True, True, False], [True, False])
    with pytest.raises(ConfigError, match="no items"):
        mcnemar([], [])
    with pytest.raises(ConfigError, match="2 values have 1 clusters"):
        clustered_mean([1, 0], "a")
    with pytest.raises(ConfigError, match="difference <= discordance"):
        items_needed(0.2, 0.1)
