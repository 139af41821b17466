"""Every argument of every public door, given what it can't mean: one `PDropError`, or what is listed here as meant.

A new argument without a line here fails. Nothing that is refused may have begun.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import build, video

import pdrop_video as pv
from demos.settings import Settings
from pdrop_video.integrations.answering import Watching
from pdrop_video.search.search import Clip, search

CLIP = Path(__file__).parent.parent / "demos" / "clips" / "clip.mp4"
NAMES = (
    *("load", "open_video", "pyramid_drop", "Memory", "Pyramid", "Pyramid.for_average", "Pyramid.load", "Pyramid.save"),
    *("Pyramid.resolve", "FrameChunk", "FrameChunk.of", "FrameChunk.checked", "VideoLM.stream", "VideoLM.resume"),
    *("VideoLM.bounded", "VideoLM.chat", "VideoStream.push", "VideoStream.add_text"),
    *("VideoStream.feed", "VideoStream.held"),
    *("VideoStream.ask", "VideoStream.likelihood", "VideoStream.next_logits", "VideoStream.answer_logits"),
    *("VideoStream.add_turn", "VideoStream.save", "VideoStream.watch_for", "VideoStream.summarise", "Feed.put"),
    "Sampling",
    *("search", "Watching", "Settings", "Recipe", "Recipe.from_dict", "Recipe.load", "Recipe.save"),
    "Recipe.altered",
)
HUGE = 10**30
WRONG: dict[str, Any] = {
    "None": None,
    "object": object(),
    "list": [],
    "nested list": [[None]],
    "dict": {},
    "set": {1, 2},
    "function": lambda *_, **__: 1 / 0,
    "class": int,
    "-1": -1,
    "1.5": 1.5,
    "-0.5": -0.5,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "huge": HUGE,
    "-huge": -HUGE,
    "complex": 1j,
    "empty text": "",
    "blank": " \n",
    "bytes": b"x",
    "no bytes": b"",
    "half a character": "\ud83d",
    "undecodable": "caf\udce9",
    "NUL": "a\0b",
    "numpy -1": np.int64(-1),
    "numpy nan": np.float32("nan"),
    "numpy bool": np.bool_(True),
    "numpy time": np.timedelta64(5, "s"),
    "array": np.zeros((2, 2)),
    "array of objects": np.array([object()], dtype=object),
    "one in a tensor": torch.tensor(1),
    "tensor": torch.zeros(2, 2),
    "sparse tensor": torch.zeros(2, 2).to_sparse(),
    "meta tensor": torch.zeros(2, 2, device="meta"),
}


def _names(*names: str) -> frozenset[str]:
    assert set(names) <= set(WRONG), names
    return frozenset(names)


NOTHING = _names()
OPTIONAL = _names("None")
COUNT = _names("huge")  # a whole number, if a large one
NUMBER = COUNT | _names("1.5")
TEXT = _names("NUL")
ANY_TEXT = TEXT | _names("empty text", "blank")

MODEL = build("qwen2_5_vl")
FRAMES, TIMES = video(2), [0.0, 1.0]
CHUNK = pv.FrameChunk.of(FRAMES, TIMES)


def stream() -> pv.VideoStream:
    watched = MODEL.stream(pv.Pyramid(stages=3), pv.Memory(tokens=200, archive=100_000))
    watched.push(FRAMES, TIMES)
    return watched


WATCHED = stream()


def in_block(**given: Any) -> None:
    with pv.pyramid_drop(**given):
        pass


def through_feed(**given: Any) -> None:
    with stream().feed() as feed:
        feed.put(**given)


def opened(**given: Any) -> None:
    with pv.open_video(**given) as reader:
        next(iter(reader))


Door = tuple[Callable[..., Any], dict[str, Any], dict[str, frozenset[str]]]
"""How to come in, what to bring so that the door opens, and of each argument what is meant among `WRONG`."""


def doors(folder: Path) -> dict[str, Door]:
    saved, pyramid = folder / "stream.pdrop", folder / "pyramid.json"
    WATCHED.save(saved)
    pv.Pyramid().save(pyramid)
    asking = dict(
        question=TEXT,
        pyramid=OPTIONAL,
        retrieve=OPTIONAL | COUNT,
        answer_prefix=ANY_TEXT,
    )
    return {
        "load": (
            pv.load,
            {},
            dict(
                name=OPTIONAL,
                device=OPTIONAL,
                dtype=NOTHING,
                attn=OPTIONAL,
                min_pixels=OPTIONAL,
                max_pixels=OPTIONAL,
                split_special_tokens=NOTHING,
                batch=COUNT,
                compile=NOTHING,
                parts=_names("list"),  # of no parts
            ),
        ),
        "open_video": (
            opened,
            dict(source=CLIP, frames=None),
            dict(
                source=NOTHING,
                fps=OPTIONAL | NUMBER,
                chunk=COUNT,
                start=OPTIONAL | _names("-1", "-0.5", "1.5", "numpy -1"),
                end=OPTIONAL | NUMBER,
                frames=OPTIONAL | COUNT,
                at=OPTIONAL | _names("set"),
                sound=NOTHING,
                motion=NOTHING,
                decoder=NOTHING,
                ahead=COUNT,
                policy=OPTIONAL,
                format=OPTIONAL,
                protocols=OPTIONAL,
                connection=OPTIONAL,
            ),
        ),
        "pyramid_drop": (in_block, dict(model=MODEL.model), dict(model=NOTHING, pyramid=OPTIONAL, visual=OPTIONAL)),
        "Memory": (
            pv.Memory,
            {},
            dict(
                tokens=OPTIONAL,
                bytes=OPTIONAL,
                shape=NOTHING,
                evictor=NOTHING,
                storage=OPTIONAL | _names("function"),
                positions=OPTIONAL,
                archive=OPTIONAL,
                archive_folder=OPTIONAL,
            ),
        ),
        "Pyramid": (
            pv.Pyramid,
            {},
            dict(
                stages=OPTIONAL | COUNT,
                ratio=OPTIONAL,
                layers=OPTIONAL | _names("list"),
                ratios=OPTIONAL | _names("list"),
                positions=NOTHING,
                average=OPTIONAL,
                scorer=OPTIONAL,
                allocator=_names("function"),
                sound=OPTIONAL | _names("list"),
                inside=OPTIONAL,
            ),
        ),
        "Pyramid.for_average": (
            pv.Pyramid.for_average,
            dict(tokens=1, of=2),
            dict(tokens=_names("1.5"), of=COUNT, stages=OPTIONAL | COUNT),
        ),
        "Pyramid.load": (pv.Pyramid.load, {}, dict(path=NOTHING)),
        "Pyramid.save": (pv.Pyramid().save, {}, dict(path=_names("undecodable", "blank"))),
        "Pyramid.resolve": (
            pv.Pyramid().resolve,
            dict(num_layers=8),
            dict(num_layers=COUNT, rank_at=OPTIONAL | _names("list")),
        ),
        "Recipe": (pv.Recipe, {}, dict(gate=OPTIONAL, reducer=OPTIONAL, pyramid=NOTHING, memory=NOTHING)),
        "Recipe.from_dict": (pv.Recipe.from_dict, {}, dict(given=_names("dict"))),
        "Recipe.load": (pv.Recipe.load, {}, dict(path=NOTHING)),
        "Recipe.altered": (
            pv.Recipe().altered,
            {},
            dict(
                gate=OPTIONAL,
                reducer=OPTIONAL,
                pyramid=OPTIONAL | _names("dict"),
                memory=OPTIONAL | _names("dict"),
            ),
        ),
        "Recipe.save": (pv.Recipe().save, {}, dict(path=NOTHING)),
        "FrameChunk": (
            pv.FrameChunk,
            dict(frames=FRAMES, seconds=(0.0, 1.0)),
            dict(
                frames=NOTHING,
                seconds=NOTHING,
                source=ANY_TEXT | _names("undecodable", "half a character"),
                lost=COUNT,
                sound=OPTIONAL,
                rate=NOTHING,
                motion=OPTIONAL,
            ),
        ),
        "FrameChunk.of": (
            pv.FrameChunk.of,
            dict(frames=FRAMES, seconds=TIMES),
            dict(
                frames=NOTHING,
                seconds=_names("set"),
                source=ANY_TEXT | _names("undecodable", "half a character"),
                lost=COUNT,
                sound=OPTIONAL,
                rate=OPTIONAL,
                motion=OPTIONAL,
            ),
        ),
        "FrameChunk.checked": (
            pv.FrameChunk.checked,
            dict(frames=FRAMES, seconds=TIMES),
            dict(frames=NOTHING, seconds=_names("set"), sound=OPTIONAL, rate=OPTIONAL),
        ),
        "VideoLM.stream": (
            MODEL.stream,
            {},
            dict(
                pyramid=OPTIONAL,
                memory=OPTIONAL,
                gate=OPTIONAL,
                reducer=OPTIONAL,
                standing_question=OPTIONAL | ANY_TEXT,
                system=OPTIONAL | ANY_TEXT,
            ),
        ),
        "VideoLM.resume": (MODEL.resume, {}, dict(path=NOTHING)),
        "VideoLM.bounded": (MODEL.bounded, dict(name="x", text="x"), dict(name=frozenset(WRONG), text=TEXT, most=COUNT))
        if hasattr(MODEL, "bounded")
        else (print, {}, {}),
        "VideoStream.push": (
            lambda **given: stream().push(**given),
            dict(frames=FRAMES, seconds=[2.0, 3.0]),
            dict(frames=NOTHING, seconds=NOTHING, sound=OPTIONAL, rate=OPTIONAL),
        ),
        "VideoStream.add_text": (lambda **given: stream().add_text(**given), {}, dict(text=TEXT)),
        "VideoStream.feed": (
            lambda **given: stream().feed(**given).close(),
            {},
            dict(queue=COUNT, policy=NOTHING),
        ),
        "VideoStream.watch_for": (
            lambda **given: stream().watch_for(**given),
            dict(question="what ?"),
            dict(
                question=TEXT,
                every=NUMBER,
                sure=_names(),
                clear=_names(),
                cooldown=NUMBER,
                options=NOTHING,
                call=OPTIONAL | _names("function", "class"),
            ),
        ),
        "VideoStream.summarise": (
            lambda **given: stream().summarise(**given),
            dict(max_new_tokens=1),
            dict(every=NUMBER, question=TEXT, lines=COUNT, max_new_tokens=NOTHING),
        ),
        "VideoStream.held": (WATCHED.held, {}, dict(stage=_names("-1", "numpy -1"))),
        "VideoStream.ask": (
            lambda **given: WATCHED.ask(**{"max_new_tokens": 1, **given}),
            dict(question="what ?"),
            dict(
                max_new_tokens=NOTHING,
                stream=NOTHING,
                keep=NOTHING,
                decode=OPTIONAL,
                sampling=OPTIONAL,
                stop=_names("list", "dict"),
                logprobs=OPTIONAL,
                **asking,
            ),
        ),
        "VideoLM.chat": (
            lambda **given: MODEL.chat(**{"max_new_tokens": 1, **given}).finish(),
            dict(said=["what ?"]),
            dict(
                said=NOTHING,
                max_new_tokens=NOTHING,
                system=OPTIONAL | ANY_TEXT,
                sampling=OPTIONAL,
                stop=_names("list", "dict"),
                logprobs=OPTIONAL,
            ),
        ),
        "VideoStream.add_turn": (
            lambda **given: WATCHED.fork().add_turn(**given),
            dict(question="what ?", answer="red"),
            dict(question=TEXT, answer=TEXT),
        ),
        "Sampling": (
            pv.Sampling,
            {},
            dict(temperature=_names("1.5"), top_p=NOTHING, seed=OPTIONAL | _names("-1", "numpy -1")),
        ),
        "VideoStream.likelihood": (
            WATCHED.likelihood,
            dict(question="what ?", options=["red"]),
            dict(options=NOTHING, **asking),
        ),
        "VideoStream.next_logits": (WATCHED.next_logits, dict(question="what ?"), asking),
        "VideoStream.answer_logits": (
            WATCHED.answer_logits,
            dict(question="what ?", token_ids=[1, 2]),
            dict(token_ids=_names("list"), **asking),
        ),
        "VideoStream.save": (WATCHED.save, {}, dict(path=_names("undecodable", "blank"))),
        "Feed.put": (
            through_feed,
            dict(frames=FRAMES, seconds=[2.0, 3.0]),
            dict(frames=NOTHING, seconds=NOTHING, sound=OPTIONAL, rate=OPTIONAL),
        ),
        # doors that are not in the package's first room
        "search": (
            search,
            dict(lm=MODEL, clips=[Clip("a", [CHUNK], ["what ?"])] * 2, budget=0.5, stages=2, trials=1, steps=0),
            dict(
                lm=NOTHING,
                clips=NOTHING,
                budget=NOTHING,
                stages=NOTHING,
                trials=NOTHING,
                steps=NOTHING,
                base=OPTIONAL,
                kernels=_names("list"),
                objective=OPTIONAL,
                seed=_names("-1", "numpy -1"),
            ),
        ),
        "Watching": (
            Watching,
            dict(pyramid=pv.Pyramid(), memory=pv.Memory(archive=1)),
            dict(
                pyramid=NOTHING,
                memory=NOTHING,
                fps=OPTIONAL | NUMBER,
                max_frames=OPTIONAL | COUNT,
                chunk=COUNT,
                standing=NOTHING,
                ask_pyramid=OPTIONAL,
                retrieve=OPTIONAL | COUNT,
                decode=OPTIONAL,
                gate=OPTIONAL,
                reducer=OPTIONAL,
            ),
        ),
        "Settings": (
            Settings,
            {},
            dict(
                model=OPTIONAL | ANY_TEXT,
                fps=_names("1.5"),
                chunk=NOTHING,
                ratios=OPTIONAL | _names("empty text", "blank"),
                memory=NOTHING,
                evictor=NOTHING,
                probe=OPTIONAL | ANY_TEXT,
                ask_ratios=OPTIONAL | _names("empty text", "blank"),
                gate=OPTIONAL | _names("empty text", "blank"),
                reducer=OPTIONAL | _names("empty text", "blank"),
            ),
        ),
    }


PASSED_OVER = {
    ("max_new_tokens", "huge"),  # an answer may become as long as it likes, and that takes its time
    ("at", "function"),  # what a caller's own function raises is his
    ("at", "class"),
}
UNLISTED = {
    # made by others, or plain data that they hand back
    *(
        "VideoLM",
        "VideoStream",
        "AnswerStream",
        "Feed",
        "Answer",
        "Evidence",
        "FeedStats",
        "Pushed",
        "Status",
        "Timings",
        "TokenLogprob",
        "Trace",
        "Event",
        "Note",
        "Watch",
        "Summary",
    ),
    # awaited, they hand all on to the plain stream
    "AsyncAnswer",
    "AsyncVideoStream",
    *(f"AsyncVideoStream.{name}" for name in ("push", "add_text", "tell", "ask", "add_turn", "likelihood", "save")),
    "VideoStream.tell",  # an old name
    *("AsyncVideoStream.watch_for", "AsyncVideoStream.summarise", "AsyncWatch"),
    *("VideoLM.async_stream", "VideoLM.async_resume", "VideoLM.async_chat"),
    # called by the library itself
    *("VideoLM.note", "Memory.budgets", "Trace.record", "FrameChunk.part", "FrameChunk.cat", "FrameChunk.after"),
    *("Watch.take", "Watch.due", "Watch.pass_over", "Watch.saw", "Watch.could_not_see", "Watch.restored"),
    *("Summary.due", "Summary.could_not"),
}


def public() -> Iterator[tuple[str, list[str]]]:
    """Every public function, class and method that takes something, with the names of what it takes."""
    for name in pv.__all__:
        thing = getattr(pv, name)
        if inspect.isclass(thing) and issubclass(thing, Exception):
            continue
        members = vars(thing).items() if inspect.isclass(thing) else ()
        inherited = [each for base in getattr(thing, "__mro__", ())[1:-1] for each in vars(base).items()]
        for own, member in [("", thing), *members, *inherited]:
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if own.startswith("_") or not callable(function):
                continue
            parameters = inspect.signature(function).parameters.values()
            names = [p.name for p in parameters if p.name not in ("self", "cls") and p.kind not in (p.VAR_KEYWORD,)]
            if names:
                yield f"{name}.{own}" if own else name, names


def test_every_public_argument_has_a_line_here(tmp_path: Path) -> None:
    listed = doors(tmp_path)
    assert set(listed) == set(NAMES)
    for name, arguments in public():
        if name not in UNLISTED:
            assert name in listed and set(arguments) <= set(listed[name][2]), name


def tried(call: Callable[..., Any], given: dict[str, Any]) -> str:
    """ "refused", "taken", or what else came of it."""
    try:
        call(**given)
    except pv.PDropError as error:
        str(error).encode()  # can be printed
        return "refused" if len(str(error)) < 2000 else f"a message of {len(str(error))} characters"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "taken"


def faults(name: str, door: Door) -> list[str]:
    call, given, arguments = door
    found = []
    for argument, meant in arguments.items():
        for wrong, value in WRONG.items():
            if (argument, wrong) in PASSED_OVER:
                continue
            result = tried(call, {**given, argument: value})
            if result != "refused" and not (result == "taken" and wrong in meant):
                found.append(f"{name}({argument}={wrong}): {result[:150]}")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_an_argument_can_not_mean_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert faults(name, doors(tmp_path)[name]) == []


@pytest.mark.parametrize("name", ["Memory", "Pyramid", "Pyramid.resolve", "VideoStream.ask", "VideoStream.feed"])
def test_numbers_of_numpy_are_numbers(name: str, tmp_path: Path) -> None:
    """Counts and shares, and they are stored as plain ones."""
    call, given, arguments = doors(tmp_path)[name]
    counts = {"tokens", "bytes", "archive", "stages", "num_layers", "max_new_tokens", "retrieve", "queue"}
    for argument in counts & arguments.keys():
        made = call(**{**given, argument: np.int64(5)})
        assert type(getattr(made, argument, 5)) is int
    if name == "Pyramid":
        made = pv.Pyramid(ratios=np.array([0.5, 0.25]), layers=np.array([2, 4]))
        assert made == pv.Pyramid(ratios=(0.5, 0.25), layers=(2, 4))
        assert {type(each) for each in (*made.ratios, *made.layers)} == {int, float}
        assert type(pv.Pyramid(ratio=np.float32(0.5)).ratio) is float


def test_what_was_refused_has_changed_nothing(tmp_path: Path) -> None:
    """A stream that said no a hundred times goes on as if nobody had asked."""
    alone, asked = stream(), stream()
    listed = doors(tmp_path)
    for method in ("push", "add_text", "feed", "held", "ask", "likelihood", "next_logits", "save"):
        _, given, arguments = listed[f"VideoStream.{method}"]
        for argument, meant in arguments.items():
            for wrong, value in WRONG.items():
                if wrong not in meant and (argument, wrong) not in PASSED_OVER:
                    tried(getattr(asked, method), {**given, argument: value})
    for each in (alone, asked):
        each.push(video(2, seed=1), [5, 6])
    assert torch.equal(alone.next_logits("what ?", retrieve=1), asked.next_logits("what ?", retrieve=1))
