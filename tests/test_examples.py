"""The scripts of examples/, run as users run them: they print what the clip shows, or what the library makes of it."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from families import build, tokenizer
from hosted import CLIP, CLIPS, hosted
from media import steady, write_video
from videomme import make_videomme

import pdrop_video as pv

EXAMPLES = Path(__file__).parent.parent / "examples"
ANSWERS = {
    q["question"]: q["answer"] for q in json.loads((CLIPS / "clip.json").read_text(encoding="utf-8"))["questions"]
}
FIRST, COUNT = "What colour is shown first in the video?", "How many things are shown in the clip?"
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
    "{% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
)
FRAMES, PLACES, ANSWER = 4, 64, "red blue seven"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    def script(name: str, *arguments: Any) -> list[str]:
        """Run an example; the lines that it prints."""
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return script


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA with its processor, which needs no torchvision."""
    folder = tmp_path_factory.mktemp("llava")
    sibling = build("llava_next_video").model.config
    config = tf.LlavaConfig(vision_config=sibling.vision_config, text_config=sibling.text_config, image_token_index=190)
    torch.manual_seed(0)
    tf.LlavaForConditionalGeneration(config).save_pretrained(folder)
    pixels = tf.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    tf.LlavaProcessor(
        pixels,
        tokenizer(["<image>"], TEMPLATE),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", steady(FRAMES, rate=1), rate=1)


def left(visual: int) -> list[int]:
    return [visual // 2, visual // 4, visual // 8]


def test_a_stream_is_asked_while_it_runs_and_in_the_end(run: Callable[..., list[str]]) -> None:
    *during, end, saved = run("stream.py", CLIP)
    seconds = (3.5, 7.5, 11.5)  # after each chunk of eight frames, half a second apart; two frames make 16 tokens
    tokens = (64, 128, 192)
    first = ANSWERS[FIRST]
    assert during == [f"after {s} s, {n} visual tokens: {first}" for s, n in zip(seconds, tokens, strict=True)]
    assert end == f"in the end: {ANSWERS[COUNT]}" and saved.endswith(f"; asked again: {ANSWERS[COUNT]}")


def test_a_camera_tells_when_something_begins(run: Callable[..., list[str]]) -> None:
    """The clip in the camera's place shows its fish from second 9 to 11; frames come in pairs, twice a second."""
    began, ended, frames = run("camera.py", CLIP, "Is there a fish in the video?")
    assert began in ("9.0 s: it began", "9.5 s: it began")
    second = re.fullmatch(r"([\d.]+) s: it ended; it had begun at 9\.[05] s", ended)
    assert second is not None and 11 <= float(second[1]) <= 12
    assert frames.startswith("24 frames; ")


def test_one_shot_in_transformers(run: Callable[..., list[str]], llava: Path, clip: Path) -> None:
    text, tokens = run("one_shot.py", clip, "what is shown ?", "--model", llava, "--frames", FRAMES)
    assert tokens == f"visual tokens that are left, stage by stage: {left(FRAMES * PLACES)}"
    model, processor = tf.AutoModelForImageTextToText.from_pretrained(llava), tf.AutoProcessor.from_pretrained(llava)
    with pv.open_video(clip, frames=FRAMES) as video:
        frames = [frame.numpy() for chunk in video for frame in chunk.frames]
    asked = f"user {'<image> ' * FRAMES}what is shown ? assistant "
    inputs = processor(text=asked, images=frames, return_tensors="pt")
    with pv.pyramid_drop(model, pv.Pyramid(ratios=(0.5, 0.25, 0.125))):
        want = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert text == processor.decode(want, skip_special_tokens=True).strip()


def test_the_trainer_learns_while_tokens_are_dropped(
    run: Callable[..., list[str]], llava: Path, clip: Path, tmp_path: Path
) -> None:
    questions, out = tmp_path / "questions.jsonl", tmp_path / "tuned"
    questions.write_text(json.dumps({"video": str(clip), "question": "what ?", "answer": ANSWER}) + "\n")
    how = ["--out", out, "--frames", FRAMES, "--steps", 40, "--rate", 0.005]
    last = run("finetune.py", questions, "--model", llava, *how)[-1]
    said = re.fullmatch(r"loss ([\d.]+) -> ([\d.]+); tokens left in the last step: (.*)", last)
    assert said is not None and said[3] == str(left(FRAMES * PLACES))
    assert float(said[2]) < 0.5 * float(said[1])
    before, after = (
        run("one_shot.py", clip, "what ?", "--model", model, "--frames", FRAMES)[0] for model in (llava, out)
    )
    assert ANSWER not in before and ANSWER in after  # what was saved has learned it


def test_a_benchmark_with_all_tokens_and_with_fewer(tmp_path: Path) -> None:
    data, out = make_videomme(tmp_path / "data", videos=2, clips=2), tmp_path / "out"
    command = tmp_path / "bin" / "pdrop-video"  # of this interpreter, whatever is installed
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from pdrop_video.cli import run; run()" "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    script = ["sh", EXAMPLES / "benchmark.sh", "videomme", data, out, "--frames", "4"]
    done = subprocess.run(script, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    full, pruned = json.loads((out / "tables" / "compare.json").read_text())["runs"]
    assert (full["run"], pruned["run"]) == ("full", "pruned") and full["items"] == pruned["items"] > 1
    assert pruned["tflops"] < 0.9 * full["tflops"] and full["accuracy"] > 0.5


def test_a_client_of_the_server(run: Callable[..., list[str]]) -> None:
    with hosted() as server:
        said = run("server_client.py", CLIP, FIRST, COUNT, "--url", f"{server.url}/v1")
    assert said == [f"Q: {FIRST}", f"A: {ANSWERS[FIRST]}", f"Q: {COUNT}", f"A: {ANSWERS[COUNT]}"]


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file() and f'"{path.name}"' not in here} == set()
