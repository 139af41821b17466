"""The search over recipes: budgets of the whole way, what is chosen and how sure, and searches that go on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import pdrop_video as pv
from eval.runner.clock import Clock
from eval.runner.metered import Metered
from eval.synthetic.render import write_clip
from eval.synthetic.world import sample_clip
from pdrop_video import cli
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.search import recipes, results
from pdrop_video.search.judge import FULL, Clip, Objective
from pdrop_video.search.outcome import Outcome
from pdrop_video.search.plans import Maker, Plan, with_keep
from pdrop_video.search.questions import Film, Kept
from pdrop_video.search.recipes import RecipeSearch
from pdrop_video.search.space import NONE, Budget, Space, usable
from pdrop_video.search.whole import Foresight, left_of, watched
from pdrop_video.stream.cost import shape_of

ASKED = ("Which color is the first thing in the video?", "What digit is shown last in the video?")
SMALL = Space(
    gates=("none", "static"),
    reducers=("none", "evs", "lrcp"),
    kernels=("step", "linear"),
    scorers=("contrast", "novelty"),
    evictors=("pyramid", "uniform"),
    storages=("full", "int8"),
)
BYTES, SHARE = 300_000, 0.8


@pytest.fixture(scope="module")
def lm() -> pv.VideoLM:
    return pv.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for index in range(6):
        write_clip(sample_clip("dev", 17, index, seconds=4), folder / f"{index}.mp4")
    lines = [json.dumps({"video": f"{i}.mp4", "questions": ASKED}) for i in range(6)]
    (folder / "asked.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def clips(folder: Path) -> list[Clip]:
    kept = Kept()
    return [Clip(str(folder / f"{i}.mp4"), Film(str(folder / f"{i}.mp4"), 4, 2, kept), ASKED) for i in range(6)]


@pytest.fixture(scope="module")
def found(lm: pv.VideoLM, clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    folder = tmp_path_factory.mktemp("found")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "FIRST_RUNG", 2)
        how = RecipeSearch(lm, clips, folder, SMALL, trials=4, steps=1, seed=1)
        return how.run([Budget(SHARE, BYTES)])[0], folder


def measured(lm: pv.VideoLM, clip: Clip, recipe: pv.Recipe) -> float:
    """FLOPs of the whole way as the evaluation's meter counts them, and of the prompt, which it leaves out."""
    with lm.stream(recipe) as stream:
        decoder, prefix = DecoderShape.of(lm.model.config), len(stream._ingest.prefix)
        prompt = shape_of(stream, decoder).text_flops([0] * decoder.layers, prefix)
        meter = Metered(stream, decoder, Clock())
        for chunk in clip.chunks:
            meter.push(chunk)
        asking = [meter.asking_flops(meter.rows(question), 1) for question in clip.questions]
        assert meter.tower is not None
        return prompt + meter.flops + meter.tower + meter.front + sum(asking) / len(asking)


PLAN = Plan(NONE, NONE, 0.0, "step", 2, "contrast", "pyramid", "full")


@pytest.mark.parametrize(
    "given",
    [
        dict(),
        dict(gate="static"),
        dict(reducer="evs", split=1.0),
        dict(reducer="lrcp", split=0.5, kernel="linear"),
        dict(gate="static", reducer="vidcom2", split=0.6, kernel="exponential", scorer="novelty"),
        dict(kernel="multi_step", place=0, storage="int8", evictor="uniform"),
    ],
    ids=str,
)
@pytest.mark.parametrize("share", [0.75, 0.9])
def test_a_plan_spends_its_budget_over_the_whole_way(
    lm: pv.VideoLM, clips: list[Clip], given: dict[str, object], share: float
) -> None:
    bound = BYTES + 150_000 + (160_000 if "gate" in given else 0)  # scorers carry rows, and a gate carries a picture
    some, budget = clips[:2], Budget(share, bound)
    full = sum(measured(lm, clip, FULL) for clip in some)
    maker = Maker(lm, Space(), lambda gate, reducer: [left_of(lm, clip, gate, reducer) for clip in some], full, some[0])
    recipe = maker.recipe(replace(PLAN, **given), budget)
    assert recipe is not None
    spent = sum(measured(lm, clip, recipe) for clip in some) / full
    assert spent <= share * 1.005
    if recipe.pyramid.layers:  # else all that the gate let on is cheaper than the budget
        assert spent > 0.92 * share  # one token more in each push would cost too much
    for clip in some:
        with lm.stream(recipe) as stream:
            got = watched(lm, clip, stream)
        assert got.flops == pytest.approx(measured(lm, clip, recipe), abs=2) and 0 < got.bytes <= bound


def test_what_is_foreseen_is_what_is_measured(lm: pv.VideoLM, clips: list[Clip]) -> None:
    """With room for everything, to the last product: nothing is cut up."""
    for pyramid in (pv.Pyramid(stages=1, scorer="relevance"), pv.Pyramid(ratios=(0.5, 0.2), scorer="relevance")):
        for gate, reducer in ((None, None), ("static", "evs:keep=0.5")):
            memory = pv.Memory(tokens=None)
            left = [left_of(lm, clip, gate, reducer) for clip in clips[:2]]
            recipe = pv.Recipe(gate, reducer, pyramid, memory)
            ahead = Foresight(lm, left, "relevance", memory).flops(pyramid)
            assert ahead == pytest.approx(sum(measured(lm, clip, recipe) for clip in clips[:2]), abs=4)


def test_what_is_chosen_is_the_best_on_the_held_out_clips(
    lm: pv.VideoLM, clips: list[Clip], found: tuple[Outcome, Path]
) -> None:
    outcome, _ = found
    names = [one.name for one in outcome.finalists]
    assert {"paper's shape", "linear", "even"} <= set(names) and any(name.startswith("random") for name in names)
    means = [float(np.mean(one.held_out)) for one in outcome.finalists]
    assert means == sorted(means) and outcome.chosen.held_out == outcome.finalists[0].held_out
    for one in (outcome.chosen, *(each for each in outcome.finalists if each.name == "even")):
        assert one.fits and one.flops <= SHARE * 1.02 and one.bytes <= BYTES
        for clip, value in zip(clips[1::2], one.held_out, strict=True):
            each = []
            for question in clip.questions:
                logits = []
                for recipe in (FULL, one.recipe):
                    with lm.stream(recipe) as stream:
                        for chunk in clip.chunks:
                            stream.push(chunk)
                        logits.append(stream.next_logits(question).double().log_softmax(-1).numpy())
                p, q = logits
                each.append(float((np.exp(p) * (p - q)).sum()))
            assert value == pytest.approx(sum(each) / 2, rel=1e-5, abs=1e-9)


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_and_finds_the_same(
    lm: pv.VideoLM, clips: list[Clip], found: tuple[Outcome, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, folder = found
    lines = (folder / "judged.jsonl").read_bytes().splitlines(keepends=True)
    half = len(lines) // 2
    (tmp_path / "judged.jsonl").write_bytes(b"".join(lines[:half]) + lines[half][:9])
    monkeypatch.setattr(recipes, "FIRST_RUNG", 2)
    how = dict(space=SMALL, trials=4, steps=1, seed=1)
    again = RecipeSearch(lm, clips, tmp_path, **how).run([Budget(SHARE, BYTES)])[0]  # type: ignore[arg-type]
    assert again == outcome and (tmp_path / "judged.jsonl").read_bytes() == b"".join(lines)

    def never(*args: object) -> None:
        raise AssertionError("it was measured already")

    monkeypatch.setattr("pdrop_video.search.ledger.judged", never)
    monkeypatch.setattr("pdrop_video.search.ledger.left_of", never)
    assert RecipeSearch(lm, clips, tmp_path, **how).run([Budget(SHARE, BYTES)])[0] == outcome  # type: ignore[arg-type]
    for changed, said in ((dict(objective=Objective("answer")), "objective"), (dict(notes={"frames": 9}), "frames")):
        with pytest.raises(pv.ConfigError, match=said):
            RecipeSearch(lm, clips, tmp_path, **{**how, **changed}).run([Budget(SHARE, BYTES)])  # type: ignore[arg-type]


def test_the_worse_half_of_the_random_plans_is_judged_on_the_first_clips_alone(found: tuple[Outcome, Path]) -> None:
    outcome, folder = found
    seen: dict[str, list[float]] = {}
    for line in (folder / "judged.jsonl").read_text().splitlines()[1:]:
        entry = json.loads(line)
        kind, *key = json.loads(entry["key"])
        if kind == "recipe" and entry["value"] is not None:
            seen.setdefault(json.dumps(key[0]), []).append(float(np.mean(entry["value"]["divergences"])))
    whole = {json.dumps(one.recipe.as_dict(), sort_keys=True) for one in (*outcome.finalists, *outcome.others)}
    left = {
        key: values
        for key, values in seen.items()
        if key not in whole and key != json.dumps(FULL.as_dict(), sort_keys=True)
    }
    lengths = [len(values) for values in left.values()]
    assert 2 in lengths and set(lengths) <= {2, 3}  # 3: a step that was no better on all that are searched on
    assert {len(seen[key]) for key in whole} <= {3, 6}


def test_files_that_say_what_was_found(found: tuple[Outcome, Path], tmp_path: Path) -> None:
    outcome, _ = found
    written = results.write(tmp_path, [outcome], {"seed": 1})
    assert [path.name for path in written] == [f"recipe_{SHARE}_{BYTES}.yaml", "search.json", "front.csv", "front.png"]
    assert pv.Recipe.load(written[0]) == outcome.chosen.recipe
    rows = list(csv.DictReader((tmp_path / "front.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == len(outcome.finalists) + len(outcome.others)
    assert [row["chosen"] for row in rows].count("True") == 1
    for row in rows:
        beaten = [
            other for other in rows
            if all(float(other[by]) <= float(row[by]) for by in ("divergence", "flops", "bytes"))
            and any(float(other[by]) < float(row[by]) for by in ("divergence", "flops", "bytes"))
        ]  # fmt: skip
        assert (row["front"] == "True") == (not beaten)
        pv.Recipe.from_dict(json.loads(row["recipe"]))
    assert (tmp_path / "front.png").read_bytes()[:4] == b"\x89PNG"
    said = json.loads((tmp_path / "search.json").read_text())["outcomes"][0]
    assert sum(one["wins"] for one in said["finalists"]) == pytest.approx(1) and "drawn anew" in said["says"]


def test_the_space_is_what_needs_no_question(lm: pv.VideoLM) -> None:
    space = Space()
    for names, registry in ((space.reducers, pv.reduce.REDUCERS), (space.scorers, pv.pyramid.SCORERS)):
        assert set(usable(registry)) <= set(names) | {"none"} and not {"random", "even", "shuffled"} & set(names)
        assert not any(registry[name].facts.needs_question for name in names if name != NONE)
    assert with_keep("evs", 0.12345) == "evs:keep=0.123" and with_keep("event_saliency", 0.5) is not None
    for name in space.reducers:
        if name != NONE and (line := with_keep(name, 0.4)) is not None:
            lm.stream(pv.Pyramid(stages=1), reducer=line).close()


@pytest.mark.parametrize(
    "given,said",
    [
        (dict(gates=("statics",)), "no gate"),
        (dict(kernels=("cubic",)), "kernel is 'cubic'"),
        (dict(scorers=()), "scorers"),
        (dict(evictors=("newest",)), "no evictor"),
    ],
)
def test_spaces_that_are_none(given: dict[str, tuple[str, ...]], said: str) -> None:
    with pytest.raises(pv.ConfigError, match=said):
        Space(**given)  # type: ignore[arg-type]


def test_searches_that_can_t_be(lm: pv.VideoLM, clips: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(pv.ConfigError, match="expected four or more"):
        RecipeSearch(lm, clips[:3], tmp_path)
    with pytest.raises(pv.ConfigError, match="one name"):
        RecipeSearch(lm, [clips[0]] * 4, tmp_path)
    with pytest.raises(pv.ConfigError, match="no recipe of this space"):
        RecipeSearch(lm, clips, tmp_path, Space(gates=("none",), reducers=("none", "evs")), trials=2).run(
            [Budget(0.05)]
        )
    for wrong in (dict(flops=1.0), dict(flops=0.5, bytes=0)):
        with pytest.raises(pv.ConfigError):
            Budget(**wrong)  # type: ignore[arg-type]


def test_from_the_command_line(folder: Path, tmp_path: Path) -> None:
    command = ["search", "--space", "recipe", "--questions", str(folder / "asked.jsonl"), "--out", str(tmp_path / "a")]
    command += ["--budget", str(SHARE), "--bytes", str(BYTES), "--trials", "1", "--steps", "0", "--frames", "4"]
    command += [
        "--gate",
        "none",
        "--reducer",
        "none",
        "--reducer",
        "evs",
        "--objective",
        "answer",
        "--answer-tokens",
        "4",
    ]
    result = CliRunner().invoke(cli.app, [*command, "--device", "cpu", "--dtype", "float32"])
    assert result.exit_code == 0, result.output
    written = tmp_path / "a" / f"recipe_{SHARE}_{BYTES}.yaml"
    assert pv.Recipe.load(written).memory.bytes is not None and "drawn anew" in result.output
    asking = ["ask", str(folder / "0.mp4"), ASKED[0], "--recipe", str(written), "--frames", "4"]
    asked = CliRunner().invoke(cli.app, [*asking, "--device", "cpu"])
    assert asked.exit_code == 0, asked.output
    far = ["search", "--space", "oracle", str(folder / "0.mp4"), "--question", ASKED[0], "--out", str(tmp_path / "b")]
    far += ["--keep", "0.2", "--frames", "4", "--population", "4", "--generations", "1", "--dtype", "float32"]
    shown = CliRunner().invoke(cli.app, [*far, "--device", "cpu"])
    assert shown.exit_code == 0 and "best of as many random sets" in shown.output, shown.output
