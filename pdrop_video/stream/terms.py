"""What a question may ask for beside its words: its pyramid, and what its answer looks at. Knows layers, no state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..common import checks
from ..common.checks import shown
from ..common.kinds import LayerKind
from ..errors import ConfigError
from ..pyramid import LayerLoop, Pyramid, Schedule
from ..pyramid.allocators import ALLOCATORS, allocator_named
from ..pyramid.scorers import SCORERS, Asker, checked, scorer_named
from .limits import fixed_rope
from .looking import Decode, chosen
from .sampling import Choice, Sampling, likeliest

_MOST_LOGPROBS = 1024


def drawing(
    max_new_tokens: int, sampling: Sampling | None, stop: Sequence[str], logprobs: int | None
) -> tuple[int, Choice, tuple[str, ...], int | None]:
    """How an answer is generated: its longest, what chooses its tokens, where it ends, and how many others are noted.

    Raises
    ------
    ConfigError
    """
    max_new_tokens = checks.whole("max_new_tokens", max_new_tokens)
    if sampling is not None:
        checks.instance("sampling", sampling, Sampling, "Sampling(temperature=0.7, seed=1)")
    stop = tuple(checks.texts("stop", stop, least=0))
    top = None if logprobs is None else checks.whole("logprobs", logprobs, 0, _MOST_LOGPROBS)
    return max_new_tokens, likeliest if sampling is None else sampling.begin(), stop, top


def checked_for_asking(pyramid: Pyramid) -> Pyramid:
    """The same pyramid, if it says no more than what a question goes by: where its stages end, and their ratios.

    A question ranks what is remembered by its own attention, or by a scorer that can rank columns (`Asker`), and knows
    no frames of a chunk, so that another scorer, an allocator or new positions would change nothing.

    Raises
    ------
    ConfigError
        If it asks for one of those, or is no `Pyramid`.
    """
    if not isinstance(pyramid, Pyramid):
        raise ConfigError(f"the pyramid of a question is {pyramid!r}; expected a Pyramid, or None to attend to all.")
    scorer = SCORERS["relevance"] if pyramid.scorer is None else scorer_named(pyramid.scorer)
    unused = {
        "scorer": scorer != SCORERS["relevance"] and not isinstance(scorer, Asker),
        "allocator": allocator_named(pyramid.allocator) not in (ALLOCATORS["joint"], ALLOCATORS["global"]),
        "positions": pyramid.positions != "original",
        "sound": pyramid.sound is not None,
        "inside": pyramid.inside is not None,
    }
    for name, is_unused in unused.items():
        if is_unused:
            raise ConfigError(
                f"the pyramid of a question has {name}={getattr(pyramid, name)!r}, which asking does not use: what is "
                f"remembered is ranked by the question's attention, and keeps its place. Leave {name} out."
            )
    return pyramid


def asking_by(pyramid: Pyramid | None, loop: LayerLoop, model: Any) -> tuple[Schedule, Asker | None]:
    """Where a question's pyramid drops in a model, and the scorer it names, if it is not the last row's attention.

    Parameters
    ----------
    pyramid : Pyramid, optional
        Of a question; None attends to all.
    loop : LayerLoop
        Of its stream.
    model : PreTrainedModel

    Raises
    ------
    ConfigError
        If it is none that a question can have, does not fit the model, or the scorer can't rank what that remembers.
    """
    own = loop.schedule
    if pyramid is None:
        return Schedule(own.num_layers, own.layers, (1.0,) * len(own.layers)), None
    schedule = checked_for_asking(pyramid).resolve(own.num_layers, loop.rank_at)
    scorer = None if pyramid.scorer is None else scorer_named(pyramid.scorer)
    if scorer is None or not isinstance(scorer, Asker):
        return schedule, None
    checked(scorer, schedule.layers, pyramid.layers, loop.decoder.layers, loop.kinds)
    rope = fixed_rope(model)
    if getattr(scorer, "unrotates", False) and (rope or loop.decoder.latent):
        lacks = f"{rope!r} RoPE does not have" if rope else "this model does not remember, but latents"
        raise ConfigError(
            f"the pyramid of a question has scorer={pyramid.scorer!r}, which ranks by un-rotated keys, which {lacks}; "
            'use "relevance", "relevance_max" or "text_mean".'
        )
    return schedule, scorer


def checked_for_looking(
    decode: str | Decode | None, schedule: Schedule, kinds: Sequence[LayerKind], archive: int | None
) -> Decode | None:
    """A method by its name or itself, if what it looks for can be there; None for none.

    Where nobody said, `DEFAULT` if the question hides anything.

    Raises
    ------
    ConfigError
        If none of that name is listed, the layers do not suit it, it wants archived steps of a stream without an
        archive, or it looks at what the question hides and that hides nothing.
    """
    hides = any(ratio < 1 for ratio in schedule.ratios)
    looking = chosen(decode, hides)
    if looking is None:
        return None
    looking.check(kinds)
    reserve = getattr(looking, "reserve", 0)  # which one of somebody's own may not have
    if reserve and archive is None:
        raise ConfigError(
            f"decode={shown(decode)} with reserve={reserve}: this stream has no archive; open it with "
            "Memory(archive=BYTES)."
        )
    if looking.uses_hidden and not reserve and not hides:
        raise ConfigError(
            f"decode={shown(decode)} looks again at what the question hides, which is nothing; give the question a "
            "pyramid, such as pyramid=Pyramid(ratios=(0.5, 0.25)), or the method a reserve of archived steps."
        )
    return looking
