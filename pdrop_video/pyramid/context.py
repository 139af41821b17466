"""`pyramid_drop`: PyramidDrop inside a plain transformers model, for as long as a ``with`` block lasts.

Knows how to put functions in place of a model's and how to put back what was there. Refuses to know what they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock
from typing import Any
from weakref import WeakSet

from torch import Tensor, nn
from transformers import PreTrainedModel

from ..common.checks import instance, shown
from ..errors import ConfigError, ModelError
from .call import Call
from .loop import LayerLoop
from .schedule import Pyramid
from .stack import refuse_meta
from .trace import Trace

_OPEN: WeakSet[nn.Module] = WeakSet()
"""Models that are inside a block."""
_OPENING = Lock()


def pyramid_drop(
    model: nn.Module, pyramid: Pyramid | None = None, *, visual: Tensor | None = None
) -> AbstractContextManager[Trace]:
    """Drop visual tokens stage by stage in every prefill of `model`, one-shot, as PyramidDrop does.

    Works for ``model(...)``, ``model.generate(...)``, ``pipeline("image-text-to-text")`` and, under ``model.train()``
    with labels, for training, where the row before each answer's first label ranks. Decoding inside the block goes on
    with the pruned cache, so that its steps are cheaper too.

    Parameters
    ----------
    model : PreTrainedModel, or a module around one
        A decoder-only or vision-language model, as it is, sharded by ``fully_shard`` (FSDP2), or inside peft's
        ``PeftModel``, ``DistributedDataParallel`` or ``torch.compile``.
    pyramid : Pyramid, optional
        The schedule; ``Pyramid()`` by default.
    visual : Tensor [batch, tokens], bool, optional
        Which rows of the prompt are visual. Found by the model's image and video token ids when left out; any number
        of images and videos may stand in a prompt, whose visual tokens all compete.

    Yields
    ------
    Trace
        Filled anew by every prefill.

    Raises
    ------
    ConfigError
        If an argument is of the wrong kind, the schedule does not fit the model, visual rows can't be told from text,
        or the model is inside a block already.
    ModelError
        If the model's decoder stack is not supported: with nothing dropped, a few rows through it must give what its
        own forward gives, and attend as its own layers do. Tried once for each model, which takes a small forward.

    Notes
    -----
    Sampling, beams, padded batches, pipelines, hooks of other libraries and the HF ``Trainer`` work. On exit, also by
    an exception, the model is what it was before. What another library has set as the decoder stack's ``forward``
    is put back then, but rests meanwhile.

    Logits are those of the surviving rows, which `Trace.rows` numbers; a loss over labels is computed from them by
    transformers' own function. Any number of threads may call the model in one block; `Trace` is that of the prefill
    that ended last. A cache that was pruned in a block goes on in a block alone, this one or a later one; one that
    was filled outside may be gone on with inside.

    Without labels the last row ranks, in training as well; so a loss that the Trainer
    takes outside of the model (label smoothing, ``compute_loss_func``) does not fit.

    Refused at once, by a `ModelError`: assisted generation, prompt lookup and prefill in chunks (the row that ranks
    must be the prompt's last), generation without a cache (every token would rank anew), `output_hidden_states`,
    `output_attentions`, prepared 4-D masks and static caches, continuous batching, and caches cropped to one length
    (layers hold different numbers of rows); several samples packed into one row; `logits_to_keep` as row numbers.

    ``torch.compile`` works, before the block or inside it, but the decoder stack runs uncompiled, since the rows that
    are left follow from the data; ``fullgraph=True`` fails for that reason.

    References
    ----------
    Xing et al., PyramidDrop, arXiv 2410.17247.
    """
    instance("model", model, nn.Module, "give what from_pretrained gives; of a VideoLM, lm.model")
    if pyramid is not None:
        instance("pyramid", pyramid, Pyramid, "for example Pyramid(ratio=0.5)")
        if pyramid.sound is not None:
            raise ConfigError(
                f"sound={pyramid.sound} is for streams, which hear; a prompt's tokens of sound stay, as text does. "
                "Leave sound out."
            )
        if pyramid.inside is not None:
            raise ConfigError(
                f"inside={pyramid.inside!r} goes by cubes of frames, which a prompt does not tell apart; open a "
                "stream, or leave inside out."
            )
    if visual is not None:
        _check_mask(visual)
    return _block(_transformers_model(model), pyramid or Pyramid(), visual)


def _check_mask(visual: Any) -> None:
    """Flags, or as many zeros and ones."""
    said = f"{visual.dtype} {list(visual.shape)}" if isinstance(visual, Tensor) else shown(visual)
    fits = isinstance(visual, Tensor) and visual.ndim in (1, 2) and visual.numel() > 0
    if not fits or visual.is_floating_point() or visual.is_complex() or not bool(((visual == 0) | (visual == 1)).all()):
        raise ConfigError(f"visual is {said}; expected a Tensor [batch, tokens] of bool, True for visual rows.")


@contextmanager
def _block(model: PreTrainedModel, pyramid: Pyramid, visual: Tensor | None) -> Iterator[Trace]:
    with _OPENING:
        if model in _OPEN:
            raise ConfigError("this model is inside a pyramid_drop block already; close that one first.")
        _OPEN.add(model)
    try:
        refuse_meta(model)
        loop = LayerLoop(model.get_decoder(), pyramid)
        if loop.scorer.uses_layout:
            raise ConfigError(
                f"{loop.scorer} compares frames, which a prompt does not tell apart; use a scorer that needs no "
                'frames, such as "relevance", or a stream.'
            )
        call = Call(model, loop, visual)
        with ExitStack() as stack:
            for module, name, function in call.replacements:
                stack.enter_context(_in_place(module, name, function))
            yield call.trace
    finally:
        _OPEN.discard(model)


def _transformers_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model that `model` is, or that peft, torch.compile or a parallel wrapper put inside it."""
    if isinstance(model, nn.DataParallel):
        raise ModelError(
            "DataParallel copies the model to its devices at every call and leaves out what stands in place of its "
            "methods; start one process per device (torchrun) and give DistributedDataParallel."
        )
    found = None
    for module in model.modules():
        if type(module).__name__ == "FullyShardedDataParallel":
            raise ModelError(
                "FullyShardedDataParallel shows a layer's weights only while the layer runs, but it is ranked by them "
                "before; use fully_shard (FSDP2; fsdp_version: 2 in accelerate)."
            )
        if found is None and isinstance(module, PreTrainedModel):
            found = module
    if found is not None:
        return found
    raise ModelError(
        f"{type(model).__name__} is no transformers model and holds none; expected what from_pretrained gives."
    )


@contextmanager
def _in_place(module: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """`function` as the method `name` of this one instance; another library's own one is put back afterwards."""
    before = vars(module).get(name)
    setattr(module, name, function)
    try:
        yield
    finally:
        if before is None:
            vars(module).pop(name, None)
        else:
            setattr(module, name, before)
