"""The noise floor: divergences by hand, what is claimed, and paraphrases that keep the question."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from typer.testing import CliRunner

import pdrop_video as pv
from eval.paraphrase import app
from eval.runner.paraphrases import TEMPLATES, paraphraser
from eval.stats.noise import Reading, changed, divergences, noise_table, said
from eval.stats.record import Record, Turn
from eval.synthetic.phrasings import phrasings
from eval.synthetic.quiz import Question
from eval.synthetic.reworded import read, wordings
from eval.synthetic.score import clips, watch
from pdrop_video import ConfigError
from pdrop_video.common.journal import Journal


def test_divergence_by_its_definition() -> None:
    first, second = [(0.0, -1.0, -3.0)], [(-2.0, -0.5, -1.0)]
    p, q = softmax(first[0]), softmax(second[0])
    middle = (p + q) / 2
    expected = sum(a * math.log2(a / m) for a, m in zip(p, middle, strict=True)) / 2
    expected += sum(b * math.log2(b / m) for b, m in zip(q, middle, strict=True)) / 2
    assert divergences(first, second)[0] == pytest.approx(expected, rel=1e-9)
    assert divergences(second, first)[0] == pytest.approx(expected, rel=1e-9)


def test_divergence_from_nothing_to_one_bit() -> None:
    assert divergences([(-1.0, -2.0)], [(-1.0, -2.0)])[0] == 0
    assert divergences([(-1.0, -2.0)], [(-5.0, -6.0)])[0] == pytest.approx(0, abs=1e-12)  # only ratios count
    assert divergences([(0.0, -99.0)], [(-99.0, 0.0)])[0] == pytest.approx(1)
    with pytest.raises(ConfigError, match="item 0 has 2 options in one run and 3 in the other"):
        divergences([(0.0, -1.0)], [(0.0, -1.0, -2.0)])
    with pytest.raises(ConfigError, match=r"item 1 has log-likelihoods .*nan.*; expected numbers"):
        divergences([(0.0, -1.0), (0.0, -1.0)], [(0.0, -1.0), (math.nan, -1.0)])


def test_changed_answers() -> None:
    assert changed([(0.0, -1.0), (-1.0, 0.0)], [(-1.0, 0.0), (-2.0, 0.0)]).tolist() == [1, 0]


def readings(seed: int, dropping: float, rewording: float, items: int = 60):
    """A full model, one pruned and two reworded ones that move each log-likelihood by so much noise."""
    rng = np.random.default_rng(seed)
    full = rng.normal(size=(items, 4))

    def moved(by: float) -> Reading:
        return Reading((full + by * rng.normal(size=full.shape)).tolist(), [1.0] * items)

    return (
        Reading(full.tolist(), [1.0] * items),
        {"pruned": moved(dropping)},
        {"a": moved(rewording), "b": moved(rewording)},
    )


def test_more_than_rewording_is_seen_and_as_much_is_not() -> None:
    videos = [i // 3 for i in range(60)]
    loud = noise_table(*readings(0, dropping=1.5, rewording=0.4), videos)
    assert loud.set_index("run").p_value["pruned"] < 0.001
    assert said(loud)[0].endswith("Dropping moves the answers more than rewording does.")
    alike = noise_table(*readings(0, dropping=0.4, rewording=0.4), videos)
    assert alike.set_index("run").p_value["pruned"] > 0.1
    assert "It was not shown that dropping moves the answers more" in said(alike)[0]
    quiet = noise_table(*readings(0, dropping=0.1, rewording=0.4), videos)
    assert quiet.set_index("run").p_value["pruned"] > 0.9


def test_false_alarms_are_as_rare_as_promised() -> None:
    found = [noise_table(*readings(seed, 0.5, 0.5, items=20), range(20)).p_value.iloc[-1] for seed in range(40)]
    assert sum(p < 0.25 for p in found) <= 18  # 40 / 4 = 10, three standard deviations of 2.7


def test_a_control_is_required() -> None:
    full, pruned, _ = readings(0, 1, 1)
    with pytest.raises(ConfigError, match="1 pruned runs and 0 reworded ones"):
        noise_table(full, pruned, {}, range(60))


def written(folder: Path, likelihoods: list[tuple[float, ...] | None]) -> str:
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"task": "toy", "config_digest": "c"}))
    with Journal(folder / "records.jsonl") as journal:
        for i, found in enumerate(likelihoods):
            made = Record(str(i), f"v{i // 2}-{i}", f"v{i // 2}", "toy", "c", {}, "Which?", ["red", "blue"], "A")
            turns = [Turn(1.0, "B", (-9.0, -9.0)), Turn(2.0, "A", found)]  # the last question counts
            right = float(found is not None and found[0] > found[1])
            journal.append(replace(made, response="A", strict="A", score=right, turns=turns).to_json())
    return str(folder)


def test_runs_from_the_command_line(tmp_path: Path) -> None:
    full = written(tmp_path / "full", [(0.0, -2.0)] * 4)
    pruned = written(tmp_path / "pruned", [(0.0, -2.0), (-2.0, 0.0), (-2.0, 0.0), (-2.0, 0.0)])
    please = written(tmp_path / "please", [(0.0, -2.0), (0.0, -2.0), (0.0, -1.0), (0.0, -2.0)])
    out = tmp_path / "noise"
    command = ["runs", full, "--pruned", pruned, "--reworded", please, "--out", str(out), "--json"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    rows = {row["run"]: row for row in json.loads(ran.stdout.splitlines()[-1])["rows"]}
    assert (rows["pruned"]["changed"], rows["please"]["changed"]) == (0.75, 0)
    assert (rows["full"]["accuracy"], rows["pruned"]["accuracy"]) == (1, 0.25)
    assert rows["pruned"]["divergence_bits"] == pytest.approx(0.75 * divergences([(0.0, -2.0)], [(-2.0, 0.0)])[0])
    assert rows["pruned"]["p_value"] == 0.25  # two videos, four ways to call columns pruned, this one the largest
    assert json.loads((out / "noise.json").read_text())["rows"] == list(rows.values())
    assert "| pruned | pruned" in (out / "noise.md").read_text()


def test_runs_without_likelihoods_are_refused(tmp_path: Path) -> None:
    full, other = written(tmp_path / "full", [(0.0, -1.0)]), written(tmp_path / "other", [None])
    ran = CliRunner().invoke(app, ["runs", full, "--pruned", other, "--reworded", other + "/../full/."])
    assert ran.exit_code == 2
    ran = CliRunner().invoke(
        app, ["runs", full, "--pruned", other, "--reworded", written(tmp_path / "c", [(0.0, -1.0)])]
    )
    assert ran.exit_code == 2
    assert "item v0-0 of other has no likelihoods of its options; expected runs of --answer likelihood" in ran.stderr


@pytest.mark.parametrize("more", [["--ratios", "a,b"], ["--ratios", "2"], ["--ratios", ".5", "--split", "x"]])
def test_wrong_settings_get_one_sentence(more: list[str]) -> None:
    ran = CliRunner().invoke(app, ["synthetic", *more])
    assert ran.exit_code == 2 and ran.stderr.count("error:") == 1 and "expected" in ran.stderr


@pytest.mark.parametrize("rule", TEMPLATES)
def test_templates_keep_the_question_whole(rule: str) -> None:
    question = "What {is} shown at 100 %?"
    made = paraphraser(rule)(question)
    assert question in made and made != question


def test_templates_differ() -> None:
    assert len({paraphraser(rule)("Why?") for rule in TEMPLATES}) == len(TEMPLATES)


def test_paraphrases_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "words.jsonl"
    file.write_text('{"question": "Who won?", "paraphrase": "Which team was the winner?"}\n')
    assert paraphraser(str(file))("Who won?") == "Which team was the winner?"
    with pytest.raises(ConfigError, match="no paraphrase of 'Who lost"):
        paraphraser(str(file))("Who lost?")
    file.write_text('{"question": "Who won?"}\n')
    with pytest.raises(ConfigError, match="line 1 of"):
        paraphraser(str(file))
    with pytest.raises(ConfigError, match="no rule or file 'nonsense'; expected one of please"):
        paraphraser("nonsense")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="can't be read"):
        paraphraser(str(file))


def test_synthetic_readings_are_the_streams_own() -> None:
    lm, pruned = pv.load(device="cpu", dtype="float32"), pv.Pyramid(ratios=(0.25, 0.1, 0.1))
    *_, found = read(lm, {"quarter": pruned}, seed=5, wanted=5, split="test", number=2)
    assert list(found.scores) == ["full", "again", "quarter", "wording 1", "wording 2"]
    assert found.likelihoods["again"] == found.likelihoods["full"]
    assert all(0 < a <= b for a, b in zip(found.edits["wording 1"], found.edits["wording 2"], strict=True))
    assert found.videos == [0] * 5
    for _, path, asked in clips(5, 5, "test"):
        full, quarter = watch(lm, pv.Pyramid(stages=1), path, 8), watch(lm, pruned, path, 8)
        for i, question in enumerate(asked):
            words = question.options
            assert question.answer in words
            expected = full.likelihood(question.text, words)
            assert found.likelihoods["full"][i] == pytest.approx(expected, abs=1e-4)
            assert found.scores["full"][i] == float(words[int(np.argmax(expected))] == question.answer)
            assert found.likelihoods["quarter"][i] == pytest.approx(quarter.likelihood(question.text, words), abs=1e-4)
            others = {full.likelihood(text, words) for text in question.wordings("test") if text != question.text}
            for name in ("wording 1", "wording 2"):
                assert any(found.likelihoods[name][i] == pytest.approx(other, abs=1e-4) for other in others)
            assert found.likelihoods["wording 1"][i] != found.likelihoods["wording 2"][i]


def test_wordings_are_others_and_all_there_are() -> None:
    question = Question("count", phrasings("count", "test")[1], "3", ("2", "3"))
    rng = np.random.default_rng(0)
    assert set(wordings(question, "test", 2, rng)) == set(phrasings("count", "test")) - {question.text}
    with pytest.raises(ConfigError, match="3 other wordings were asked for; the test split has 1 to 2"):
        next(read(None, {}, 1, 1, "test", 3))
