"""What a search has measured, in a journal: nothing of it is measured twice, also after the process was killed.

Knows recipes, clips and files; refuses to know which recipe is tried next.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ..common.checks import shown
from ..common.journal import Journal, read_journal
from ..errors import ConfigError, ModelError
from ..stream.lm import VideoLM
from ..stream.recipe import Recipe
from .judge import FULL, Clip, Objective, Reference
from .questions import Kept
from .whole import Judged, Left, judged, left_of

JOURNAL = "judged.jsonl"
Made = TypeVar("Made", Judged, Left)


class Ledger:
    """Measures recipes and fronts on clips, and keeps what came out.

    Parameters
    ----------
    lm : VideoLM
    clips : sequence of Clip
    objective : Objective
    folder : path
        Made if need be.
    notes : dict
        What else the values depend on.
    watch : callable
        Is given a line for each recipe that was watched.

    Raises
    ------
    ConfigError
        If the folder can't be written, or its journal is of other clips, questions, models or settings.
    """

    def __init__(
        self,
        lm: VideoLM,
        clips: Sequence[Clip],
        objective: Objective,
        folder: Path,
        notes: dict[str, Any],
        watch: Callable[[str], None],
    ) -> None:
        self.lm, self.objective, self.watch, self._references = lm, objective, watch, Kept()
        asked = json.dumps([[clip.name, list(clip.questions)] for clip in clips])
        settings = {
            "model": lm.name,
            "dtype": str(lm.model.dtype),
            "objective": objective.of,
            "answer_tokens": objective.tokens if objective.of == "answer" else None,
            "questions": hashlib.sha256(asked.encode()).hexdigest(),
            **notes,
        }
        self._entries: dict[str, dict[str, Any] | None] = {}
        path = Path(folder) / JOURNAL
        entries = list(read_journal(path)) if path.is_file() else []
        if entries and entries[0].get("settings") != settings:
            was = entries[0].get("settings") or {}
            other = [name for name in {**settings, **was} if settings.get(name) != was.get(name)]
            raise ConfigError(
                f"{path} is of another search: {', '.join(other)} differ ({shown([was.get(name) for name in other])}); "
                "give another folder, or the same settings."
            )
        self._journal = Journal(path)
        for entry in entries[1:]:
            self._entries[entry["key"]] = entry["value"]
        if not entries:
            self._journal.append({"settings": settings})

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._journal.close()

    def judged(self, recipe: Recipe, clip: Clip) -> Judged | None:
        """A recipe on a clip; None if the model or the memory refuses it."""
        return self._made(
            ["recipe", recipe.as_dict(), clip.name],
            lambda: judged(self.lm, clip, recipe, self.references(clip)),
            Judged,
        )

    def left(self, clips: Sequence[Clip], gate: str | None, reducer: str | None) -> list[Left] | None:
        """What gate and reducer leave of each of some clips; None if the model refuses them."""
        made = [
            self._made(["left", gate, reducer, clip.name], partial(left_of, self.lm, clip, gate, reducer), Left)
            for clip in clips
        ]
        there = [each for each in made if each is not None]
        return there if len(there) == len(made) else None

    def full(self, clips: Sequence[Clip]) -> int:
        """FLOPs of the whole way of some clips with all tokens.

        Raises
        ------
        ConfigError
            If the family does not say what its vision tower costs.
        """
        return sum(
            made.spent.flops if (made := self.judged(FULL, clip)) is not None else self._counted(clip) for clip in clips
        )

    def references(self, clip: Clip) -> list[Reference]:
        """What the full model says to each of a clip's questions."""

        def make() -> list[Reference]:
            with self.lm.stream(FULL) as stream:
                for chunk in clip.chunks:
                    stream.push(chunk)
                return [self.objective.full(stream, question) for question in clip.questions]

        made: list[Reference] = self._references.get(clip.name, make, lambda each: sum(one.nbytes for one in each))
        return made

    def _counted(self, clip: Clip) -> int:
        """The same, so that what is wrong with the full model itself is raised."""
        return judged(self.lm, clip, FULL, self.references(clip)).spent.flops

    def _made(self, key: list[Any], make: Callable[[], Made], kind: type[Made]) -> Made | None:
        """What the journal has under a key, or what is made now and written there."""
        line = json.dumps(key, sort_keys=True)
        if line not in self._entries:
            try:
                value: dict[str, Any] | None = make().as_dict()
            except (ConfigError, ModelError) as error:
                value = None
                self.watch(f"refused: {error}")
            self._journal.append({"key": line, "value": value})
            self._entries[line] = value
        known = self._entries[line]
        return None if known is None else kind.from_dict(known)
