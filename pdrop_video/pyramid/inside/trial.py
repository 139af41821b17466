"""Where each layer's FFN begins and ends: found by watching a few rows, and proved by running some of them alone.

Knows the layer loop that asks. Refuses to know families: what differs is refused with the layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...common.shadow import shadow
from ...errors import ConfigError, PDropError
from ..decoder import Decoder, some_rows
from .branch import Call, Share, parts_of, spread_out, watched

_ROWS = 6
_ACTIVE = (0, 2, 3, 5)
_CUBE = (-1, 0, 0, 1, 1, 2)


def tried(decoder: Decoder, loop: Any, inside: Any) -> tuple[tuple[str, ...], ...]:
    """The parts that are each layer's FFN; empty of a layer without one.

    Parameters
    ----------
    decoder : Decoder
        As it was before; its layers are put in place of while it is tried.
    loop : LayerLoop
        Around it.
    inside : Inside
        For messages.

    Raises
    ------
    ConfigError
        If some layer's can't be told, or gives other numbers where some rows alone get one.
    """
    before = decoder.layers
    with torch.inference_mode(False), torch.no_grad():
        try:
            twins = [shadow(layer) for layer in before]
            decoder.layers = twins
            calls: list[list[Call]] = [[] for _ in twins]
            removals = [remove for twin, noted in zip(twins, calls, strict=True) for remove in watched(twin, noted)]
            entered = _run(decoder, loop, twins)
            for remove in removals:
                remove()
            found = tuple(
                _parts(i, before[i], calls[i], loop.kinds[i].name == "alone", inside) for i in range(len(before))
            )
            _prove(decoder, loop, inside, found, calls, entered)
        except (PDropError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a stranger's layer makes of few rows
            said = (str(error).strip().splitlines() or [""])[0]
            raise _refused(
                decoder, inside, f"some rows alone can't be given one ({type(error).__name__}: {said})"
            ) from error
        finally:
            decoder.layers = before
    return found


def _run(decoder: Decoder, loop: Any, layers: list[nn.Module], given: list[Tensor] | None = None) -> list[Tensor]:
    """A few rows through the loop; returns what entered each layer, which is `given` if there is any."""
    entered: list[Tensor] = []

    def entering(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        entered.append(args[0])
        return None if given is None else ((given[len(entered) - 1], *args[1:]), kwargs)

    removals = [layer.register_forward_pre_hook(entering, with_kwargs=True).remove for layer in layers]
    embeds, ids = some_rows(decoder.text, _ROWS)
    marks = torch.arange(_ROWS, device=embeds.device)[None] % 2 if decoder.marked else None
    positions = torch.arange(_ROWS, device=embeds.device)[None]
    if decoder.axes == 3:
        positions = positions.expand(3, 1, -1)
    loop.run(decoder.widened(embeds, ids, marks), positions, None)
    for remove in removals:
        remove()
    return entered


def _parts(i: int, layer: Any, calls: list[Call], alone: bool, inside: Any) -> tuple[str, ...]:
    gave = calls[-1].gave
    assert gave is not None
    if (found := parts_of(layer, calls, alone, _tolerance(gave))) is None:
        raise ConfigError(
            f"{inside} gives some rows the mean of others' FFNs, but what layer {i} ({type(layer).__name__}) adds to "
            "its rows behind its mixer is no plain FFN: one that gives each row by itself what is added to it. Leave "
            "attention alone out (half=attention), or the method."
        )
    return found


def _prove(
    decoder: Decoder,
    loop: Any,
    inside: Any,
    found: tuple[tuple[str, ...], ...],
    calls: list[list[Call]],
    entered: list[Tensor],
) -> None:
    """Each layer on what entered it before, some rows alone with an FFN: the others' must be the mean of theirs."""
    cube, index = (torch.tensor(each, device="cpu") for each in (_CUBE, _ACTIVE))
    active = torch.zeros(_ROWS, dtype=torch.bool, device="cpu").index_fill(0, index, True)
    twins = [shadow(layer) for layer in decoder.text.layers]
    again: list[list[Call]] = [[] for _ in twins]
    for twin, parts, noted in zip(twins, found, again, strict=True):
        if parts:
            Share(twin, parts, lambda hidden: (active.to(hidden.device), cube.to(hidden.device)))
        watched(twin, noted)
    decoder.layers = twins
    _run(decoder, loop, twins, entered)
    for i, (parts, first, second) in enumerate(zip(found, calls, again, strict=True)):
        if not parts:
            continue
        x, added = (next(c for c in first if c.name == name) for name in (parts[0], parts[-1]))
        assert x.given is not None
        assert added.gave is not None
        here = index.to(added.gave.device)
        want, made = x.given + spread_out(added.gave[:, here], here, cube.to(here.device)), second[-1].gave
        if made is None or not (made - want).norm() <= _tolerance(want) * want.norm():
            raise _refused(decoder, inside, f"rows of layer {i} get another one where some rows alone do")


def _refused(decoder: Decoder, inside: Any, why: str) -> ConfigError:
    return ConfigError(
        f"{inside} gives some rows of a layer the mean of others' FFNs, which {type(decoder.text).__name__} does not "
        f"bear: {why}. Leave columns of attention alone out (half=attention), or the method."
    )


def _tolerance(like: Tensor) -> float:
    """Half of the digits, as where a decoder is accepted."""
    return torch.finfo(like.dtype).eps ** 0.5
