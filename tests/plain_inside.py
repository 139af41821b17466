"""AdaSpark written out in plain loops, over one forward of an unmodified model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pdrop_video import VideoLM
from pdrop_video.pyramid.heads import attention_of, normed, project

BEFORE = ("pre_feedforward_layernorm", "pre_ff_layernorm", "ffn_norm", "post_attention_layernorm")
BEHIND = ("post_feedforward_layernorm", "post_mlp_layernorm", "mlp", "feed_forward")


def top_p(shares: dict[Any, float], p: float) -> set[Any]:
    """The smallest set of largest shares whose sum reaches p."""
    chosen, total = set(), 0.0
    for name, share in sorted(shares.items(), key=lambda item: -item[1]):
        if total >= p:
            break
        chosen.add(name)
        total += share
    return chosen


def ffn(x: Tensor, added: Tensor, cubes: list[Any], p: float) -> Tensor:
    """What is added to rows [rows, hidden] in place of `added`; rows of no cube (None) keep theirs."""
    out = added.clone()
    for cube in {cube for cube in cubes if cube is not None}:
        members = [k for k, other in enumerate(cubes) if other == cube]
        norms = {k: math.sqrt(sum(float(v) ** 2 for v in x[k])) for k in members}
        active = top_p({k: norm / sum(norms.values()) for k, norm in norms.items()}, p)
        mean = sum(added[k] for k in active) / len(active)
        for k in members:
            if k not in active:
                out[k] = mean
    return out


def attended(
    query: Tensor, key: Tensor, scaling: float, cubes: list[Any], sees: Tensor, known: list[list[int]], p: float
) -> Tensor:
    """Which columns each row attends to [heads, rows, columns].

    `query` [heads, rows, dim], `key` [kv_heads, rows, dim]; `sees` [rows, rows] is what rows may see, `known` for each
    row the columns that mean keys are made of.
    """
    heads, rows, _ = query.shape
    group = heads // len(key)
    product = (query @ key.repeat_interleave(group, 0).mT * scaling).tolist()  # its mean is that with the mean key
    visible, out = sees.tolist(), torch.zeros(heads, rows, rows, dtype=torch.bool)
    for row in range(rows):
        seen = {cubes[c] for c in range(rows) if visible[row][c]} - {None, cubes[row]}
        members: dict[Any, list[int]] = {cube: [] for cube in seen}
        for c in known[row]:
            if cubes[c] in seen:
                members[cubes[c]].append(c)
        for kv in range(len(key)):
            shares = dict.fromkeys(seen, 0.0)
            for head in range(kv * group, (kv + 1) * group):
                logit = {cube: sum(product[head][row][c] for c in of) / len(of) for cube, of in members.items()}
                total = sum(math.exp(value) for value in logit.values())
                for cube, value in logit.items():
                    shares[cube] += math.exp(value) / total / group
            chosen = top_p(shares, p) | {None, cubes[row]}
            columns = [c for c in range(rows) if visible[row][c] and cubes[c] in chosen]
            out[kv * group : (kv + 1) * group, row, columns] = True
    return out


@contextmanager
def sparked(
    lm: VideoLM, p: float, cubes: list[Any], pieces: list[list[list[int]]], sees: Tensor | None, half: str = "both"
) -> Iterator[None]:
    """A model whose layers do as AdaSpark says.

    Parameters
    ----------
    lm : VideoLM
    p : float
    cubes : list
        Of each token of the prompt; None of text.
    pieces : list of list of list of int
        For each piece and layer, the tokens that the layer holds then. A token is of the first piece that holds it in
        layer 0; behind them all comes the question.
    sees : Tensor [layers, tokens, tokens], bool, or None
        None leaves masks to the model, for half="ffn".
    half : str
    """
    total, hooks = len(cubes), []
    text = lm.model.get_decoder()
    piece_of = [len(pieces)] * total
    for number in reversed(range(len(pieces))):
        for token in pieces[number][0]:
            piece_of[token] = number

    def masking(i: int, seen: Tensor) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> Any:
            kwargs["attention_mask"] = seen[None, None]
            if half != "ffn":
                attention, hidden = attention_of(module), normed(module, args[0])
                query, key = (project(attention, hidden, which, kwargs["position_embeddings"])[0] for which in "qk")
                held = [pieces[min(n, len(pieces) - 1)][i] for n in piece_of]
                kwargs["attention_mask"] = attended(query, key, attention.scaling, cubes, seen, held, p)[None]
            return args, kwargs

        return hook

    def noting(i: int) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            entered[i] = (args[0] if args else kwargs["hidden_states"])[0]

        return hook

    def adding(i: int) -> Any:
        def hook(module: Any, args: Any, output: Any) -> Any:
            added = (output[0] if isinstance(output, tuple) else output)[0].clone()
            for number, held in enumerate(pieces):
                came = [token for token in held[i] if piece_of[token] == number]
                added[came] = ffn(entered[i][came], added[came], [cubes[token] for token in came], p)
            return (added[None], *output[1:]) if isinstance(output, tuple) else added[None]

        return hook

    entered: dict[int, Tensor] = {}
    for i, layer in enumerate(text.layers):
        if sees is not None:
            hooks.append(layer.register_forward_pre_hook(masking(i, sees[i]), with_kwargs=True))
        if half != "attention":
            before = next(getattr(layer, name) for name in BEFORE if hasattr(layer, name))
            if text.config.model_type.startswith("exaone4"):  # which norms behind attention and FFN alone
                before = layer.mlp
            behind = next(getattr(layer, name) for name in BEHIND if hasattr(layer, name))
            hooks.append(before.register_forward_pre_hook(noting(i), with_kwargs=True))
            hooks.append(behind.register_forward_hook(adding(i)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
