"""A run's settings: from the command line and a YAML file, checked, and the part of them that names its results.

Knows settings. Refuses to know how they are carried out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

import pdrop_video as pv
from pdrop_video.parts import PARTS as TRAINED
from pdrop_video.parts import located
from pdrop_video.registry import name_of
from pdrop_video.stream.looking import DECODES, NEVER, chosen, decode_named
from pdrop_video.stream.terms import checked_for_asking

from ..stats.record import digest
from .doors import encodable
from .paraphrases import TEMPLATES, Paraphrase, paraphraser
from .parts import ALL, FRONT, NOTHING, PARTS, budget_of, built, method_of, of_recipe, parsed, schedule_of

STEPWISE = "videomme-steps"
"""The task whose answers decode tokens before options are compared."""
PLACE = {"data", "out", "device", "limit", "cache", "cache_gb", "strict", "retry", "recipe", "batch"}
"""Settings that say where and how much is done; what an item's answer is does not depend on them.

A recipe's file is one: what it says is in the settings that it stands for.
"""


class RunConfig(BaseModel):
    """One run of one task with one model and method. `eval.run --help` says the same in the order of use.

    Attributes
    ----------
    task : str
        A name in `eval.tasks.TASKS`.
    data, out : Path
        The benchmark's folder, and where the run is written.
    model, revision, dtype, attn, device : str or None
        As `pdrop_video.load` takes them; no model means the built-in one.
    parts : tuple of str
        Trained parts, as `pdrop_video.load` takes them.
    recipe : Path or None
        A file that `pdrop_video.Recipe.load` reads; the next four stand in place of what it says of the same.
    gate, reducer : str or None
        As `pdrop_video.Recipe` takes them, "static:threshold=5", "evs:keep=0.25"; None for none.
    pyramid, memory : dict
        Arguments of `pdrop_video.Pyramid` and `pdrop_video.Memory`: scorer, allocator, evictor, archive and the rest.
    ask_pyramid : dict or None
        Arguments of a `Pyramid` that drops from the memory at each question, by its attention: stages and ratios; None
        attends to all of it.
    retrieve : int or None
        Steps of time that each question gets back from the memory's archive.
    decode : str or None
        What an answer's tokens look at, as `pdrop_video.VideoStream.ask` takes it: "dstp", which is the default with
        `ask_pyramid`, "fixation:keep=0.1", or "none".
    fps, frames : float or int, one of them
        Frames a second, or so many in all by the task's own rule.
    chunk : int
        Frames a push.
    last_frames : int or None
        The recency baseline: no memory; each question sees the last so many frames, with all the tokens that gate and
        reducer let through.
    answer : {"generate", "likelihood"}
        Read what the model writes, or compare the length-normalised likelihoods of the options' texts.
    question_aware : bool
        Each question ranks tokens while the video is watched, which is done anew for each.
    paraphrase : str or None
        Put questions in other words by this rule; see `eval.runner.paraphrases.paraphraser`.
    max_new_tokens : int or None
        In place of the task's own.
    seed : int
    limit : int or None
        Only the first so many items.
    cache, cache_gb : Path or None, float
        A folder that keeps decoded frames, and its size at most.
    batch : int
        Videos at once on one model, whose streams are computed together.
    strict, retry : bool
        Stop at an item's error in place of recording it; do items again that have an error on record.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    data: Path
    out: Path
    model: str | None = None
    revision: str | None = None
    parts: tuple[str, ...] = ()
    dtype: str = "auto"
    attn: str | None = None
    device: str | None = None
    recipe: Path | None = None
    gate: str | None = None
    reducer: str | None = None
    pyramid: dict[str, Any] = Field(default_factory=dict)
    memory: dict[str, Any] = Field(default_factory=dict)
    ask_pyramid: dict[str, Any] | None = None
    retrieve: int | None = Field(default=None, ge=1)
    decode: str | None = None
    fps: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    frames: int | None = Field(default=None, ge=1)
    chunk: int = Field(default=8, ge=1)
    last_frames: int | None = Field(default=None, ge=1)
    answer: Literal["generate", "likelihood"] = "generate"
    question_aware: bool = False
    paraphrase: str | None = None
    max_new_tokens: int | None = Field(default=None, ge=1)
    seed: int = 0
    limit: int | None = Field(default=None, ge=1)
    cache: Path | None = None
    cache_gb: float = Field(default=50.0, gt=0, allow_inf_nan=False)
    batch: int = Field(default=1, ge=1)
    strict: bool = False
    retry: bool = False

    @field_validator(*FRONT, mode="before")
    @classmethod
    def _method(cls, value: Any, of: ValidationInfo) -> Any:
        return method_of(str(of.field_name), value)

    @field_validator("decode", mode="before")
    @classmethod
    def _looking(cls, value: Any) -> Any:
        return value if value in (None, NEVER) else name_of(DECODES, decode_named(value))

    @field_validator("pyramid", "ask_pyramid", mode="before")
    @classmethod
    def _ratios(cls, value: Any) -> Any:
        return schedule_of(value)

    @field_validator("memory", mode="before")
    @classmethod
    def _tokens(cls, value: Any) -> Any:
        return budget_of(value)

    @model_validator(mode="before")
    @classmethod
    def _written(cls, values: Any) -> Any:
        for name, value in values.items():
            encodable(name, value)
        return values if values.get("recipe") is None else {**values, **of_recipe(values)}

    @model_validator(mode="after")
    def _together(self) -> RunConfig:
        if self.fps is not None and self.frames is not None:
            raise ValueError(f"both fps={self.fps:g} and frames={self.frames} were given; give one of them")
        if self.fps is None and self.frames is None:
            raise ValueError("neither fps nor frames was given; give one of them, for example frames: 64")
        if self.last_frames is not None and self.question_aware:
            raise ValueError("last_frames keeps all tokens of its frames, so question_aware has nothing to rank")
        self.recipe_object()
        memory = self.memory_object()
        self.ask_pyramid_object()
        self.paraphraser()
        drops = self.pyramid not in ({}, NOTHING) or self.memory not in ({}, ALL)
        if self.last_frames is not None and drops:
            raise ValueError(
                f"last_frames={self.last_frames} drops nothing and has no memory, so pyramid and memory would not be "
                "used; leave them out, or give none for both"
            )
        if self.retrieve is not None and (memory.archive is None or self.last_frames is not None):
            raise ValueError(
                f"retrieve={self.retrieve} without an archive to retrieve from; give the memory one, for example "
                "memory: {tokens: 6144, archive: 1073741824} (bytes), and no last_frames"
            )
        if self.decode not in (None, NEVER) and not self._decodes:
            raise ValueError(f"decode={self.decode} is for generated answers, of which answer=likelihood has none")
        return self

    @property
    def _decodes(self) -> bool:
        """Whether tokens of an answer come before what is compared, or are it."""
        return self.answer == "generate" or self.task == STEPWISE

    def recipe_object(self) -> pv.Recipe:
        """What streams are opened with."""
        pyramid, memory = self.pyramid_object(), self.memory_object()
        if self.last_frames is not None:
            pyramid, memory = built(pv.Pyramid, NOTHING), built(pv.Memory, ALL)
        return pv.Recipe(self.gate, self.reducer, pyramid, memory)

    def pyramid_object(self) -> pv.Pyramid:
        """The schedule."""
        return built(pv.Pyramid, self.pyramid)

    def memory_object(self) -> pv.Memory:
        """The budget."""
        return built(pv.Memory, self.memory)

    def ask_pyramid_object(self) -> pv.Pyramid | None:
        """The schedule of questions."""
        return None if self.ask_pyramid is None else checked_for_asking(built(pv.Pyramid, self.ask_pyramid))

    def paraphraser(self) -> Paraphrase | None:
        """What puts questions in other words."""
        return None if self.paraphrase is None else paraphraser(self.paraphrase)

    def identity(self) -> dict[str, Any]:
        """The settings that an item's answer depends on, JSON-ready; of a file of paraphrases, what it says."""
        settings = self.model_dump(mode="json", exclude=PLACE)
        settings["memory"].pop("archive_folder", None)  # a place, too
        if "bytes" in settings["memory"]:
            settings["memory"]["storage"] = self.memory_object().storage  # whose default depends on it
        looking = chosen(self.decode, hides=self.ask_pyramid is not None and self._decodes)
        settings["decode"] = None if looking is None else name_of(DECODES, looking)
        for slot in (*FRONT, "decode"):
            if settings[slot] is None:
                del settings[slot]  # so that runs from before there was any keep their name
        settings["parts"] = {
            name: digest(path.read_bytes().hex()) for name, path in located(self.parts, TRAINED, not self.model).items()
        }
        if not self.parts:
            del settings["parts"]  # likewise
        if self.paraphrase is not None and self.paraphrase not in TEMPLATES:
            settings["paraphrase"] = digest(Path(self.paraphrase).read_text(encoding="utf-8"))
        return settings

    @property
    def digest(self) -> str:
        """Their name."""
        return digest(self.identity())


def configured(file: Path | None, given: dict[str, Any]) -> RunConfig:
    """Settings from a YAML file, with those that were given in place of its own.

    Parameters
    ----------
    file : Path or None
        YAML with the names of `RunConfig`.
    given : dict
        By the same names; None stands for not given.

    Raises
    ------
    ConfigError
        If the file can't be read, or a setting is unknown, missing or wrong.
    """
    settings: dict[str, Any] = {}
    if file is not None:
        loaded = parsed(str(file), _text(file))
        if not isinstance(loaded, dict):
            raise pv.ConfigError(f"{file} holds {type(loaded).__name__}; expected YAML lines such as frames: 64.")
        settings = loaded
    given = {name: value for name, value in given.items() if value is not None}
    if {"fps", "frames"} & given.keys():  # one of them on the command line replaces the other in the file
        settings = {name: value for name, value in settings.items() if name not in ("fps", "frames")}
    if "recipe" in given:  # likewise
        settings = {name: value for name, value in settings.items() if name not in PARTS}
    try:
        return RunConfig(**{**settings, **given})
    except ValidationError as error:
        said = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg'].removeprefix('Value error, ').rstrip('.')}"
            for e in error.errors()
        )
        raise pv.ConfigError(f"the settings are wrong: {said}. See pdrop-video eval run --help.") from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise pv.ConfigError(f"{file} can't be read ({why}); expected a YAML file.") from error
