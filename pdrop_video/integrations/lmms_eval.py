"""pdrop_video as a model of lmms-eval: `lmms-eval --model pdrop_video --model_args pretrained=...,ratios=[0.5,0.25]`.

Found by lmms-eval through the entry point `lmms_eval.models`; nothing else imports this file. Translates requests, and
leaves watching, answering and remembering to `answering`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from loguru import logger
from tqdm import tqdm

import pdrop_video as pv

from ..common import checks
from ..errors import ConfigError
from .answering import Answerer, Asked, Watching
from .messages import asked_about, asked_in


def manifest() -> ModelManifest:
    """What the entry point gives to lmms-eval."""
    return ModelManifest(
        model_id="pdrop_video",
        simple_class_path=f"{__name__}.PDropVideo",
        chat_class_path=f"{__name__}.PDropVideoChat",
        aliases=("pdrop",),
    )


class PDropVideo(lmms):
    """A video-LLM that watches each video as a stream and is asked then; tasks of `doc_to_visual` and `doc_to_text`.

    Parameters
    ----------
    pretrained : str, optional
        As `pdrop_video.load` takes it; left out, the built-in model.
    revision, device, dtype, attn : str, optional
        As for `pdrop_video.load`.
    recipe : str, optional
        A .yaml or .json file that `pdrop_video.Recipe.load` reads; the arguments from `gate` to `archive` stand in
        place of what it says of the same. Left out, what they leave out is the library's default.
    gate, reducer : str or "none", optional
        What is encoded, as ``static:threshold=5``; which visual tokens enter, as ``evs:keep=0.25``. See
        `pdrop_video.Recipe`.
    ratios : list of float or "none", optional
        Share of the visual tokens left after each boundary, as ``[0.5,0.25,0.125]``; "none" drops nothing.
    scorer, allocator : str, optional
        See `pdrop_video.Pyramid`.
    memory : int or "none", optional
        Tokens that a layer remembers at most.
    evictor : str, optional
    archive : int or "none", optional
        See `pdrop_video.Memory`.
    ask_pyramid : list of float or "none", optional
        As `ratios`: drops from the memory at each question, by its attention.
    retrieve : int or "none"
        Steps of time that each question gets back from the memory's archive.
    decode : str, optional
        What the tokens of generated answers look at: "dstp" (the default with `ask_pyramid`), "fixation" or "none".
    fps, max_frames, chunk, standing
        See `pdrop_video.integrations.answering.Watching`.
    journal : str
        Folder of finished answers, from which a killed run goes on; "none" keeps nothing.
    batch_size : int
        1: streams take turns on a model.
    """

    is_simple = True
    _max_new_tokens: ClassVar[int] = 128

    def __init__(
        self,
        pretrained: str | None = None,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        attn: str | None = None,
        recipe: str | None = None,
        gate: str | None = None,
        reducer: str | None = None,
        ratios: Any = None,
        scorer: str | None = None,
        allocator: str | None = None,
        memory: int | str | None = None,
        evictor: str | None = None,
        archive: int | str | None = None,
        ask_pyramid: Any = None,
        retrieve: int | str | None = None,
        decode: str | None = None,
        fps: float | None = None,
        max_frames: int | None = None,
        chunk: int = 8,
        standing: bool = False,
        journal: str = "lmms_eval_journal",
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if str(batch_size) != "1":
            raise ConfigError(f"batch_size is {batch_size!r}; expected 1, since streams take turns on a model.")
        # as torchrun and accelerate's launcher name them; one journal a process
        self._rank, self._world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if device is None and self._world_size > 1 and torch.cuda.is_available():
            device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        more: dict[str, Any] = {} if revision is None else {"revision": revision}
        dropping = {} if ratios is None else _schedule("ratios", ratios)
        remembering = _given(evictor=evictor)
        if memory is not None:
            remembering["tokens"] = _count("memory", memory)
        if archive is not None:
            remembering["archive"] = _count("archive", archive)
        opened = (pv.Recipe() if recipe is None else pv.Recipe.load(recipe)).altered(
            gate=gate,
            reducer=reducer,
            pyramid=dropping | _given(scorer=scorer, allocator=allocator),
            memory=remembering,
        )
        watching = Watching(
            opened.pyramid,
            opened.memory,
            fps,
            max_frames,
            chunk,
            standing,
            None if ask_pyramid is None else pv.Pyramid(**_schedule("ask_pyramid", ask_pyramid)),
            _count("retrieve", retrieve),
            opened.gate,
            opened.reducer,
            decode,
        )
        checks.path("journal", journal)
        self._lm = pv.load(pretrained, device=device, dtype=dtype, attn=attn, **more)
        self._answerer = Answerer(self._lm, watching, None if journal == "none" else journal, self._rank)
        if self._answerer.known:
            logger.warning(f"{self._answerer.known} answers of such a run are in {journal!r} and are not given anew.")

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self._lm.device

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answers in the order of the requests; each is on the disk before the next question is asked."""
        work = []
        for request in requests:
            asked, settings = self._question(request.args)
            limits = _limits(settings)
            work.append((asked, lambda asked=asked, limits=limits: self._answerer.answer(asked, *limits)))
        return self._in_order(work)

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        """Every round's answer, round after round until the task says that it was the last."""
        work = []
        for request in requests:
            asked, settings = self._question(request.args)
            work.append((asked, lambda r=request, a=asked, s=settings: self._rounds(r.args, a, _limits(s))))
        return self._in_order(work)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """The loss of each continuation, nats a token, as lmms-eval takes the least; and whether it is greedy."""
        work = []
        for request in requests:
            ctx, target, doc_to_visual, doc_id, task, split = request.args
            doc = self.task_dict[task][split][doc_id]
            text = target if isinstance(target, str) else target(doc)
            asked = asked_about(doc_to_visual(doc), ctx)
            work.append((asked, lambda asked=asked, text=str(text): self._answerer.loss(asked, text)))
        return self._in_order(work)

    def _question(self, args: tuple[Any, ...]) -> tuple[Asked, dict[str, Any]]:
        """A request's first question and its settings; the simple layout, with or without rounds."""
        ctx, settings, doc_to_visual, *_, doc_id, task, split = args
        return asked_about(doc_to_visual(self.task_dict[task][split][doc_id]), ctx), settings

    def _rounds(self, args: tuple[Any, ...], asked: Asked, limits: tuple[int, tuple[str, ...]]) -> list[str]:
        *_, doc_to_text, doc_id, task, split = args
        doc, said, info = self.task_dict[task][split][doc_id], [], None
        while True:
            said.append(self._answerer.answer(asked, *limits))
            visuals, text, last, outputs, info = doc_to_text(
                doc, previous_output=list(said), round_idx=len(said), previous_round_info=info
            )
            if last:
                return list(outputs)  # the task's own word on what counts
            asked = asked_about(visuals, text)

    def _in_order(self, work: Sequence[tuple[Asked, Callable[[], Any]]]) -> list[Any]:
        """Do the work video by video, so that each is watched once, and give results in the order it came."""
        results: list[Any] = [None] * len(work)
        videos = [(asked.video, asked.start or 0, asked.end or 0, asked.system or "") for asked, _ in work]
        for i in tqdm(sorted(range(len(work)), key=videos.__getitem__), disable=self.rank != 0, desc="pdrop_video"):
            results[i] = work[i][1]()
        return results


class PDropVideoChat(PDropVideo):
    """The same for tasks of `doc_to_messages`. Parameters as for `PDropVideo`."""

    is_simple = False

    def _question(self, args: tuple[Any, ...]) -> tuple[Asked, dict[str, Any]]:
        _, doc_to_messages, settings, doc_id, task, split = args
        return asked_in(doc_to_messages(self.task_dict[task][split][doc_id])), settings

    def _rounds(self, args: tuple[Any, ...], asked: Asked, limits: tuple[int, tuple[str, ...]]) -> list[str]:
        _, doc_to_messages, _, doc_id, task, split = args
        doc, said, info = self.task_dict[task][split][doc_id], [], None
        while True:
            said.append(self._answerer.answer(asked, *limits))
            following = doc_to_messages(doc, round_idx=len(said), previous_output=list(said), previous_round_info=info)
            if not isinstance(following, tuple) or following[1]:  # a task without rounds, or its last one
                return said
            messages, _, _, info = following
            asked = asked_in(messages)


def _limits(settings: dict[str, Any]) -> tuple[int, tuple[str, ...]]:
    """The longest answer and the texts that end it, from lmms-eval's generation settings."""
    if settings.get("do_sample") or (settings.get("num_beams") or 1) != 1:
        raise ConfigError(
            f"the task asks for sampling or beams ({settings}); answers are greedy here. Run it with "
            "--gen_kwargs do_sample=False,temperature=0,num_beams=1."
        )
    until = settings.get("until") or ()
    return int(settings.get("max_new_tokens") or PDropVideo._max_new_tokens), (until,) if isinstance(
        until, str
    ) else tuple(until)


def _schedule(name: str, ratios: Any) -> dict[str, Any]:
    """Ratios as arguments of a `Pyramid`."""
    if str(ratios).strip().lower() == "none":
        return {"stages": 1}
    try:
        return {"ratios": tuple(float(part) for part in str(ratios).strip("()[]'\" ").split(","))}
    except ValueError as error:
        raise ConfigError(
            f"{name} is {ratios!r}; expected numbers in brackets as [0.5,0.25,0.125], or none."
        ) from error


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _count(name: str, value: int | str | None) -> int | None:
    if value is None or str(value).strip().lower() == "none":
        return None
    try:
        return checks.whole(name, value)
    except ConfigError as error:
        raise ConfigError(f"{str(error).rstrip('.')}, or none.") from None
