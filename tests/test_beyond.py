"""Dropping against rewording, item by item: the numbers of the paper's formulas, clusters, and what is claimed."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from test_paraphrase import readings, written
from typer.testing import CliRunner

from eval.paraphrase import app
from eval.runner.paraphrases import TEMPLATES, edit_percent, paraphraser
from eval.stats.beyond import beyond_table, more, relative_entropies, said_beyond
from eval.stats.intervals import McNemar
from eval.stats.noise import Reading, divergences, noise_table
from eval.synthetic.tokenizer import build_tokenizer
from pdrop_video import ConfigError

FULL, MOVED, WORDED = (0.9, 0.2, 0.6, 0.7, 0.5), (0.8, 0.4, 0.3, 0.75, 0.1), (0.85, 0.25, 0.5, 0.7, 0.45)
JSD_T, JSD_B = (0.014378, 0.034852, 0.066654, 0.002264, 0.146793), (0.004146, 0.00259, 0.007299, 0, 0.001809)
VIDEOS = [i // 3 for i in range(60)]


def of(yes: tuple[float, ...]) -> list[tuple[float, float]]:
    """Log-likelihoods of "yes" and "no", up to a constant that a softmax takes away."""
    return [(math.log(p) - 3, math.log(1 - p) - 3) for p in yes]


def test_numbers_of_the_specification() -> None:
    moved, control = divergences(of(FULL), of(MOVED)), divergences(of(FULL), of(WORDED))
    np.testing.assert_allclose(moved, JSD_T, atol=6e-7)
    np.testing.assert_allclose(control, JSD_B, atol=6e-7)
    found = more(moved, control, range(5))
    assert found.difference == pytest.approx(0.049819, abs=6e-7)
    assert found.t == pytest.approx(1.933052, abs=6e-7)
    assert found.p_value == pytest.approx(0.062687, abs=6e-7)
    assert found.d == pytest.approx(0.864487, abs=6e-7)
    assert 2 * found.p_value == pytest.approx(0.125375, abs=1.1e-6)
    assert McNemar(3, 10, 0.0).corrected == pytest.approx(2.769231, abs=6e-7)
    assert McNemar(0, 0, 1.0).corrected == McNemar(1, 1, 1.0).corrected == 0


def test_relative_entropy_by_its_definition() -> None:
    expected = [p * math.log2(p / q) + (1 - p) * math.log2((1 - p) / (1 - q)) for p, q in zip(FULL, MOVED, strict=True)]
    np.testing.assert_allclose(relative_entropies(of(FULL), of(MOVED)), expected, rtol=1e-9)
    sure, never = [(0.0, -99.0)], [(-99.0, 0.0)]
    assert relative_entropies(sure, never)[0] == pytest.approx(-math.log2(1e-10), rel=1e-6)  # the floor


def test_t_over_videos_means_where_videos_have_equally_many_items() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(60), rng.random(60)
    means = (a - b).reshape(20, 3).mean(1)
    expected = stats.ttest_1samp(means, 0, alternative="greater")
    found = more(a, b, VIDEOS, confidence=0.9)
    assert (found.t, found.p_value) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)
    assert found.bound == pytest.approx(
        stats.ttest_1samp(means, 0, alternative="less").confidence_interval(0.9).high, rel=1e-9
    )
    assert found.p_value != pytest.approx(stats.ttest_rel(a, b, alternative="greater").pvalue, rel=1e-2)
    # an item many times over is no more evidence
    assert more(np.repeat(a, 9), np.repeat(b, 9), np.repeat(VIDEOS, 9)).t == pytest.approx(found.t, rel=1e-9)


def test_nothing_shows_nothing() -> None:
    same = more([0.5, 0.2], [0.5, 0.2], "ab")
    assert (same.difference, same.t, same.p_value, same.d, same.bound) == (0, 0, 1, 0, 0)
    one = more([0.5, 0.2], [0.1, 0.1], "aa")
    assert one.p_value == 1 and math.isnan(one.bound)
    assert more([0.5, 0.5], [0.25, 0.25], "ab").p_value == 0 and more([0.25] * 2, [0.5] * 2, "ab").p_value == 1
    with pytest.raises(ConfigError, match="2 values stand against 1"):
        more([0.5, 0.2], [0.1], "ab")


def both(dropping: float, rewording: float):
    """A full model, two pruned ones, one further off, and rewordings of two sizes."""
    full, pruned, reworded = readings(0, dropping, rewording)
    further, nearer = readings(0, 2 * dropping, rewording)[1], readings(0, dropping, rewording / 4)[2]
    return (
        full,
        {"half": pruned["pruned"], "quarter": further["pruned"]},
        {"large": reworded["a"], "small": nearer["a"]},
    )


def test_rows_go_by_size_and_are_adjusted_for_the_pruned_runs() -> None:
    full, pruned, reworded = both(0.5, 0.6)
    table = beyond_table(full, pruned, reworded, VIDEOS, {"large": 60.0, "small": 20.0})
    assert table.against.tolist() == ["small"] * 4 + ["large"] * 4 and table.run.tolist() == ["half", "quarter"] * 4
    assert table.measure.tolist() == ["JSD", "JSD", "KL", "KL"] * 2
    for (against, measure), family in table.groupby(["against", "measure"]):
        first, second = family.sort_values("p_value").p_value
        assert sorted(family.p_holm) == pytest.approx(sorted((min(2 * first, 1), min(max(2 * first, second), 1))))
        bits = {"JSD": divergences, "KL": relative_entropies}[measure]
        for row in family.itertuples():
            a = bits(full.likelihoods, pruned[row.run].likelihoods)
            b = bits(full.likelihoods, reworded[against].likelihoods)
            expected = more(a, b, VIDEOS, confidence=0.975)  # of two runs
            assert (row.difference_bits, row.t, row.bound_bits) == pytest.approx(
                (expected.difference, expected.t, expected.bound)
            )
    one = table[(table.run == "quarter") & (table.against == "large")].iloc[0]
    flips = [
        [np.argmax(x) != np.argmax(y) for x, y in zip(full.likelihoods, other.likelihoods, strict=True)]
        for other in (pruned["quarter"], reworded["large"])
    ]
    alone = [sum(a and not b for a, b in zip(*pair, strict=True)) for pair in (flips, flips[::-1])]
    assert [one.only_pruned, one.only_reworded] == alone
    assert one.overlap == pytest.approx(
        sum(map(all, zip(*flips, strict=True))) / sum(map(any, zip(*flips, strict=True)))
    )
    unknown = beyond_table(full, pruned, reworded, VIDEOS, {"large": 60.0})
    assert unknown.against.tolist() == ["large"] * 4 + ["small"] * 4


def test_more_less_and_neither_are_told_apart() -> None:
    def words(dropping: float, rewording: float) -> str:
        full, pruned, reworded = readings(3, dropping, rewording)
        return said_beyond(beyond_table(full, pruned, {"a": reworded["a"]}, VIDEOS, {"a": 41.2}))[0]

    assert words(1.5, 0.4).startswith("pruned against a, 41 % of the question's tokens: +")
    assert words(1.5, 0.4).endswith("Dropping moves the answers more than this rewording does.")
    assert "less than this rewording does (upper bound -" in words(0.1, 0.8)
    assert "No more was shown; it is at most +" in words(0.4, 0.4)


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Items of one video move together: a test that counts items would raise alarms far too often."""
    rng, alarms, by_items = np.random.default_rng(7), 0, 0
    for _ in range(400):
        a, b = (rng.exponential(size=(15, 1)) + 0.1 * rng.exponential(size=(15, 6)) for _ in range(2))
        alarms += more(a.ravel(), b.ravel(), np.repeat(range(15), 6)).p_value < 0.05
        by_items += stats.ttest_rel(a.ravel(), b.ravel(), alternative="greater").pvalue < 0.05
    assert 8 <= alarms <= 33 and by_items > 60  # 20 of 400, three standard deviations of 4.4


def test_the_control_of_the_harness() -> None:
    full, pruned, reworded = readings(0, 1, 1)
    rows = noise_table(full, pruned, reworded, VIDEOS, again=Reading(list(full.likelihoods), full.scores)).set_index(
        "run"
    )
    assert rows.kind["full, again"] == "control" and rows.divergence_bits["full, again"] == 0
    assert noise_table(full, pruned, reworded, VIDEOS).kind.tolist() == ["reference", "reworded", "reworded", "pruned"]


@pytest.mark.parametrize(
    ("original", "edited", "percent"),
    [
        ("abcd", "abcd", 0),
        ("abcd", "abxd", 25),
        ("abcd", "xabcd", 25),
        ("abcd", "cd", 50),
        ("ab", "xyzw", 200),
        ("", "ab", 200),
    ],
)
def test_edits_in_per_cent_of_the_original(original: str, edited: str, percent: float) -> None:
    assert edit_percent(original, edited) == percent


def test_edits_are_distances() -> None:
    def plain(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(plain(a[1:], b) + 1, plain(a, b[1:]) + 1, plain(a[1:], b[1:]) + (a[0] != b[0]))

    rng = np.random.default_rng(1)
    for _ in range(30):
        a, b = ("".join(rng.choice(list("abc"), int(rng.integers(1, 6)))) for _ in range(2))
        assert edit_percent(a, b) == pytest.approx(100 * plain(a, b) / len(a))


def test_runs_say_how_large_their_edits_are(tmp_path: Path) -> None:
    full = [(0.0, -2.0)] * 4
    folders = {
        "full": written(tmp_path / "full", full),
        "again": written(tmp_path / "again", full),
        "pruned": written(tmp_path / "pruned", [(0.0, -2.0), (-2.0, 0.0), (-2.0, 0.0), (-2.0, 0.0)]),
        "please": written(tmp_path / "please", [(0.0, -2.0), (0.0, -2.0), (0.0, -1.0), (0.0, -2.0)]),
        "other": written(tmp_path / "other", [(0.0, -1.5)] * 4),
    }
    header = {"task": "toy", "config_digest": "c", "model": "built-in", "configuration": {"paraphrase": "please"}}
    (tmp_path / "please" / "run.json").write_text(json.dumps(header))
    command = ["runs", folders["full"], "--pruned", folders["pruned"], "--again", folders["again"], "--json"]
    command += ["--reworded", folders["other"], "--reworded", folders["please"], "--out", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    figures = json.loads(ran.stdout.splitlines()[-1])
    tokens = len(paraphraser("please")("").lower().replace(".", " .").split())  # "Please answer this question ."
    assert [row["against"] for row in figures["beyond"]] == ["please"] * 2 + ["other"] * 2
    assert figures["beyond"][0]["edit_percent"] >= 100 * tokens / 2  # "Which ?" has two
    assert figures["beyond"][2]["edit_percent"] is None
    assert "The size of the edit of other is not known: its header names no paraphrase." in figures["said"]
    assert any(
        said.startswith("Control: the full model asked the same again gives the same") for said in figures["said"]
    )
    assert "full, again" in {row["run"] for row in figures["rows"]}
    assert (tmp_path / "out" / "beyond.csv").read_text().count("\n") == 5
    moved = written(tmp_path / "moved", [(0.0, -2.0), (0.0, -2.1)] * 2)
    command[command.index("--again") + 1] = moved
    said = json.loads(CliRunner().invoke(app, command).stdout.splitlines()[-1])["said"]
    assert any(each.startswith("CONTROL FAILED: ") for each in said)


def test_templates_are_edits_of_several_sizes() -> None:
    tokens = build_tokenizer()
    question = "Which colour is shown first in the video?"
    sizes = {
        rule: edit_percent(*(tokens(text).input_ids for text in (question, paraphraser(rule)(question))))
        for rule in TEMPLATES
    }
    assert len(set(sizes.values())) >= 3 and all(size > 0 for size in sizes.values())
