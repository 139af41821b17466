"""bf16 weights with an fp32 master copy under AdamW, and checkpoints from which a stopped run goes on."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn


class MasterAdamW:
    """AdamW on fp32 copies of (bf16) parameters: warm-up, then linear decay to 3 %, gradients clipped to norm 1.

    Parameters
    ----------
    parameters : iterable of nn.Parameter
        What to train.
    lr : float
        Peak learning rate.
    steps, warmup : int
        Length of the run, and of its warm-up, in steps.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, steps: int, warmup: int = 50) -> None:
        self.live = [p for p in parameters if p.requires_grad]
        self.master = [p.detach().float().clone() for p in self.live]
        self.inner = torch.optim.AdamW(self.master, lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.lr, self.steps, self.warmup = lr, steps, warmup
        self.done = 0

    def rate(self) -> float:
        """Learning rate of the next step."""
        decay = 1 - 0.97 * max(self.done - self.warmup, 0) / max(self.steps - self.warmup, 1)
        return self.lr * min((self.done + 1) / self.warmup, decay)

    def step(self) -> float:
        """Apply the gradients that lie on the live parameters and return their norm; infinite ones are left out."""
        for live, master in zip(self.live, self.master, strict=True):
            master.grad = None if live.grad is None else live.grad.float()
            live.grad = None
        norm = float(nn.utils.clip_grad_norm_(self.master, 1.0))
        for group in self.inner.param_groups:
            group["lr"] = self.rate()
        if math.isfinite(norm):
            self.inner.step()
        with torch.no_grad():
            for live, master in zip(self.live, self.master, strict=True):
                live.copy_(master)
        self.done += 1
        return norm

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {"master": self.master, "inner": self.inner.state_dict(), "done": self.done}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state; also puts the weights back on the live parameters."""
        with torch.no_grad():
            for live, master, saved in zip(self.live, self.master, state["master"], strict=True):
                master.copy_(saved)
                live.copy_(saved)
        self.inner.load_state_dict(state["inner"])
        self.done = state["done"]


def save_checkpoint(path: Path, **parts: Any) -> None:
    """Write a checkpoint in one piece: a run stopped while writing keeps the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(parts, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The checkpoint's parts, or None where there is none yet."""
    return torch.load(path, weights_only=True) if path.exists() else None
