"""Trained parts: files, what is refused, streams that use one, and the loss that they are trained by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families import build, video
from hybrids import build as hybrid
from parts import random_part, trained, with_parts, write_data, written
from reference import full_prompt, masked_forward

import pdrop_video as pv
from pdrop_video.parts import PARTS, identity, located, opened, read_part, read_said
from pdrop_video.training import TRAINERS, Example, Examples, Line, answer_losses, read_lines
from pdrop_video.training.lines import held_out
from pdrop_video.video import FrameChunk

FAMILIES = ["qwen2_5_vl", "qwen3_vl", "llava_onevision"]


def example(lm: pv.VideoLM, frames: int = 6) -> Example:
    """A line about random frames."""
    pictures, seconds = video(frames), tuple(0.5 * i for i in range(frames))
    ids, question = lm.adapter.ids, "what is shown first ?"
    with torch.no_grad():
        words, chunk = lm.adapter.embed(ids(question)), lm.adapter.look(pictures, seconds)
    chunk_of = FrameChunk(pictures, seconds)
    return Example(Line("", question, "red"), chunk_of, chunk, words, tuple(lm.prompt.after(question)), (5, 9, 7))


def _losses(lm: pv.VideoLM, one: Example, *args: Any, **how: Any) -> torch.Tensor:
    (losses,) = answer_losses(lm, [one], *args, **how)
    return losses


def test_a_file_holds_what_was_written(tmp_path: Path) -> None:
    lm = build("qwen2_5_vl")
    part = written(lm, "learnpruner", tmp_path / "a.safetensors", seed=3)
    read = read_part(tmp_path / "a.safetensors", PARTS)
    for name, tensor in part.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor.bfloat16().float())
    assert read.digest == part.digest != random_part(lm, "learnpruner", 4).digest
    said = read.trained
    assert said is not None and said == read_said(tmp_path / "a.safetensors")
    assert said.shape == {"hidden": 64, "width": 128} and said.settings == {"seed": 3}
    assert said.parameters == 64 * 128 + 128 + 128 * 2 + 2 and said.model == identity(lm.model)
    assert (tmp_path / "a.safetensors").stat().st_size < 2 * said.parameters + 2000


def test_what_load_is_given(tmp_path: Path) -> None:
    lm = build("qwen2_5_vl")
    for name in ("one", "two", "many/learnpruner"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        written(lm, "learnpruner", tmp_path / f"{name}.safetensors")
    one, many = tmp_path / "one.safetensors", tmp_path / "many"
    assert located(one, PARTS, False) == located([str(one)], PARTS, True) == {"learnpruner": one}
    assert located((f"learnpruner={one}",), PARTS, False) == {"learnpruner": one}
    inside = {"learnpruner": many / "learnpruner.safetensors"}
    assert located([many], PARTS, False) == located([f"learnpruner={many}"], PARTS, False) == inside
    assert located((), PARTS, True) == {}
    for given, said in (
        (("nobody",), "no part 'nobody'; choose one of learnpruner"),
        (("learnpruner",), "ships for the built-in model alone"),
        ((tmp_path / "none.safetensors",), "no file"),
        ((one, tmp_path / "two.safetensors"), "given twice"),
        ((tmp_path / "none",), "holds no trained part|no file"),
        ((3,), "each of parts is 3"),
    ):
        with pytest.raises(pv.ConfigError, match=said):
            located(given, PARTS, False)  # type: ignore[arg-type]
    one.write_bytes(b"something else")
    with pytest.raises(pv.ConfigError, match="holds no trained part"):
        located(one, PARTS, True)


def test_a_part_of_another_model_is_refused(tmp_path: Path) -> None:
    lm, path = build("qwen2_5_vl"), {"learnpruner": tmp_path / "a.safetensors"}
    written(lm, "learnpruner", path["learnpruner"])
    assert opened(path, PARTS, lm.model)["learnpruner"].digest
    assert opened(path, PARTS, build("qwen2_5_vl").model.bfloat16())  # the same weights, in short
    assert opened(path, PARTS, build("qwen2_5_vl", seed=1).model.half())  # they can't be told
    for other, said in ((build("qwen2_5_vl", seed=1), "weights is"), (build("qwen3_vl"), "type is 'qwen2_5_vl'")):
        with pytest.raises(pv.ModelError, match=f"trained for another model: its {said}"):
            opened(path, PARTS, other.model)
    wider = build("qwen2_5_vl").model
    wider.config.get_text_config().hidden_size = 72
    with pytest.raises(pv.ModelError, match="its width is 64, this model's is 72"):
        opened(path, PARTS, wider)


def test_of_another_version_or_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, path = build("qwen2_5_vl"), tmp_path / "a.safetensors"
    written(lm, "learnpruner", path)
    monkeypatch.setattr(PARTS["learnpruner"], "version", 2)
    with pytest.raises(pv.ConfigError, match="of version 1, and this is version 2; train it again"):
        read_part(path, PARTS)
    with pytest.raises(pv.ConfigError, match="holds the part 'learnpruner'; known are"):
        read_part(path, {})


def test_load_brings_parts(tmp_path: Path) -> None:
    """Beside the built-in model, and where none was asked for none is there."""
    lm = pv.load()
    assert lm.parts == {}
    written(lm, "learnpruner", tmp_path / "a.safetensors")
    again = pv.load(parts=tmp_path / "a.safetensors")
    assert list(again.parts) == ["learnpruner"] and not any(
        p.requires_grad for p in again.parts["learnpruner"].parameters()
    )
    stream = again.stream(reducer="learnpruner:score=trained,keep=0.25")
    stream.push(video(8, height=112, width=112), [0.5 * i for i in range(8)])
    assert int(stream.held().visual.sum()) == 16
    assert stream.ask("What is shown?", 4).text is not None
    with pytest.raises(pv.ConfigError, match=r"needs the trained part 'learnpruner'.*parts=\(\"learnpruner\",\)"):
        lm.stream(reducer="learnpruner:score=trained")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_goes_on_beside_the_same_part_alone(family: str, tmp_path: Path) -> None:
    lm = build(family)
    part = random_part(lm, "learnpruner")
    here = with_parts(lm, part)
    stream = here.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), reducer="learnpruner:score=trained,diverse=0")
    frames = video(8)
    stream.push(frames[:4], [0, 1, 2, 3])
    features = lm.adapter.look(frames[:4], (0.0, 1.0, 2.0, 3.0))
    rows = features.embeds[features.visual_rows()]
    score = torch.nn.functional.softmax(part.mlp(rows.float()), dim=-1)[:, 1]  # type: ignore[operator]
    table = stream.held()
    best = score.topk(len(rows) // 2).indices.sort().values
    assert torch.equal(table.index[table.visual], table.index[~table.visual].amin() * 0 + _numbers(lm, features, best))
    stream.save(tmp_path / "saved")
    resumed, fork = here.resume(tmp_path / "saved"), stream.fork()
    for each in (stream, resumed, fork):
        each.push(frames[4:], [4, 5, 6, 7])
    asked = [each.next_logits("what is shown ?") for each in (stream, resumed, fork)]
    assert torch.equal(asked[0], asked[1]) and torch.equal(asked[0], asked[2])
    with pytest.raises(pv.ModelError, match="saved with the trained part 'learnpruner', which is not loaded"):
        lm.resume(tmp_path / "saved")
    with pytest.raises(pv.ModelError, match="'learnpruner' of other weights"):
        with_parts(lm, random_part(lm, "learnpruner", 1)).resume(tmp_path / "saved")


def _numbers(lm: pv.VideoLM, chunk: pv.models.VisualChunk, best: torch.Tensor) -> torch.Tensor:
    """Numbers in the stream of some visual tokens of its first chunk, of whose others nothing was counted."""
    kept = chunk.keep(best)
    return len(lm.prompt.before()) + kept.visual_rows()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_models_own(family: str) -> None:
    """Of the unmodified model on the whole prompt; with hidden tokens, of the model under masks."""
    lm = build(family)
    one = example(lm)
    inputs, prefix, _ = full_prompt(lm, one.frames.frames, list(one.frames.seconds), one.line.question)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([one.answer])], 1)
    if "position_ids" in inputs:
        more = inputs["position_ids"].max() + 1 + torch.arange(len(one.answer))
        inputs["position_ids"] = torch.cat([inputs["position_ids"], more.expand(3, 1, -1)], -1)
    total, wanted = inputs["input_ids"].shape[1], torch.tensor(one.answer)

    def by_hand(allowed: torch.Tensor | None) -> torch.Tensor:
        logits = masked_forward(lm, inputs, allowed)[-len(one.answer) - 1 : -1]
        return torch.nn.functional.cross_entropy(logits, wanted, reduction="none")

    with torch.no_grad():
        torch.testing.assert_close(_losses(lm, one), by_hand(None), atol=1e-9, rtol=0)
        keep = (torch.arange(one.chunk.visual_tokens) % 3 == 0).double()
        gone = prefix + one.chunk.visual_rows()[keep == 0]
        allowed = torch.ones(total, total, dtype=torch.bool).tril()
        allowed[:, gone] = False
        allowed[gone, gone] = True  # what nobody sees may see itself
        want = by_hand(allowed.expand(lm.num_layers, -1, -1))
        hidden = _losses(lm, one, keep=keep)
        torch.testing.assert_close(hidden, want, atol=2e-3, rtol=0)
        removed = _losses(lm, one, one.chunk.keep(keep.nonzero()[:, 0]))
        torch.testing.assert_close(removed, want, atol=1e-9, rtol=0)
        assert (_losses(lm, one) - want).abs().max() > 0.05  # the control: what is hidden matters


@pytest.mark.parametrize("family", FAMILIES)
def test_questions_about_one_video_see_nothing_of_each_other(family: str) -> None:
    """Together they lose what each loses alone, with hidden tokens and without."""
    lm = build(family)
    one = example(lm)
    said = ("how many ?", "what is shown last", "seven")
    others = [
        replace(one, question=tuple(lm.prompt.after(each)), answer=(3, 8)[: 1 + n % 2]) for n, each in enumerate(said)
    ]
    keep = (torch.arange(one.chunk.visual_tokens) % 3 > 0).double()
    for hidden in (None, keep):
        together = answer_losses(lm, [one, *others], keep=hidden)
        for each, losses in zip((one, *others), together, strict=True):
            torch.testing.assert_close(losses, _losses(lm, each, keep=hidden), atol=1e-9, rtol=0)


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_onevision"])
def test_gradients_reach_what_is_hidden(family: str) -> None:
    """By finite differences, of tokens that are seen and of tokens that are not."""
    lm = build(family)
    lm.model.requires_grad_(False)
    one = example(lm, 4)
    keep = (torch.arange(one.chunk.visual_tokens) % 2).double().requires_grad_()
    _losses(lm, one, keep=keep).sum().backward()
    assert keep.grad is not None
    step = 1e-4  # norms are computed in float32, whose noise a smaller one would show
    for place in (2, 3, 6, 7):
        moved = keep.detach().clone()
        moved[place] += step
        less = keep.detach().clone()
        less[place] -= 0 if place % 2 == 0 else step  # no weight is below 0
        with torch.no_grad():
            change = (_losses(lm, one, keep=moved) - _losses(lm, one, keep=less)).sum()
        want = float(change) / float(moved[place] - less[place])
        assert float(keep.grad[place]) == pytest.approx(want, rel=5e-2, abs=1e-2), place


def test_lines(tmp_path: Path) -> None:
    path = write_data(tmp_path, 7)
    lines = read_lines(path)
    assert len(lines) == 14 and lines[0].evidence == (1.0,) and lines[1].evidence is None
    assert lines[0].video == str(tmp_path / "0.mp4")
    learning, out = held_out(lines)
    assert {line.video for line in out} == {str(tmp_path / "5.mp4")} and len(learning) == 12
    good = '{"video": "0.mp4", "question": "q", "answer": "a"}\n'
    for said, why in (
        ("{", "line 1 of .* is no JSON"),
        ('{"video": "0.mp4", "question": "q"}', "line 1 .*; expected"),
        ('{"video": "9.mp4", "question": "q", "answer": "a"}', "names 9.mp4, and there is no"),
        ('{"video": "0.mp4", "question": "q", "answer": ""}', "answer in line 1"),
        ('{"video": "0.mp4", "question": "q", "answer": "a", "evidence": 3}', "evidence in line 1"),
        (good, "not of two videos or more"),
    ):
        (tmp_path / "bad.jsonl").write_text(said)
        with pytest.raises(pv.ConfigError, match=why):
            read_lines(tmp_path / "bad.jsonl")
    with pytest.raises(pv.ConfigError, match="can't be read"):
        read_lines(tmp_path / "none.jsonl")
    (tmp_path / "two.jsonl").write_text(
        good.replace('"a"}', '"a", "options": ["A. x", "B. y"]}') + good.replace("0.", "1.")
    )
    assert read_lines(tmp_path / "two.jsonl")[0].question == "q\nA. x\nB. y"


def test_many_frames_are_thinned_evenly(tmp_path: Path) -> None:
    lm = build("qwen2_5_vl")  # two frames a step, two frames a second
    lines = read_lines(write_data(tmp_path, 2))
    assert Examples(lm, 100).of(lines[0]).frames.seconds == tuple(0.5 * i for i in range(8))
    assert Examples(lm, 5).of(lines[0]).frames.seconds == (0.0, 0.5, 2.0, 2.5)


@pytest.mark.parametrize(
    ("family", "name"), [(f, n) for f in FAMILIES for n in TRAINERS if f in (PARTS[n].families or FAMILIES)]
)
def test_a_killed_training_goes_on_bit_for_bit(family: str, name: str, tmp_path: Path) -> None:
    lm, data = build(family, dtype=torch.float32), write_data(tmp_path)
    before = {key: tensor.clone() for key, tensor in lm.model.state_dict().items()}
    whole = trained(lm, name, data, tmp_path / "whole")
    assert whole is not None and whole.trained is not None
    assert (
        trained(lm, name, data, tmp_path / "killed", stop=lambda step: step == 3) is None
    )  # one step behind its checkpoint
    assert not (tmp_path / "killed" / "out").exists()
    went_on = trained(lm, name, data, tmp_path / "killed")
    assert went_on is not None and went_on.digest == whole.digest and went_on.trained is not None
    same = ("before", "after", "held_out")
    assert {k: went_on.trained.figures[k] for k in same} == {k: whole.trained.figures[k] for k in same}
    untrained = trained(lm, name, data, tmp_path / "less", steps=1, rate=1e-9)
    assert untrained is not None and untrained.digest != whole.digest  # steps do something
    assert all(torch.equal(tensor, before[key]) for key, tensor in lm.model.state_dict().items())  # and the model stays
    assert all(each.requires_grad for each in lm.model.parameters())
    opened({name: tmp_path / "whole" / "out" / f"{name}.safetensors"}, PARTS, lm.model)


def test_another_training_is_not_gone_on_with(tmp_path: Path) -> None:
    lm, data = build("qwen3_vl", dtype=torch.float32), write_data(tmp_path)
    trained(lm, "learnpruner", data, tmp_path, stop=lambda step: step == 2)
    with pytest.raises(pv.ConfigError, match="is of another training"):
        trained(lm, "learnpruner", data, tmp_path, rate=1e-3)
    (tmp_path / "work" / "learnpruner.checkpoint").write_bytes(b"nothing")
    with pytest.raises(pv.ConfigError, match="is no checkpoint"):
        trained(lm, "learnpruner", data, tmp_path)


def test_what_is_trained_already_is_left(tmp_path: Path) -> None:
    lm, data = build("qwen3_vl", dtype=torch.float32), write_data(tmp_path)
    trained(lm, "learnpruner", data, tmp_path, steps=2)
    path = tmp_path / "out" / "learnpruner.safetensors"
    first = path.stat().st_mtime_ns
    trained(lm, "learnpruner", data, tmp_path, steps=2)
    assert path.stat().st_mtime_ns == first


def test_a_part_takes_no_more_than_it_is_given() -> None:
    """A reducer's tokens carry parts to those reducers alone that name them."""
    lm = build("qwen2_5_vl")
    here = with_parts(lm, random_part(lm, "learnpruner"))
    assert here.stream(reducer="evs")._ingest.front.parts == {}
    assert list(here.stream(reducer="learnpruner:score=trained")._ingest.front.parts) == ["learnpruner"]
    assert replace(example(lm).tokens(), parts={"x": 1}).parts == {"x": 1}


@pytest.mark.parametrize("family", ["qwen3_5", "gemma4", "exaone4_5"])
def test_layers_of_other_kinds(family: str, tmp_path: Path) -> None:
    """States, windows, per-layer ids: hidden is as removed, questions are apart, and a part trains on them."""
    lm = hybrid(family)
    one = example(lm)
    other = replace(one, question=tuple(lm.prompt.after("how many ?")), answer=(3, 8))
    kept = torch.arange(0, one.chunk.visual_tokens, 2)
    keep = torch.zeros(one.chunk.visual_tokens, dtype=torch.float64).index_fill(0, kept, 1).requires_grad_()
    together = answer_losses(lm, [one, other], keep=keep)
    for each, losses in zip((one, other), together, strict=True):
        want = _losses(lm, each, one.chunk.keep(kept))
        torch.testing.assert_close(losses, want, atol=5e-3, rtol=0)
        assert (want - _losses(lm, each)).abs().max() > 0.02  # the control
    torch.stack([each.sum() for each in together]).sum().backward()
    assert keep.grad is not None and (keep.grad[kept] != 0).all()
    if family == "gemma4":
        with pytest.raises(pv.ModelError, match="get more of a token than its embedding"):
            random_part(lm, "videorouter")
        return
    part = random_part(lm, "videorouter")
    step = one.chunk.step()[one.chunk.visual_rows()]
    found = part.relevance(one.features, step, len(one.chunk.steps), one.words)
    assert found.shape == (len(one.chunk.steps),) and found.isfinite().all() and len(found.unique()) > 1
