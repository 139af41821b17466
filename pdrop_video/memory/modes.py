"""In which of torch's modes what a stream keeps is made. Knows torch alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def lasting() -> Iterator[None]:
    """Work without gradients on tensors that last, whatever mode the caller is in. Also a decorator: ``@lasting()``.

    A tensor that is made under ``torch.inference_mode()`` can't be written to outside of it, nor by another thread, and
    what a stream keeps is written to by every push that follows.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield
