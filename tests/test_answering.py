"""Harness messages to questions, and questions to answers: the rules that need no harness."""

import hashlib
import importlib
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import pdrop_video as pv
from pdrop_video import ConfigError
from pdrop_video.gate.static import Static
from pdrop_video.integrations.answering import Answerer, Asked, Watching
from pdrop_video.integrations.messages import asked_about, asked_in
from pdrop_video.reduce.evs import EVS
from pdrop_video.stream.session import fingerprint


def test_visuals() -> None:
    assert asked_about(["a.mp4"], "Why?") == Asked("a.mp4", "Why?")
    assert asked_about([{"url": "a.mp4", "video_start": 1, "video_end": 2.5}], "Why?") == Asked(
        "a.mp4", "Why?", 1.0, 2.5
    )
    assert asked_about([{"type": "video", "path": "a.mp4"}], "Why?") == Asked("a.mp4", "Why?")


@pytest.mark.parametrize(
    ("visuals", "named"),
    [
        (None, "no video"),
        ([], "no video"),
        (["a.mp4", "b.mp4"], "str, str"),
        ([object()], "object"),
        ([{"type": "image", "url": "a.png"}], "image"),
        ([{"type": "audio", "url": "a.wav"}, "a.mp4"], "audio, str"),
    ],
)
def test_anything_but_one_video_is_refused(visuals, named: str) -> None:
    with pytest.raises(ConfigError, match=f"'Why\\?' came with {named}; expected one video file"):
        asked_about(visuals, "Why?")


def test_messages() -> None:
    video = {"type": "video", "url": "a.mp4", "start_time": 3.0, "end_time": None}
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "Watch."}, video, {"type": "text", "text": "Why?"}]},
        {"role": "assistant", "content": "Best option: ("},
    ]
    assert asked_in(messages) == Asked("a.mp4", "Watch.\nWhy?", 3.0, None, "Be brief.", "Best option: (")
    assert asked_in(messages[1:2]) == Asked("a.mp4", "Watch.\nWhy?", 3.0)


def test_a_visual_with_times_inside_a_message() -> None:
    inner = {"type": "video", "url": {"url": "a.mp4", "video_start": 2, "video_end": 4}}
    messages = [{"role": "user", "content": [inner, {"type": "text", "text": "Why?"}]}]
    assert asked_in(messages) == Asked("a.mp4", "Why?", 2.0, 4.0)


@pytest.mark.parametrize(
    "roles", [["user", "assistant", "user"], ["assistant"], ["user", "system"], ["user", "user"], []]
)
def test_other_conversations_are_refused(roles: list[str]) -> None:
    part = [{"type": "video", "url": "a.mp4"}, {"type": "text", "text": "Why?"}]
    with pytest.raises(ConfigError, match="expected one question"):
        asked_in([{"role": role, "content": part} for role in roles])


class Counted:
    """A model that notes which streams are opened on it."""

    def __init__(self, lm: pv.VideoLM) -> None:
        self._lm = lm
        self.opened: list[str | None] = []

    def __getattr__(self, name: str):
        return getattr(self._lm, name)

    def stream(self, *args, **kwargs) -> pv.VideoStream:
        self.opened.append(kwargs["standing_question"])
        return self._lm.stream(*args, **kwargs)


CLIP = str(Path(__file__).parent.parent / "demos/clips/clip.mp4")
FIRST, LAST = "Which color is the first thing in the video?", "What digit is shown last in the video?"
HOW = Watching(pv.Pyramid(ratios=(0.5, 0.25, 0.125)), pv.Memory(tokens=None), fps=2)


@pytest.fixture(scope="module")
def model() -> pv.VideoLM:
    return pv.load(device="cpu", dtype="float32")


@pytest.fixture
def lm(model: pv.VideoLM) -> Counted:
    return Counted(model)


def watched(lm, **how) -> pv.VideoStream:
    stream = lm.stream(HOW.pyramid, HOW.memory, standing_question=None)
    with pv.open_video(CLIP, **how) as video:
        for chunk in video:
            stream.push(chunk)
    return stream


def test_one_ingestion_serves_the_questions_of_a_video(model, lm) -> None:
    stream = watched(model, fps=2)
    answerer = Answerer(lm, HOW)
    said = [answerer.answer(Asked(CLIP, text), 8) for text in (FIRST, LAST, FIRST)]
    assert said == [stream.ask(text, 8).text for text in (FIRST, LAST, FIRST)]
    assert said[0] != said[1] and len(lm.opened) == 1
    assert answerer.answer(Asked(CLIP, LAST, end=4.0), 8) == watched(model, fps=2, end=4.0).ask(LAST, 8).text
    answerer.answer(Asked(CLIP, LAST, end=4.0, system="Be brief."), 8)
    assert len(lm.opened) == 3  # another part, another system prompt


def test_a_standing_question_ranks_while_watching(model, lm) -> None:
    answerer = Answerer(lm, replace(HOW, standing=True))
    expected = model.stream(HOW.pyramid, HOW.memory, standing_question=LAST)
    with pv.open_video(CLIP, fps=2) as video:
        for chunk in video:
            expected.push(chunk)
    answerer.answer(Asked(CLIP, FIRST), 8)
    assert answerer.answer(Asked(CLIP, LAST), 8) == expected.ask(LAST, 8).text
    assert lm.opened == [FIRST, LAST]


@pytest.mark.parametrize(
    ("fps", "most", "sampling"),
    [
        (2, None, {"fps": 2}),
        (2, 6, {"frames": 6}),  # 12 seconds would give 24
        (2, 24, {"fps": 2}),
        (None, 6, {"frames": 6}),
        (None, None, {"fps": 2.0}),  # the family's own
    ],
)
def test_which_frames_are_watched(model, fps, most, sampling) -> None:
    answerer = Answerer(model, replace(HOW, fps=fps, max_frames=most))
    assert answerer.answer(Asked(CLIP, FIRST), 8) == watched(model, **sampling).ask(FIRST, 8).text
    tables = answerer._stream(Asked(CLIP, FIRST)).held(), watched(model, **sampling).held()
    found, expected = (table.seconds[table.visual].tolist() for table in tables)
    assert found == expected


def test_answers_on_the_disk_are_given_again(lm, tmp_path: Path) -> None:
    first = Answerer(lm, HOW, tmp_path)
    said = first.answer(Asked(CLIP, FIRST), 8)
    with pytest.raises(pv.VideoError):
        first.answer(Asked(str(tmp_path / "missing.mp4"), FIRST), 8)
    (journal,) = tmp_path.iterdir()
    written = journal.read_bytes()
    assert len(written.splitlines()) == 1
    journal.write_bytes(written + written[: len(written) // 2])  # killed within a line
    again = Answerer(lm, HOW, tmp_path, rank=0)
    assert again.known == 1 and again.answer(Asked(CLIP, FIRST), 8) == said
    assert len(lm.opened) == 2  # the missing video's was the second, and there was no third
    assert journal.read_bytes() == written
    other = Answerer(lm, HOW, tmp_path, rank=1)  # another process finds it as well
    assert other.known == 1 and other.answer(Asked(CLIP, FIRST), 8) == said and len(lm.opened) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"pyramid": pv.Pyramid(stages=1)},
        {"memory": pv.Memory(tokens=200)},
        {"fps": 1},
        {"max_frames": 4},
        {"standing": True},
        {"ask_pyramid": pv.Pyramid(ratios=(0.5,))},
        {"memory": pv.Memory(tokens=None, archive=10**7), "retrieve": 2},
        {"gate": "static"},
        {"reducer": "evs"},
        {"decode": "fixation"},
    ],
)
def test_another_method_asks_anew(lm, tmp_path: Path, change: dict) -> None:
    Answerer(lm, HOW, tmp_path).answer(Asked(CLIP, FIRST), 8)
    assert Answerer(lm, replace(HOW, **change), tmp_path).known == 0


def test_what_stands_in_front_is_part_of_the_method(lm, tmp_path: Path) -> None:
    """Without it answers are found where they were before there was any."""
    Answerer(lm, HOW, tmp_path).answer(Asked(CLIP, FIRST), 8)
    (journal,) = tmp_path.iterdir()
    identity = {"model": fingerprint(lm), "watching": repr(HOW), "version": pv.__version__}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    assert journal.name == f"{digest}-0.jsonl" and "gate" not in repr(HOW) and "reducer" not in repr(HOW)
    evs = Answerer(lm, replace(HOW, reducer="evs"), tmp_path)
    evs.answer(Asked(CLIP, FIRST), 8)
    assert Answerer(lm, replace(HOW, reducer="evs:keep=0.5"), tmp_path).known == 1  # the same
    assert Answerer(lm, replace(HOW, reducer="evs:keep=0.25"), tmp_path).known == 0


def test_a_gate_and_a_reducer_stand_in_front(model) -> None:
    front = {"gate": "static:threshold=40", "reducer": "evs:keep=0.25"}
    answerer, stream = Answerer(model, replace(HOW, **front)), model.stream(HOW.pyramid, HOW.memory, **front)
    with pv.open_video(CLIP, fps=2) as video:
        for chunk in video:
            stream.push(chunk)
    found = answerer._stream(Asked(CLIP, FIRST))
    assert found.status == stream.status and found.visual_tokens == stream.visual_tokens
    assert 0 < found.status.skipped < 20 and found.visual_tokens < watched(model, fps=2).visual_tokens / 2
    losses = [answerer.loss(Asked(CLIP, FIRST), colour)[0] for colour in ("red", "green")]
    assert losses == [-one for one in stream.likelihood(FIRST, ("red", "green"))]


def test_another_question_or_limit_asks_anew(lm, tmp_path: Path) -> None:
    answerer = Answerer(lm, HOW, tmp_path)
    answerer.answer(Asked(CLIP, FIRST), 8)
    for number, ask in enumerate(
        (
            lambda: answerer.answer(Asked(CLIP, LAST), 8),
            lambda: answerer.answer(Asked(CLIP, FIRST), 7),
            lambda: answerer.answer(Asked(CLIP, FIRST), 8, ["e"]),
            lambda: answerer.answer(Asked(CLIP, FIRST, prefix="It is"), 8),
            lambda: answerer.answer(Asked(CLIP, FIRST, end=6.0), 8),
            lambda: answerer.loss(Asked(CLIP, FIRST), "green"),
        ),
        2,
    ):
        ask()
        assert answerer.known == number


def test_answers_end_where_they_should(model) -> None:
    answerer, stream = Answerer(model, HOW), watched(model, fps=2)
    whole = stream.ask(FIRST, 8).text
    assert whole == "green"
    assert answerer.answer(Asked(CLIP, FIRST), 8, ["n", "ee"]) == "gr"  # the first to come, not the first named
    assert answerer.answer(Asked(CLIP, FIRST), 8, ["x"]) == "green"
    assert answerer.answer(Asked(CLIP, FIRST, prefix="blue"), 8) == stream.ask(FIRST, 8, answer_prefix="blue").text


def test_losses(model) -> None:
    answerer, stream = Answerer(model, HOW), watched(model, fps=2)
    for word in ("green", "blue", "red"):
        loss, greedy = answerer.loss(Asked(CLIP, FIRST), word)
        assert loss == pytest.approx(-stream.likelihood(FIRST, [word])[0], abs=1e-6)
        assert greedy == (word == "green")


ARCHIVING = Watching(
    pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25)),
    pv.Memory(tokens=75, archive=10**7),
    fps=4,
    chunk=2,
    ask_pyramid=pv.Pyramid(layers=(1, 3), ratios=(0.5, 0.1)),
    retrieve=2,
    decode="dstp:tau=1,steps=1",
)


def test_questions_drop_from_the_memory_and_get_back_from_its_archive(model) -> None:
    stream, answerer = model.stream(ARCHIVING.pyramid, ARCHIVING.memory), Answerer(model, ARCHIVING)
    with pv.open_video(CLIP, fps=4, chunk=2) as video:
        for chunk in video:
            stream.push(chunk)
    how = {"pyramid": ARCHIVING.ask_pyramid, "retrieve": 2}
    colours = ("red", "green", "blue")
    losses = [answerer.loss(Asked(CLIP, FIRST), colour)[0] for colour in colours]
    assert losses == [-one for one in stream.likelihood(FIRST, colours, **how)]
    for left_out in how:  # each of them matters here
        assert losses != [-one for one in stream.likelihood(FIRST, colours, **{**how, left_out: None})]
    assert answerer.answer(Asked(CLIP, FIRST), 8) == stream.ask(FIRST, 8, decode=ARCHIVING.decode, **how).text
    with pytest.raises(ConfigError, match="looks again at what the question hides, which is nothing"):
        Answerer(model, replace(ARCHIVING, ask_pyramid=None))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"retrieve": 2}, "retrieve=2 without an archive to retrieve from"),
        ({"retrieve": 0}, "retrieve is 0; expected a whole number from 1"),
        ({"ask_pyramid": pv.Pyramid(ratios=(0.5,), scorer="fusion")}, "scorer='fusion', which asking does not use"),
        ({"gate": "statik"}, "there is no gate 'statik'; choose one of codec"),
        ({"reducer": 5}, "reducer is 5; expected one of aot"),
        ({"decode": "again"}, "there is no decode 'again'; choose one of dstp, fixation"),
    ],
)
def test_what_no_question_could_use_is_refused_before_a_video_is_watched(change: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        replace(HOW, **change)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The plugin beside a harness of a few lines; `test_lmms_eval` has the real one."""

    class Harness:
        def __init__(self) -> None:
            self.task_dict, self.rank = {}, 0

    parts = {
        "lmms_eval.api.instance": {"Instance": SimpleNamespace},
        "lmms_eval.api.model": {"lmms": Harness},
        "lmms_eval.models.registry_v2": {"ModelManifest": SimpleNamespace},
        "loguru": {"logger": logging.getLogger("harness")},
    }
    for name, holds in parts.items():
        for i, _ in enumerate(name.split("."), 1):
            monkeypatch.setitem(sys.modules, ".".join(name.split(".")[:i]), ModuleType(name))
        vars(sys.modules[name]).update(holds)
    monkeypatch.delitem(sys.modules, "pdrop_video.integrations.lmms_eval", raising=False)
    imported = importlib.import_module("pdrop_video.integrations.lmms_eval")
    monkeypatch.delitem(sys.modules, "pdrop_video.integrations.lmms_eval")
    return imported


def test_the_plugin_s_arguments_are_those_of_streams_and_questions(plugin: ModuleType, model) -> None:
    chosen = {"memory": 75, "archive": 10**7, "ask_pyramid": "[0.5,0.1]", "retrieve": 2, "fps": 4, "chunk": 2}
    made = plugin.PDropVideo(device="cpu", dtype="float32", ratios="[0.5,0.25]", journal="none", **chosen)
    made.task_dict = {"toy": {"test": [{"video": CLIP, "question": FIRST}]}}
    stream = model.stream(pv.Pyramid(ratios=(0.5, 0.25)), pv.Memory(tokens=75, archive=10**7))
    with pv.open_video(CLIP, fps=4, chunk=2) as video:
        for chunk in video:
            stream.push(chunk)
    how = {"pyramid": pv.Pyramid(ratios=(0.5, 0.1)), "retrieve": 2}
    place = (lambda doc: [doc["video"]], 0, "toy", "test")
    assert made.generate_until([SimpleNamespace(args=(FIRST, {}, *place))]) == [stream.ask(FIRST, **how).text]
    ((loss, _),) = made.loglikelihood([SimpleNamespace(args=(FIRST, "red", *place))])
    assert -loss == stream.likelihood(FIRST, ["red"], **how)[0]
    assert -loss != stream.likelihood(FIRST, ["red"])[0]


def test_what_a_family_can_t_say_is_asked_for_before_a_video_is_watched(model) -> None:
    class Needy(EVS):
        needs = ("depth",)

    with pytest.raises(ConfigError, match="needs depth of the vision tower"):
        Answerer(model, replace(HOW, reducer=Needy()))


def test_the_plugin_s_recipe_and_what_stands_beside_it(plugin: ModuleType, model, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    pyramid = pv.Pyramid(ratios=(0.5, 0.25), scorer="novelty")
    pv.Recipe("static:threshold=40", "evs", pyramid, pv.Memory(tokens=75, archive=10**7)).save(file)

    def watching(**given) -> Watching:
        return plugin.PDropVideo(device="cpu", dtype="float32", journal="none", **given)._answerer.watching

    of = watching(recipe=str(file), retrieve=2)
    assert of.front == (Static(40.0), EVS(0.5)) and of.retrieve == 2
    assert (of.pyramid, of.memory) == (pyramid, pv.Memory(tokens=75, archive=10**7))
    of = watching(recipe=str(file), gate="none", reducer="evs:keep=0.25", ratios="[0.2]", memory="none", archive="none")
    assert of.front == (None, EVS(0.25))
    assert (of.pyramid, of.memory) == (pv.Pyramid(ratios=(0.2,), scorer="novelty"), pv.Memory(tokens=None))
    of = watching(gate="static", scorer="value_norm", allocator="uniform", evictor="oldest")
    assert of.front == (Static(), None)
    assert (of.pyramid, of.memory) == (
        pv.Pyramid(scorer="value_norm", allocator="uniform"),
        pv.Memory(evictor="oldest"),
    )
    of = watching()
    assert (of.front, of.pyramid, of.memory) == ((None, None), pv.Pyramid(), pv.Memory())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"gate": "static:speed=1"}, "gate static has 'speed=1'; expected threshold"),
        ({"reducer": 0.5}, "reducer is 0.5; expected some text"),
        ({"recipe": "no.yaml"}, "'no.yaml' can't be read"),
        ({"ask_pyramid": "half"}, r"ask_pyramid is 'half'; expected numbers in brackets"),
        ({"archive": "1GB"}, "archive is '1GB'; expected a whole number from 1, or none"),
        ({"memory": 0.5}, "memory is 0.5; expected a whole number from 1, or none"),
        ({"retrieve": 2}, "retrieve=2 without an archive"),
        ({"retrieve": 0, "archive": 10**7}, "retrieve is 0"),
    ],
)
def test_wrong_arguments_of_the_plugin_get_one_sentence(plugin: ModuleType, wrong: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        plugin.PDropVideo(journal="none", **wrong)
