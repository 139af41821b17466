"""A model whose layers are on two pretended cards in turn, as accelerate has them by a `device_map`, against one card.

For `pretended_card.py`, which see: whatever is given tensors of two cards fails there.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import accelerate
import hybrids
import torch
from families import budget, build, video
from pretended_card import CARD, watched, ways
from reference import full_prompt
from test_exact import QUESTION, next_logits

import pdrop_video as pv

OTHER = torch.device(CARD.type, 1)


def listed() -> list[dict[str, Any]]:
    """Every listed method, and every way to ask; what it raised, or how far it is from the same on one card."""
    pair = _pair("qwen2_5_vl")
    memory = pv.Memory(tokens=budget(pair[1], 2.6), archive=10**8)
    asking: dict[str, dict[str, Any]] = {
        "ratios": dict(pyramid=pv.Pyramid(ratios=(0.5, 0.25))),
        "contrast": dict(pyramid=pv.Pyramid(ratios=(0.5, 0.25), scorer="text_mean")),
        "retrieve": dict(retrieve=3, pyramid=pv.Pyramid(ratios=(0.5, 0.25))),
        "dstp": dict(decode="dstp:tau=0,reserve=2", pyramid=pv.Pyramid(ratios=(0.5, 0.25))),
        "fixation": dict(decode="fixation:warm=1,keep=0.3,jump=1", pyramid=pv.Pyramid(ratios=(0.5, 0.25))),
    }
    rows = [_row(way, pair, how) for way, how in ways(pair[1]).items()]
    rows += [_row(f"asked {way}", pair, dict(memory=memory), how) for way, how in asking.items()]
    for storage in ("full", "int4:recent=8", "rotatek:recent=8"):
        closed = pv.Memory(tokens=budget(pair[1], 2.6), storage=storage, positions="window", evictor="streaming_vlm")
        rows.append(_row(f"moved {storage}", pair, dict(memory=closed)))
    return rows


def families(names: list[str]) -> list[dict[str, Any]]:
    """One stream of each of some families, and a prompt in one piece."""
    rows = []
    for name in names:
        pair = _pair(name)
        rows.append(_row(name, pair, dict(memory=pv.Memory(tokens=budget(pair[1], 2.6)))))
        if name in hybrids.HYBRIDS:
            continue
        logits = []
        for lm in pair:
            inputs, _, _ = full_prompt(lm, video(4), [0, 1, 2, 3], QUESTION)
            inputs = {key: of.to(CARD) if isinstance(of, torch.Tensor) else of for key, of in inputs.items()}
            with torch.no_grad(), pv.pyramid_drop(lm.model):
                logits.append(lm.model(**inputs).logits.cpu())
        rows.append({"way": f"{name} one-shot", "error": None, "apart": _far(*logits)})
    return rows


def _pair(name: str) -> tuple[Any, Any]:
    """A family's model over two cards, and on one."""
    if name in hybrids.HYBRIDS:
        spread, whole = hybrids.build(name), hybrids.build(name)
        for lm in (spread, whole):
            lm.model.to(CARD)
    else:
        spread, whole = build(name, device=CARD.type), build(name, device=CARD.type)
    over_two(spread.model)
    return spread, whole


def over_two(model: Any) -> None:
    """Let accelerate have each second layer on the other card, and what follows the layers."""
    layers, names = list(model.get_decoder().layers), {module: name for name, module in model.named_modules()}
    places = {names[layer]: place for layer, place in zip(layers, itertools.cycle((CARD, OTHER)), strict=False)}
    inside = tuple(f"{name}." for name in places)
    for name, module in model.named_modules():
        if name and not name.startswith(inside) and name not in places and not list(module.children()):
            places[name] = OTHER if module is model.get_output_embeddings() or name.endswith("model.norm") else CARD
    named = tuple(f"{name}." for name in places)
    places |= {name: CARD for name, _ in model.named_parameters() if not name.startswith(named)}
    for name, place in places.items():
        if place == OTHER:
            model.get_submodule(name).to(place)
    accelerate.dispatch_model(model, places, main_device=CARD, skip_keys=model._skip_keys_device_placement)


def _row(way: str, pair: tuple[Any, Any], how: dict[str, Any], asking: dict[str, Any] | None = None) -> dict[str, Any]:
    """The first stream of a pair is saved before it answers, and resumed."""
    try:
        stream, other = (watched(lm, how) for lm in pair)
        with TemporaryDirectory() as folder:
            stream.save(Path(folder) / "stream")
            stream = pair[0].resume(Path(folder) / "stream")
        first, second = (each.ask("what is shown ?", 4, **(asking or {})) for each in (stream, other))
        tables = [each._state.cache.tables for each in (stream, other)]
        same = first.token_ids == second.token_ids and first.evidence == second.evidence
        same = same and all(a.index.tolist() == b.index.tolist() for a, b in zip(*tables, strict=True))
        apart = _far(*(next_logits(each).cpu() for each in (stream, other))) if same else float("inf")
        return {"way": way, "error": None, "apart": apart}
    except Exception as error:
        return {"way": way, "error": f"{type(error).__name__}: {error}", "apart": float("inf")}


def _far(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max()) if one.shape == other.shape else float("inf")
