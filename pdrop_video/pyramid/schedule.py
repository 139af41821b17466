"""Where the stages of a pyramid end and how many visual tokens each of them leaves.

Knows layer numbers and ratios. Refuses to know tensors, models and how tokens are ranked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from ..common import checks
from ..common.atomic import replacing
from ..errors import ConfigError
from .allocators import Allocator, allocator_named
from .inside import Inside, inside_named
from .scorers import Scorer, scorer_named
from .spacing import even_layers, for_mean, moved
from .stages import Schedule


@dataclass(frozen=True, slots=True)
class Pyramid:
    """The schedule of PyramidDrop (arXiv 2410.17247), independent of a model's depth until `resolve`.

    Parameters
    ----------
    stages : int, optional
        Number of stages of equal depth, from 1 (nothing is dropped) to one per layer. Default 4, or one more than
        the number of `ratios` or `layers`.
    ratio : float, optional
        Share that each boundary keeps of what reached it; 0.5 gives ratios .5, .25, .125 of the original count.
    layers : tuple of int, optional
        Explicit boundaries: a drop happens just before each of these decoder layers (0-based, increasing). One at 0
        drops before any layer has run, ranked by layer 0's own norm, queries and keys.
    ratios : tuple of float, optional
        Explicit shares of the *original* visual tokens after each boundary, in (0, 1], never rising.
    positions : {"original", "compact"}
        What position ids survivors carry: their own (needed by M-RoPE and by streams), or renumbered without gaps
        as the released PyramidDrop does.
    average : float, optional
        Instead of ratios: mean share of visual tokens over all layers, in (0, 1]; see `for_average`.
    scorer : str or Scorer, optional
        What ranks visual tokens: "relevance" (PyramidDrop's), "relevance_max", "text_mean", "coast", "hawk", "quota",
        "contrast", "novelty", "product", "fusion", "value_norm", "key_norm", "last_frame", or one of your own. By
        default relevance where a question is known, in one-shot use and in streams with a standing question, and
        contrast where none is: with the default ratios .983 of the built-in model's answers are right, as with all
        tokens, .917 by relevance to a template (docs/measured.md).
    allocator : str or Allocator
        How a boundary's budget is split over the frames of a chunk: "joint" by default, which is the best measured and
        for a single frame the same as PyramidDrop; "global" (not at all), "uniform", or one of your own.
    inside : str or Inside, optional
        What layers leave out of tokens that all stay, in streams: "adaspark", "adaspark:p=0.8,height=2", or one of your
        own. Nothing by default.
    sound : float or tuple of float, optional
        Shares of the original tokens of sound after each boundary, in (0, 1], never rising, ranked among themselves;
        one number s stands for s, s ** 2, ... As for visual tokens where left out.

    Raises
    ------
    ConfigError
        For ratios that rise or lie outside (0, 1], layers that are unsorted or below 0, or arguments that disagree.

    Examples
    --------
    >>> Pyramid().resolve(32)
    Schedule(num_layers=32, layers=(8, 16, 24), ratios=(0.5, 0.25, 0.125), sound=None)
    >>> Pyramid(layers=(10, 20), ratios=(0.5, 0.25)).resolve(32).counts(576)
    (576, 288, 144)
    """

    stages: int | None = None
    ratio: float | None = None
    layers: Sequence[int] | None = None
    ratios: Sequence[float] | None = None
    positions: Literal["original", "compact"] = "original"
    average: float | None = None
    scorer: str | Scorer | None = None
    allocator: str | Allocator = "joint"
    sound: float | Sequence[float] | None = None
    inside: str | Inside | None = None

    def __post_init__(self) -> None:
        given: dict[str, Callable[[str, Any], Any]] = {  # lists are welcome, stored as tuples: hashable
            "stages": checks.whole,
            "ratio": checks.share,
            "layers": partial(checks.several, each=partial(checks.whole, least=0)),
            "ratios": partial(checks.several, each=checks.share),
            "average": checks.share,
            "sound": _sound_shares,
        }
        for name, plain in given.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, plain(name, value))
        checks.choice("positions", self.positions, ("original", "compact"))
        if self.scorer is not None:
            scorer_named(self.scorer)  # an unknown name fails here, not at the first frame
        allocator_named(self.allocator)
        if self.inside is not None:
            inside_named(self.inside)
        if self.average is not None and (self.ratio, self.ratios, self.layers) != (None, None, None):
            raise ConfigError("average was given together with ratio, ratios or layers; it replaces them, give one.")
        if self.ratios is not None and self.ratio is not None:
            raise ConfigError(f"both ratio={self.ratio} and ratios={self.ratios} were given; give one of them.")
        if self.ratios is not None and any(b > a for a, b in pairwise(self.ratios)):
            raise ConfigError(f"ratios={self.ratios} rise; a token that was dropped can't come back: let them fall.")
        if isinstance(self.sound, tuple) and any(b > a for a, b in pairwise(self.sound)):
            raise ConfigError(f"sound={self.sound} rises; a token that was dropped can't come back: let it fall.")
        if self.layers is not None and any(b <= a for a, b in pairwise(self.layers)):
            raise ConfigError(f"layers={self.layers} are not strictly increasing; sort them and remove repeats.")
        self._check_stages()

    @classmethod
    def for_average(cls, tokens: float, of: int, stages: int = 4) -> Pyramid:
        """A pyramid whose layers see `tokens` visual tokens on average, out of `of`.

        Stages of equal depth with one ratio reach down to a third of the tokens; for less, the boundaries move
        towards the shallow layers, which is where the published budgets of 128 and 64 of 576 come from.

        Parameters
        ----------
        tokens : float
            Mean number of visual tokens over the layers.
        of : int
            Visual tokens before any drop.
        stages : int
            Number of stages.

        Examples
        --------
        >>> round(Pyramid.for_average(192, of=576).resolve(32).average(576))
        192
        """
        of = checks.whole("of", of)
        return cls(stages=stages, average=checks.real("tokens", tokens, 0, of, above=True) / of)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Pyramid:
        """Read a pyramid that `save`, or `pdrop-video search`, wrote: the arguments under "pyramid" in a JSON file.

        Raises
        ------
        ConfigError
            If the file can't be read, or holds no pyramid.
        """
        name = checks.shown(checks.path("path", path))
        try:
            given = json.loads(Path(path).read_text(encoding="utf-8"))["pyramid"]
            return cls(**given)
        except OSError as error:
            raise ConfigError(f"{name} can't be read ({error.strerror}); expected a JSON file.") from error
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ConfigError(
                f'{name} holds no pyramid ({error}); expected JSON such as {{"pyramid": {{"ratios": [0.5, 0.25]}}}}.'
            ) from error

    def save(self, path: str | os.PathLike[str], **notes: Any) -> None:
        """Write the pyramid for `load`, with JSON-ready notes beside it. The file appears in one step.

        Raises
        ------
        ConfigError
            If scorer, allocator or inside are no names, but objects of your own; if the notes are not JSON-ready; if
            the file can't be written.
        """
        name = checks.shown(checks.path("path", path))
        given = {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
        for method in ("scorer", "allocator", "inside"):
            if not isinstance(given.get(method, ""), str):
                raise ConfigError(f"{method} is {given[method]!r}, which has no name to be saved by; expected a name.")
        try:
            said = json.dumps({"pyramid": None, **notes} | {"pyramid": given}, indent=1)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"the notes beside a pyramid are {checks.shown(notes)}: {error}.") from error
        try:
            with replacing(path) as part:
                Path(part).write_text(f"{said}\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{name} can't be written ({error.strerror}); choose a file that can.") from error

    def resolve(self, num_layers: int, rank_at: Sequence[int] | None = None) -> Schedule:
        """The boundaries and ratios for a model with `num_layers` decoder layers.

        Parameters
        ----------
        num_layers : int
        rank_at : sequence of int, optional
            The layers before which tokens can be ranked, ascending; all by default. A boundary elsewhere moves forward
            to the next of them, and of several that meet there the last counts: its ratio is of the original tokens.

        Raises
        ------
        ConfigError
            If a boundary lies outside the model, no layer from there on can rank, there are more stages than layers, or
            the average can't be reached.

        Examples
        --------
        Every fourth layer attends to all columns, the others carry a state:

        >>> Pyramid().resolve(16, rank_at=(3, 7, 11, 15))
        Schedule(num_layers=16, layers=(7, 11, 15), ratios=(0.5, 0.25, 0.125), sound=None)
        """
        num_layers, stages = checks.whole("num_layers", num_layers), self._num_stages()
        if rank_at is not None:
            rank_at = checks.several("rank_at", rank_at, partial(checks.whole, least=0))
        ran = stages - (self.layers is not None and 0 in self.layers)  # no layer runs a stage that ends before them all
        if ran > num_layers:
            raise ConfigError(
                f"{stages} stages were asked of a model with {num_layers} layers; use at most {num_layers}."
            )
        sound = self._sound(stages - 1)
        if self.average is not None:
            layers, ratios = for_mean(self.average, stages, num_layers, rank_at)
            return Schedule(num_layers, layers, ratios, None if sound is None else sound[: len(layers)])
        layers = tuple(self.layers) if self.layers is not None else even_layers(num_layers, stages)
        if layers and layers[-1] >= num_layers:
            raise ConfigError(
                f"layers={layers} reach past the model, whose decoder layers are 0 to {num_layers - 1}; "
                f"use boundaries from 0 to {num_layers - 1}."
            )
        ratio = 0.5 if self.ratio is None else self.ratio
        ratios = tuple(self.ratios) if self.ratios is not None else tuple(ratio**s for s in range(1, stages))
        places = moved(layers, rank_at, strict=self.layers is not None)
        last = dict(zip(places, ratios, strict=False))
        heard = None if sound is None else tuple(dict(zip(places, sound, strict=False)).values())
        return Schedule(num_layers, tuple(last), tuple(last.values()), heard)

    def _sound(self, boundaries: int) -> tuple[float, ...] | None:
        """Shares of sound after each of so many boundaries."""
        if self.sound is None or isinstance(self.sound, tuple):
            return self.sound
        assert isinstance(self.sound, float)
        return tuple(self.sound**s for s in range(1, boundaries + 1))

    def _num_stages(self) -> int:
        if self.ratios is not None:
            return len(self.ratios) + 1
        if self.layers is not None:
            return len(self.layers) + 1
        if self.stages is None and isinstance(self.sound, tuple):
            return len(self.sound) + 1
        return 4 if self.stages is None else self.stages

    def _check_stages(self) -> None:
        given = {
            name: count + extra
            for name, count, extra in (
                ("stages", self.stages, 0),
                ("layers", None if self.layers is None else len(self.layers), 1),
                ("ratios", None if self.ratios is None else len(self.ratios), 1),
                ("sound", len(self.sound) if isinstance(self.sound, tuple) else None, 1),
            )
            if count is not None
        }
        if len(set(given.values())) > 1:
            said = ", ".join(f"{name} make {count}" for name, count in given.items())
            raise ConfigError(f"the number of stages is contradictory: {said}; n boundaries make n + 1 stages.")


def _sound_shares(name: str, given: Any) -> Any:
    """One share or several."""
    if isinstance(given, Sequence) and not isinstance(given, str):
        return checks.several(name, given, each=checks.share)
    return checks.share(name, given)
