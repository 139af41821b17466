"""The command line: what it prints, what reaches the library, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from families import build
from media import spoil, steady, write_video
from rich.console import Console
from servers import web
from typer.testing import CliRunner, Result

import pdrop_video as pv
from pdrop_video import cli
from pdrop_video.cli import console
from pdrop_video.models import describe
from pdrop_video.models.number_type import default_device

QUESTION, OTHER = "what is shown first ?", "how many red ?"
PREFIX = 3  # "<im_start> user <|vision_start|>"
# Frames of 96 x 64 pixels fit into these limits as they are: 4 x 6 tokens for each pair of frames.
PREPROCESSOR = {"size": {"shortest_edge": 3136, "longest_edge": 12544}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2.5-VL checkpoint."""
    folder = tmp_path_factory.mktemp("model")
    lm = build("qwen2_5_vl")
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of ten frames each."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", steady(40, rate=10), rate=10)


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def answers(*arguments: Any) -> list[dict[str, Any]]:
    result = run("ask", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["answers"]


# -- ask --------------------------------------------------------------------------------------------------------------


def by_library(
    model: Path, clip: Path, pyramid: pv.Pyramid, memory: pv.Memory, chunk: int, fps: float
) -> pv.VideoStream:
    stream = pv.load(model).stream(pyramid, memory)
    with pv.open_video(clip, fps=fps, chunk=chunk) as reader:
        for part in reader:
            stream.push(part)
    return stream


def test_questions_answers_and_progress(model: Path, clip: Path) -> None:
    result = run("ask", clip, QUESTION, OTHER, "--model", model, "--max-new-tokens", 6)
    assert result.exit_code == 0
    stream = by_library(model, clip, pv.Pyramid(), pv.Memory(), chunk=8, fps=2)
    first, second = stream.ask(QUESTION, 6), stream.ask(OTHER, 6)
    assert first.text and first.text != second.text
    shown = result.stdout.splitlines()
    assert [line.rstrip() for line in shown[:4]] == [
        f"Q: {QUESTION}",
        f"A: {first.text}",
        f"Q: {OTHER}",
        f"A: {second.text}",
    ]
    costs = " ".join(" ".join(shown[4:]).split())
    assert "watched 8 frames, 0.0 to 3.5 s" in costs
    assert "96 entered; remembered by stage: 96 -> 48 -> 24 -> 12 (from layer 0 | 1 | 3 | 4)" in costs
    # layers hold 99, 51, 51, 27, 15 and 15 tokens of 512 bytes: 258 tokens, 0.126 MiB
    assert "cache 0.13 MiB; 99 / 51 / 27 / 15 tokens a layer" in costs
    assert result.stderr.splitlines() == [f"watching clip.mp4 with the {model} model", "  3.5 of 4.0 s, 8 frames"]


def test_a_line_for_every_chunk(model: Path, clip: Path) -> None:
    result = run("ask", clip, QUESTION, "--model", model, "--chunk", 3, "--max-new-tokens", 1)
    assert result.stderr.splitlines()[1:] == [
        "  1.0 of 4.0 s, 3 frames",
        "  2.5 of 4.0 s, 6 frames",
        "  3.5 of 4.0 s, 8 frames",
    ]


def test_a_bar_on_a_terminal(model: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(stderr=True, force_terminal=True, width=200)
    monkeypatch.setattr(console, "ERRORS", terminal)
    result = run("ask", clip, QUESTION, "--model", model, "--max-new-tokens", 1)
    assert result.exit_code == 0
    assert "━" in result.stderr and "3.5 s, 8 frames" in result.stderr and "of 4.0 s" not in result.stderr


def test_json_has_the_fields_of_an_answer(model: Path, clip: Path) -> None:
    result = run("ask", clip, QUESTION, OTHER, "--model", model, "--max-new-tokens", 6, "--json")
    assert result.exit_code == 0 and result.stderr == "" and result.stdout.count("\n") == 1
    report = json.loads(result.stdout)
    assert report.keys() == {"video", "warnings", "answers"}
    assert report["video"] == str(clip) and report["warnings"] == [] and len(report["answers"]) == 2
    stream = by_library(model, clip, pv.Pyramid(), pv.Memory(), chunk=8, fps=2)
    for question, got in zip((QUESTION, OTHER), report["answers"], strict=True):
        want = stream.ask(question, 6)
        assert got.keys() == {field.name for field in fields(pv.Answer)}
        assert got["timings"].keys() == {field.name for field in fields(pv.Timings)}
        plain = json.loads(json.dumps(asdict(want)))  # tuples as lists
        for name in got.keys() - {"timings"}:
            assert got[name] == plain[name], name
    assert got["kept"] == [96, 48, 24, 12] and got["cache_tokens"] == [99, 51, 51, 27, 15, 15]


@pytest.mark.parametrize(
    ("options", "frames", "kept"),
    [
        (["--fps", 4], 16, [192, 96, 48, 24]),  # two pushes of 96 tokens
        (["--fps", 0.5], 2, [24, 12, 6, 3]),
        (["--ratios", "0.5,0.1"], 8, [96, 48, 9]),
        (["--ratios", "0.5, 0.1", "--chunk", 2], 8, [96, 48, 8]),  # four pushes of 24: int(24 * 0.1) is 2
        (["--ratios", "none"], 8, [96]),
        (["--ratios", "None", "--memory", "none", "--fps", 10], 40, [480]),
        (["--ratios", "none", "--memory", 60, "--chunk", 2], 8, [57]),  # all but the prefix
        (["--memory", 62, "--chunk", 2], 8, [62 - PREFIX, 48, 24, 12]),
        # a scorer that asks has a probe of four tokens in flight, which the next chunk finds room for again
        (["--memory", 62, "--chunk", 2, "--scorer", "relevance"], 8, [62 - PREFIX - 4, 48, 24, 12]),
    ],
)
def test_options_reach_the_library(model: Path, clip: Path, options: list[Any], frames: int, kept: list[int]) -> None:
    (answer,) = answers(clip, QUESTION, "--model", model, *options)
    assert (answer["frames"], answer["kept"]) == (frames, kept)
    assert answer["seconds"][0] == 0 and answer["cache_tokens"][0] == PREFIX + kept[0]


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        (["--frames", "4"], [0, 1.3, 2.6, 3.9]),
        (["--start", "1", "--end", "2.5"], [1, 1.5, 2]),
        (["--frames", "3", "--start", "3"], [3, 3.4, 3.9]),
    ],
)
def test_which_frames_are_watched(
    model: Path, clip: Path, options: list[str], seconds: list[float], decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if decoder == "decord":
        pytest.importorskip("decord")
    pushed: list[float] = []
    push = pv.VideoStream.push
    monkeypatch.setattr(pv.VideoStream, "push", lambda self, chunk: pushed.extend(chunk.seconds) or push(self, chunk))
    answers(clip, QUESTION, "--model", model, "--fps", 2, "--decoder", decoder, *options)
    assert pushed == pytest.approx(seconds)


def test_an_address_is_watched_like_a_file(model: Path, clip: Path) -> None:
    with web(clip.parent) as server:
        result = run("ask", f"{server}/{clip.name}", QUESTION, "--model", model, "--json")
        assert result.exit_code == 0, result.output
        said = json.loads(result.stdout)
    assert said["video"] == f"{server}/clip.mp4"
    (by_file,) = answers(clip, QUESTION, "--model", model)
    assert said["answers"][0]["text"] == by_file["text"]
    assert said["answers"][0]["visual_tokens"] == by_file["visual_tokens"]


def test_an_unknown_decoder_is_one_clear_error(model: Path, clip: Path) -> None:
    result = run("ask", clip, QUESTION, "--model", model, "--decoder", "opencv")
    assert result.exit_code == 1
    assert result.stderr == "error: decoder is 'opencv'; expected 'pyav' or 'decord' or 'torchcodec'.\n"


@pytest.mark.parametrize("n", [1, 4])
def test_longest_answer(model: Path, clip: Path, n: int) -> None:
    assert [len(a["token_ids"]) for a in answers(clip, QUESTION, OTHER, "--model", model, "--max-new-tokens", n)] == [
        n,
        n,
    ]


def test_standing_dtype_and_attention_reach_the_library(
    model: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[pv.VideoStream] = []
    stream = pv.VideoLM.stream

    def recording(*args: Any, **kwargs: Any) -> pv.VideoStream:
        opened.append(stream(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(pv.VideoLM, "stream", recording)
    options = ["--model", model, "--max-new-tokens", 1]
    answers(clip, QUESTION, OTHER, *options)
    (answer,) = answers(clip, OTHER, *options, "--standing", "--dtype", "float32", "--attn", "eager", "--device", "cpu")
    plain, told = opened
    assert (plain.standing_question, told.standing_question) == (None, OTHER)
    assert str(told.lm.model.dtype) == "torch.float32" and told.lm.model.config._attn_implementation == "eager"
    assert answer["cache_bytes"] == sum(answer["cache_tokens"]) * 2 * 2 * 16 * 4


def test_archive_question_ratios_and_a_schedule_reach_the_library(model: Path, clip: Path, tmp_path: Path) -> None:
    schedule = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25))
    schedule.save(tmp_path / "found.json")
    options = ["--ratios", tmp_path / "found.json", "--memory", 60, "--archive", 10**7, "--retrieve", 2]
    options += ["--ask-ratios", "0.5,0.1", "--decode", "dstp:tau=1,steps=2"]
    result = run("ask", clip, "?", "--model", model, *options, "--json")
    lm = pv.load(model)
    stream = lm.stream(schedule, pv.Memory(tokens=60, archive=10**7))
    with pv.open_video(clip, fps=lm.adapter.fps, chunk=8) as reader:
        for chunk in reader:
            stream.push(chunk)
    want = stream.ask("?", retrieve=2, pyramid=pv.Pyramid(ratios=(0.5, 0.1)), decode="dstp:tau=1,steps=2")
    got = json.loads(result.stdout)["answers"][0]
    assert got["text"] == want.text and got["kept"] == list(want.kept)
    assert [stage["tokens"] for stage in got["evidence"]] == [list(stage.tokens) for stage in want.evidence]
    looks = [[look["tokens"] for look in stage["again"]] for stage in got["evidence"]]
    assert any(looks) and looks == [[list(look.tokens) for look in stage.again] for stage in want.evidence]
    assert sum(want.evidence[0].tokens) > want.kept[0]  # some came back
    assert sum(want.evidence[2].tokens) < want.kept[0] / 2  # and the question dropped most of it


def test_what_a_video_lost_is_said(model: Path, clip: Path, tmp_path: Path) -> None:
    """In the JSON, and as a warning beside the answer."""
    damaged = spoil(clip, tmp_path / "damaged [bold].mp4", range(20, 24))
    with pv.open_video(damaged, fps=2, chunk=8) as reader:
        list(reader)
        want = list(reader.warnings)
    assert want
    result = run("ask", damaged, QUESTION, "--model", model, "--max-new-tokens", 1, "--json")
    assert json.loads(result.stdout)["warnings"] == want
    result = run("ask", damaged, QUESTION, "--model", model, "--max-new-tokens", 1)
    assert result.exit_code == 0
    assert result.stderr.splitlines()[0].startswith("watching damaged [bold].mp4 with")
    assert result.stderr.splitlines()[-len(want) :] == [f"warning: {sentence}" for sentence in want]


# -- failures ---------------------------------------------------------------------------------------------------------

FAILURES: dict[str, tuple[list[Any], str]] = {
    "missing file": (["{tmp}/none.mp4", QUESTION, "--model", "{model}"], "there is no file {tmp}/none.mp4"),
    "brackets in its name": (
        ["{tmp}/[red]a[/x].mp4", QUESTION, "--model", "{model}"],
        "there is no file {tmp}/[red]a[/x].mp4",
    ),
    "not a video": (["{model}/config.json", QUESTION, "--model", "{model}"], "config.json"),
    "unknown model folder": (["{clip}", QUESTION, "--model", "{tmp}/none"], "no usable model '{tmp}/none'"),
    "folder without a model": (["{clip}", QUESTION, "--model", "{tmp}"], "the folder '{tmp}' has no config.json"),
    "rising ratios": (["{clip}", QUESTION, "--model", "{model}", "--ratios", "0.2,0.5"], "ratios=(0.2, 0.5) rise"),
    "ratio above one": (["{clip}", QUESTION, "--model", "{model}", "--ratios", "2"], "each of ratios is 2.0"),
    "ratios in words": (
        ["{clip}", QUESTION, "--model", "{model}", "--ratios", "half"],
        "--ratios half: expected numbers",
    ),
    "too many ratios": (
        ["{clip}", QUESTION, "--model", "{model}", "--ratios", "1,1,1,1,1,1,1"],
        "8 stages were asked of a model with 6 layers",
    ),
    "memory in words": (
        ["{clip}", QUESTION, "--model", "{model}", "--memory", "much"],
        "--memory much: expected a number",
    ),
    "memory in other digits": (
        ["{clip}", QUESTION, "--model", "{model}", "--memory", "²"],
        "--memory ²: expected a number",
    ),
    "no memory": (["{clip}", QUESTION, "--model", "{model}", "--memory", "0"], "Memory(tokens=0"),
    "little memory": (
        ["{clip}", QUESTION, "--model", "{model}", "--memory", "20"],
        "can't hold one step of 24",
    ),
    "no frames a second": (["{clip}", QUESTION, "--model", "{model}", "--fps", "0"], "fps is 0.0"),
    "empty question": (["{clip}", QUESTION, " ", "--model", "{model}"], "one of the questions is empty"),
    "unknown device": (["{clip}", QUESTION, "--model", "{model}", "--device", "abacus"], "can't be put on 'abacus'"),
    "unknown dtype": (["{clip}", QUESTION, "--model", "{model}", "--dtype", "float7"], "`dtype`"),
}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("failure", FAILURES)
def test_failures(failure: str, as_json: bool, model: Path, clip: Path, tmp_path: Path) -> None:
    """One sentence on stderr, exit code 1, no traceback; nothing on stdout that could be taken for an answer."""
    arguments, said = FAILURES[failure]
    places = dict(model=model, clip=clip, tmp=tmp_path)
    result = run("ask", *(str(argument).format(**places) for argument in arguments), *["--json"] * as_json)
    assert result.exit_code == 1 and result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("error: ") and said.format(**places) in lines[-1]
    assert [line for line in lines[:-1] if not line.startswith("watching clip.mp4")] == []


EARLY: dict[str, tuple[list[Any], str]] = {
    "retrieve": (["ask", "{clip}", "?", "--retrieve", "2"], "--retrieve 2 without an archive"),
    "decode": (["ask", "{clip}", "?", "--decode", "dstp"], "looks again at what the question hides, which is nothing"),
    "ask ratios": (["ask", "{clip}", "?", "--ask-ratios", "half"], "--ask-ratios half: expected numbers"),
    "ask stages": (
        ["ask", "{clip}", "?", "--ask-ratios", "1,1,1,1,1,1,1"],
        "8 stages were asked of a model with 6 layers",
    ),
    "plots": (["ask", "{clip}", "?", "--save-plots", "{clip}"], "no pictures can be saved"),
    "plots in a device": (["ask", "{clip}", "?", "--save-plots", "/dev/null/a"], "no pictures can be saved"),
    "timeout": (["ask", "{clip}", "?", "--timeout", "nan"], "connect_timeout is nan"),
    "fps": (["ask", "{clip}", "?", "--fps", "nan"], "fps is nan"),
    "video": (["ask", "{tmp}/none.mp4", "?"], "there is no file"),
    "half a character": (["ask", "{clip}", "caf\udce9?"], "U+DCE9"),
    "out": (["search", "{clip}", "{clip}", "--question", "?", "--out", "{tmp}/no/where.json"], "can't be written"),
    "out a folder": (["search", "{clip}", "{clip}", "--question", "?", "--out", "{tmp}"], "can't be written"),
    "budget": (["search", "{clip}", "{clip}", "--question", "?", "--out", "{tmp}/a", "--budget", "2"], "budget is 2"),
    "one clip": (["search", "{clip}", "--question", "?", "--out", "{tmp}/a"], "1 clip was given"),
    "question": (
        ["search", "{clip}", "{clip}", "--question", " ", "--out", "{tmp}/a"],
        "one of the questions is empty",
    ),
}


@pytest.mark.parametrize("failure", EARLY)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    failure: str, model: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pv, "load", lambda *args, **kwargs: 1 / 0)
    arguments, said = EARLY[failure]
    places = dict(clip=clip, tmp=tmp_path)
    result = run(*(argument.format(**places) for argument in arguments), "--model", model)
    assert result.exit_code == 1 and result.stdout == "" and not list(tmp_path.iterdir())
    assert result.stderr.startswith("error: ") and said in result.stderr and result.stderr.count("\n") == 1


def test_bytes_that_are_no_text(model: Path, clip: Path, tmp_path: Path) -> None:
    """In a question they are refused; a file by such a name is watched, and can be named wherever that is printed."""
    odd = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    os.link(clip, odd)
    environment = {**os.environ, "PYTHONPATH": str(Path(pv.__file__).parent.parent), "PYTHONIOENCODING": "ascii"}

    def by_bytes(*arguments: bytes) -> subprocess.CompletedProcess[bytes]:
        code = b"from pdrop_video.cli import run; run()"
        options = (b"--model", os.fsencode(model), b"--max-new-tokens", b"1")
        return subprocess.run([sys.executable, b"-c", code, *arguments, *options], capture_output=True, env=environment)

    refused = by_bytes(b"ask", odd, b"caf\xe9?")
    assert refused.returncode == 1 and refused.stderr.startswith(b"error: ") and refused.stderr.count(b"\n") == 1
    watched = by_bytes(b"ask", odd, QUESTION.encode())
    assert watched.returncode == 0 and watched.stderr.startswith(b"watching caf\\udce9.mp4 with")
    told = by_bytes(b"ask", odd, QUESTION.encode(), b"--json")
    assert os.fsencode(json.loads(told.stdout)["video"]) == odd


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask"],
        ["ask", "clip.mp4"],
        ["ask", "a.mp4", "b", "--chunk", "0"],
        ["ask", "a.mp4", "b", "--max-new-tokens", "0"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2 and "Usage:" in result.stderr and "Traceback" not in result.stderr


def test_a_bug_keeps_its_traceback(model: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pv.VideoStream, "push", lambda *args: 1 / 0)
    assert isinstance(run("ask", clip, QUESTION, "--model", model).exception, ZeroDivisionError)


# -- help and info ----------------------------------------------------------------------------------------------------


def test_help() -> None:
    whole, ask, info = (run(*command, "--help") for command in ([], ["ask"], ["info"]))
    assert (whole.exit_code, ask.exit_code, info.exit_code) == (0, 0, 0)
    assert "ask" in whole.stdout and "info" in whole.stdout
    assert "Examples" in ask.stdout and 'pdrop-video ask clip.mp4 "What is shown first?"' in " ".join(
        ask.stdout.split()
    )
    for option in ("--model", "--fps", "--chunk", "--ratios", "--memory", "--json"):
        assert option in ask.stdout
    assert "Examples" in info.stdout and "pdrop-video info Qwen/Qwen2.5-VL-7B-Instruct" in info.stdout


def test_version() -> None:
    assert run("--version").stdout == f"{pv.__version__}\n"


def told(result: Result) -> dict[str, str]:
    """The rows of the table that `info` prints."""
    assert result.exit_code == 0, result.output
    rows = [line.strip("│┃ ").split("│") for line in result.stdout.splitlines() if line.count("│") == 3]
    return {name.strip(): value.strip() for name, value in rows}


def test_info(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worked out by hand; from a folder that has lost its weights."""
    monkeypatch.setattr("pdrop_video.cli.info.CONSOLE", Console(width=200))
    for file in model.iterdir():
        if not file.name.startswith("model"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert not list(tmp_path.glob("*.safetensors"))
    rows = told(run("info", tmp_path))
    # 720 x 1280 into 12,544 pixels: sqrt(921600 / 12544) = 8.571; 84.0 -> 80, 149.3 -> 144, in cells of 16
    assert rows.pop("visual tokens per 2 frame(s) of 1280 x 720") == "45 (5 x 9)"
    assert rows.pop("visual tokens per minute at 2 fps") == "2,700"  # 60 pairs of frames
    # boundaries at int(6 * s / 4); layers see 2700, 1350, 1350, 675, 337 and 337
    assert rows.pop("mean over the layers") == "1,125"
    # 15 pushes of four pairs, 180 tokens, each over what the layers hold by then; contrast ranks without a product
    flops = [15 * sum(layer_flops(n) for n in layers) for layers in ([180] * 6, [180, 90, 90, 45, 22, 22])]
    for number, layers in enumerate(([180] * 6, [180, 90, 90, 45, 22, 22])):
        flops[number] += sum(2 * 2 * 64 * n * n * past for n in layers for past in range(15))
    assert rows.pop("layers, ranking included") == compared(*flops)
    tower = describe(tmp_path)[1].tower(5, 9)
    assert tower is not None  # equal to PyTorch's counter in test_flops_tower
    encoded = 60 * tower.flops(1)
    assert rows.pop("vision tower") == compared(encoded, encoded)
    assert rows.pop("all of it") == compared(flops[0] + encoded, flops[1] + encoded)
    assert rows.pop("watching that minute: gate") == rows.pop("reducer") == "0 TFLOPs"
    assert rows == {
        "family": "qwen2_5_vl",
        f"computed on {default_device()} in": "float64: the checkpoint's own",
        "decoder layers": "6",
        "gate, before the vision tower": "none",
        "reducer, behind it": "none",
        "remembered a layer": "6,144 tokens",
        "drops before layers": "1, 3, 4",
        "visual tokens left": "1, 0.5, 0.25, 0.125",
        "KV cache per token (16 bit)": "768 bytes",  # keys and values, 6 layers, 2 heads of 16 numbers of 2 bytes
        "trained positions": "4,096",
    }


def compared(full: int, cut: int) -> str:
    return f"{full / 1e12:.4g} -> {cut / 1e12:.4g} TFLOPs ({cut / full:.0%})"


def layer_flops(n: int) -> int:
    """Of n rows: q and o of 64 x 64, k and v of 64 x 32, three MLP matrices of 64 x 128; causal attention, 64 wide."""
    return 2 * n * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128) + 2 * 2 * 64 * n * (n + 1) // 2


def test_info_with_options(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdrop_video.cli.info.CONSOLE", Console(width=200))
    rows = told(run("info", model, "--ratios", "0.6,0.1", "--height", 64, "--width", 96))
    assert rows["drops before layers"] == "2, 4" and rows["visual tokens left"] == "1, 0.6, 0.1"
    assert rows["visual tokens per 2 frame(s) of 96 x 64"] == "24 (4 x 6)"
    assert rows["mean over the layers"] == "816"  # (1440 + 864 + 144) / 3
    none = told(run("info", model, "--ratios", "none"))
    assert none["drops before layers"] == "none" and none["all of it"].endswith("(100%)")
    half = told(run("info", model, "--ratios", "none", "--reducer", "evs:keep=0.25", "--gate", "static", "--chunk", 2))
    assert half["reducer, behind it"] == "evs:keep=0.25" and half["gate, before the vision tower"] == "static"
    assert half["vision tower"].endswith("(100%)") and half["reducer"] != "0 TFLOPs"


@pytest.mark.parametrize(
    ("model", "said"), [("no/such/model", "no usable model 'no/such/model'"), (".", "no config.json")]
)
def test_info_failures(model: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("info", model)
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("error: ") and said in result.stderr and result.stderr.count("\n") == 1


# -- the real thing ---------------------------------------------------------------------------------------------------


def test_as_a_process(model: Path, clip: Path) -> None:
    """Nothing is printed but what is meant to be: no bars or warnings of other libraries, one JSON object on stdout."""
    code = "from pdrop_video.cli import run; run()"
    command = [sys.executable, "-c", code, "ask", str(clip), QUESTION, "--model", str(model), "--max-new-tokens", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(pv.__file__).parent.parent)}
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["answers"][0]["kept"] == [96, 48, 24, 12]
