"""The plugin inside the real lmms-eval, in an environment of its own: run by `make test-lmms-eval`.

Tasks, data and a second video are made here. What the harness logs must equal what the library answers when it is
called directly.
"""

import json
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import av
import pytest

import pdrop_video as pv

pytestmark = pytest.mark.lmms_eval

CLIP = Path(__file__).parent.parent / "demos/clips/clip.mp4"
PYRAMID = pv.Pyramid(ratios=(0.5, 0.25, 0.125))
QUESTIONS = [
    "Which color is the first thing in the video?",
    "What digit is shown last in the video?",
    "Please name the shape that appears first.",
    "Can you count the things shown in this video?",
]
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple"]

YAML = """
task: {task}
dataset_path: json
dataset_kwargs:
  data_files: {data}
test_split: train
output_type: {kind}
doc_to_visual: !function utils.visual
doc_to_text: !function utils.{text}
doc_to_target: answer
{more}
metric_list:
  - metric: {metric}
    aggregation: mean
    higher_is_better: true
"""
GENERATION = """
generation_kwargs: {max_new_tokens: 8, do_sample: false, until: ["\\n\\n"]}
process_results: !function utils.score
"""
CHOICES = f"doc_to_choice: {COLOURS}\ntarget_delimiter: ''"
UTILS = """
def visual(doc):
    return [doc["video"]]

def question(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]

def rounds(doc, lmms_eval_specific_kwargs=None, previous_output=None, round_idx=None, previous_round_info=None):
    if round_idx is None:
        return doc["question"]
    assert len(previous_output) == round_idx
    text = doc["question"] + " You said " + previous_output[-1] + "."
    return [doc["video"]], text, round_idx == 3, previous_output, {"round": round_idx}

def score(doc, results):
    said = results[0] if isinstance(results[0], str) else results[0][-1]
    return {"exact": float(said.lower() == doc["answer"])}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two videos, a data set that takes turns between them, and three tasks over it."""
    folder = tmp_path_factory.mktemp("harness")
    (folder / "forwards.mp4").write_bytes(CLIP.read_bytes())
    with av.open(str(CLIP)) as source:
        pictures = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    with av.open(str(folder / "backwards.mp4"), "w") as target:
        stream = target.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 224, 224, "yuv420p"
        for picture in reversed(pictures):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        target.mux(stream.encode())
    data = folder / "data.jsonl"
    docs = [
        {"video": str(folder / f"{name}.mp4"), "question": question, "answer": "green"}
        for question in QUESTIONS
        for name in ("forwards", "backwards")
    ]
    data.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "utils.py").write_text(UTILS)
    for task, kind, text, more, metric in (
        ("toy", "generate_until", "question", GENERATION, "exact"),
        ("toy_rounds", "generate_until_multi_round", "rounds", GENERATION, "exact"),
        ("toy_choice", "multiple_choice", "question", CHOICES, "acc"),
    ):
        filled = YAML.format(task=task, data=data, kind=kind, text=text, more=more, metric=metric)
        (tasks / f"{task}.yaml").write_text(filled)
    return folder


def arguments(out: Path, more: str) -> str:
    memory = "" if "memory=" in more else "memory=none,"
    return f"ratios=[0.5,0.25,0.125],{memory}dtype=float32,device=cpu,journal={out}/journal,{more}"


def manager(made: Path):
    from lmms_eval.tasks import TaskManager

    return TaskManager(include_path=str(made / "tasks"), include_defaults=False, model_name="pdrop_video")


def samples(made: Path, out: Path, task: str, more: str = "fps=2", *, simple: bool = False) -> list[dict]:
    """What lmms-eval logs of each document, in the order of the data."""
    from lmms_eval.evaluator import simple_evaluate

    found = simple_evaluate(
        "pdrop_video",
        arguments(out, more),
        tasks=[task],
        task_manager=manager(made),
        force_simple=simple,
        batch_size=1,
        bootstrap_iters=0,
    )
    return sorted(found["samples"][task], key=lambda sample: sample["doc_id"])


def command(made: Path, out: Path, more: str) -> list[str]:
    """The same from the command line, for the task of generation; behind the interpreter's name."""
    return [
        *("-m", "lmms_eval", "--model", "pdrop_video", "--model_args", arguments(out, more), "--tasks", "toy"),
        *("--include_path", str(made / "tasks"), "--output_path", str(out), "--log_samples"),
    ]


def logged(out: Path) -> list[dict]:
    (log,) = out.rglob("*samples*.jsonl")
    return sorted(map(json.loads, log.read_text().splitlines()), key=lambda sample: sample["doc_id"])


def answers(samples: list[dict]) -> list[str]:
    return [
        sample["filtered_resps"][0] if isinstance(sample["filtered_resps"], list) else sample["filtered_resps"]
        for sample in samples
    ]


@pytest.fixture(scope="module")
def lm() -> pv.VideoLM:
    return pv.load(device="cpu", dtype="float32")


def watched(lm: pv.VideoLM, path: Path, standing: str | None = None, **how) -> pv.VideoStream:
    stream = lm.stream(PYRAMID, pv.Memory(tokens=None), standing_question=standing)
    with pv.open_video(path, **how) as video:
        for chunk in video:
            stream.push(chunk)
    return stream


def docs(made: Path) -> list[dict]:
    return [json.loads(line) for line in (made / "data.jsonl").read_text().splitlines()]


def direct(made: Path, lm: pv.VideoLM, **how) -> list[str]:
    streams = {name: watched(lm, made / f"{name}.mp4", **how) for name in ("forwards", "backwards")}
    return [streams[Path(doc["video"]).stem].ask(doc["question"], 8).text for doc in docs(made)]


@pytest.mark.parametrize("simple", [False, True])
def test_generation_is_the_librarys_in_the_order_of_the_data(made: Path, tmp_path: Path, lm, simple: bool) -> None:
    expected = direct(made, lm, fps=2)
    assert len(set(expected)) > 3 and expected[0] != expected[1]  # answers that an exchange would show
    found = samples(made, tmp_path, "toy", simple=simple)
    assert answers(found) == expected
    assert [sample["exact"] for sample in found] == [float(answer == "green") for answer in expected]


def test_frames_are_limited(made: Path, tmp_path: Path, lm) -> None:
    assert answers(samples(made, tmp_path, "toy", "fps=2,max_frames=6")) == direct(made, lm, frames=6)


def test_a_question_s_pyramid_and_archive(made: Path, tmp_path: Path, lm) -> None:
    more = "fps=4,chunk=2,memory=75,archive=10000000,ask_pyramid=[0.5,0.1],retrieve=2"
    expected, how = [], {"pyramid": pv.Pyramid(ratios=(0.5, 0.1)), "retrieve": 2}
    for doc in docs(made):
        stream = lm.stream(PYRAMID, pv.Memory(tokens=75, archive=10**7))
        with pv.open_video(doc["video"], fps=4, chunk=2) as video:
            for chunk in video:
                stream.push(chunk)
        expected.append(stream.ask(doc["question"], 8, **how).text)
    assert answers(samples(made, tmp_path, "toy", more)) == expected


def test_a_recipe_s_gate_and_reducer(made: Path, tmp_path: Path, lm) -> None:
    """With the argument's own colon and equals sign, beside a file that says more."""
    pv.Recipe("static:threshold=40", "evs", PYRAMID, pv.Memory(tokens=None)).save(tmp_path / "recipe.yaml")
    more = f"fps=2,recipe={tmp_path}/recipe.yaml,reducer=evs:keep=0.25"
    expected = []
    for doc in docs(made):
        stream = lm.stream(PYRAMID, pv.Memory(tokens=None), gate="static:threshold=40", reducer="evs:keep=0.25")
        with pv.open_video(doc["video"], fps=2) as video:
            for chunk in video:
                stream.push(chunk)
        expected.append(stream.ask(doc["question"], 8).text)
    assert answers(samples(made, tmp_path, "toy", more)) == expected != direct(made, lm, fps=2)


def test_choices_by_likelihood(made: Path, tmp_path: Path, lm) -> None:
    """Requests as the harness builds them, put to the model itself: lmms-eval 0.7.3 turns such results into text."""
    from lmms_eval.tasks import get_task_dict

    from pdrop_video.integrations.lmms_eval import PDropVideo

    task = get_task_dict(["toy_choice"], manager(made), "simple")["toy_choice"]
    model = PDropVideo.create_from_arg_string(arguments(tmp_path, "fps=2"))
    model.task_dict["toy_choice"] = task.dataset
    streams = {name: watched(lm, made / f"{name}.mp4", fps=2) for name in ("forwards", "backwards")}
    for number, doc in enumerate(docs(made)):
        stream, metadata = streams[Path(doc["video"]).stem], {"task": "toy_choice", "doc_id": number, "repeats": 1}
        requests = task.construct_requests(number, doc["question"], metadata={**metadata, "split": "train"})
        losses, greedy = zip(*model.loglikelihood(requests), strict=True)
        likelihoods = stream.likelihood(doc["question"], COLOURS)
        assert losses == pytest.approx([-likelihood for likelihood in likelihoods], abs=1e-5)
        assert list(greedy) == [stream.ask(doc["question"], 1).text == colour for colour in COLOURS]


@pytest.mark.parametrize("simple", [False, True])
def test_rounds(made: Path, tmp_path: Path, lm, simple: bool) -> None:
    found = samples(made, tmp_path, "toy_rounds", simple=simple)
    for doc, sample in zip(docs(made)[:2], found[:2], strict=True):
        stream, question = watched(lm, Path(doc["video"]), fps=2), doc["question"]
        said = [stream.ask(question, 8).text]
        while len(said) < 3:
            said.append(stream.ask(f"{question} You said {said[-1]}.", 8).text)
        assert sample["filtered_resps"][0] == said


def test_sampling_is_refused(made: Path, tmp_path: Path) -> None:
    from pdrop_video.integrations.lmms_eval import PDropVideo

    model = PDropVideo.create_from_arg_string(arguments(tmp_path, "fps=2"))
    model.task_dict["toy"] = {"train": docs(made)}
    request = SimpleNamespace(args=("Why?", {"do_sample": True}, lambda doc: [doc["video"]], 0, "toy", "train"))
    with pytest.raises(pv.ConfigError, match="answers are greedy here"):
        model.generate_until([request])
    with pytest.raises(pv.ConfigError, match="expected 1, since streams take turns"):
        PDropVideo(batch_size=4)
    with pytest.raises(pv.ConfigError, match=r"numbers in brackets as \[0.5,0.25,0.125\]"):
        PDropVideo(ratios="half")


def test_it_needs_no_torchvision() -> None:
    """This environment has none; what was tested here ran without it."""
    assert find_spec("torchvision") is None


def test_a_killed_run_goes_on(made: Path, tmp_path: Path, lm) -> None:
    """kill -9 in the middle; then nothing is asked again, and the answers are those of a run that was left alone."""
    journals, run = tmp_path / "journal", [sys.executable, *command(made, tmp_path, "fps=2,standing=True")]
    process = subprocess.Popen(run)
    while not (written := [path.read_bytes() for path in journals.glob("*.jsonl")]) or written[0].count(b"\n") < 2:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (journal,) = journals.glob("*.jsonl")
    before = journal.read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    assert 2 <= before.count(b"\n") < len(docs(made))
    subprocess.run(run, check=True)
    after = journal.read_bytes()
    assert after.startswith(before)
    keys = [json.loads(line)["key"] for line in after.splitlines()]
    assert len(keys) == len(set(keys)) == len(docs(made))
    expected = [
        watched(lm, Path(doc["video"]), doc["question"], fps=2).ask(doc["question"], 8).text for doc in docs(made)
    ]
    assert answers(logged(tmp_path)) == expected


def test_two_processes_share_the_work(made: Path, tmp_path: Path, lm) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29541"]
    subprocess.run([*launch, *command(made, tmp_path, "fps=2")], check=True, timeout=600)
    assert answers(logged(tmp_path)) == direct(made, lm, fps=2)
    journals = sorted((tmp_path / "journal").glob("*.jsonl"))
    assert [len(path.read_text().splitlines()) for path in journals] == [4, 4]
