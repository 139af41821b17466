"""The loss of a prompt of which some rows were dropped. Knows labels and logits."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel


def with_loss(model: PreTrainedModel, labels: Tensor, rows: Tensor | None, output: Any, kwargs: dict[str, Any]) -> Any:
    """The output with the loss that transformers' own, shifting function makes of the surviving rows."""
    if rows is not None:  # padding (-1) never counts
        labels = labels.to(rows.device).gather(1, rows.clamp(min=0)).masked_fill(rows < 0, -100)
    scale = {name: kwargs[name] for name in ("num_items_in_batch",) if name in kwargs}
    vocabulary = model.config.get_text_config().vocab_size
    loss = model.loss_function(logits=output[0], labels=labels, vocab_size=vocabulary, **scale)
    return (loss, *output) if isinstance(output, tuple) else type(output)(**{**output, "loss": loss})
