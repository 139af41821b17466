"""Stage 1: the vision tower alone learns to say, per merged token, what that token covers.

Each merged token is trained to be the sum of the word embeddings (random, frozen) of what it covers: the cell that
holds a thing's centre is colour + glyph (or letter + digit), any other is "nothing"; the cell that holds the marker
adds its direction.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from .bank import FIRST_CODE, Bank
from .fresh import Fresh
from .log import Log
from .mixing import class_maps, mix
from .model import patches
from .moving import LETTERS
from .optim import MasterAdamW, load_checkpoint, save_checkpoint
from .quiz import NOTHING
from .world import COLOURS, DIGITS, DIRECTIONS, GLYPHS

SHARPNESS = 10.0
GROUPS = ("colour", "glyph", "marker", "letter", "digit")
EVERY_SECONDS = 60.0


def fast_vision(visual: Any, pixels: Tensor) -> Tensor:
    """The tower's own computation for 112 x 112 grids, where all windows are whole grids: one attention call a layer.

    Parameters
    ----------
    visual : Qwen2_5_VisionTransformerPretrainedModel
        The model's `visual`.
    pixels : Tensor
        `[grids, 64, 1176]`, from `model.patches`.

    Returns
    -------
    Tensor
        `[grids, 16, 256]`.
    """
    weight = visual.patch_embed.proj.weight
    hidden = F.linear(pixels.to(weight.dtype), weight.flatten(1))
    number = torch.arange(64)
    row = number // 16 * 2 + number % 4 // 2
    column = number // 4 % 4 * 2 + number % 2
    cos, sin = visual.rotary_pos_emb(hidden, torch.stack([row, column], 1))
    cos, sin = cos.to(hidden.dtype), sin.to(hidden.dtype)
    for block in visual.blocks:
        qkv = block.attn.qkv(block.norm1(hidden))
        q, k, v = rearrange(qkv, "g n (three h d) -> three g h n d", three=3, h=block.attn.num_heads)
        scores = (_rotate(q, cos, sin) * q.shape[-1] ** -0.5) @ _rotate(k, cos, sin).transpose(-1, -2)
        out = scores.softmax(-1) @ v  # in bf16 on a CPU three times faster than the fused kernel with its backward
        hidden = hidden + block.attn.proj(rearrange(out, "g h n d -> g n (h d)"))
        hidden = hidden + block.mlp(block.norm2(hidden))
    merged = rearrange(visual.merger.ln_q(hidden), "g (m four) d -> g m (four d)", four=4)
    return visual.merger.mlp(merged)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


class TokenTargets:
    """What every merged token should say, as classes and as a sum of word embeddings.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        Finds the words' ids.
    table : Tensor
        `[vocabulary, 256]`, frozen word embeddings.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, table: Tensor) -> None:
        def words(names: tuple[str, ...]) -> Tensor:
            return table[tokenizer.convert_tokens_to_ids(list(names))].float()

        self.colours, self.glyphs = words((*COLOURS, NOTHING)), words((*GLYPHS, NOTHING))
        self.directions, self.letters = words(DIRECTIONS), words(LETTERS)
        self.digits = words(tuple(f"##{digit}" for digit in DIGITS))

    def logits(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Scores of the classes from tokens `[grids, 16, 256]`; no marker and no code have the constant score 5."""
        tokens = tokens.float()
        colour, glyph = SHARPNESS * tokens @ self.colours.T, SHARPNESS * tokens @ self.glyphs.T
        rest = []
        for table in (self.directions, self.letters, self.digits):
            scores = SHARPNESS * tokens @ table.T
            rest.append(torch.cat([scores, torch.full_like(scores[..., :1], SHARPNESS / 2)], -1))
        return colour, glyph, *rest

    def loss(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Cross entropy of the five groups + 2 x squared distance to the sum of the embeddings.

        Parameters
        ----------
        tokens : Tensor
            `[grids, 16, 256]`.
        classes : Tensor
            `[grids, 16, 5]`, from `mixing.class_maps`.
        """
        loss = torch.zeros(())
        for scores, wanted in zip(self.logits(tokens), classes.unbind(-1), strict=True):
            each = F.cross_entropy(scores.flatten(0, 1), wanted.flatten(), reduction="sum")
            loss = loss + each / ((wanted != scores.shape[-1] - 1) & (wanted >= 0)).sum().clamp(min=1)
        colour, glyph, direction, letter, digit = classes.unbind(-1)
        moving, letters, digits = (
            torch.cat([table, torch.zeros_like(table[:1])]) for table in (self.directions, self.letters, self.digits)
        )
        code = letters[letter] + digits[digit]
        thing = self.colours[colour] + torch.where((glyph < 0)[..., None], code, self.glyphs[glyph.clamp(min=0)])
        target = torch.where((glyph == len(GLYPHS))[..., None], self.colours[-1], thing) + moving[direction]
        return loss + 2 * (tokens.float() - target).square().sum(-1).mean()

    def accuracy(self, tokens: Tensor, classes: Tensor) -> dict[str, float]:
        """Share of right tokens: where there is a thing or marker, and (`_none`) where there is none."""
        report = {}
        for name, scores, right in zip(GROUPS, self.logits(tokens), classes.unbind(-1), strict=True):
            hit, none = scores.argmax(-1) == right, right == scores.shape[-1] - 1
            report[name] = float(hit[~none & (right >= 0)].float().mean())
            report[f"{name}_none"] = float(hit[none].float().mean())
        return report


def _shake(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """Patches of frames with small random changes of brightness, contrast and tint, the same for both of a grid."""
    gain = torch.from_numpy(rng.uniform(0.88, 1.12, (len(frames), 3)).astype(np.float32))
    shift = torch.from_numpy(rng.uniform(-12, 12, (len(frames), 1)).astype(np.float32)).expand(-1, 3)
    return patches(frames, gain, shift)


@torch.no_grad()
def features(model: Qwen2_5_VLForConditionalGeneration, bank: Bank) -> Tensor:
    """The vision tower's tokens of a whole bank, `[grids, 16, 256]` bf16."""
    pieces = []
    for start in range(0, len(bank.frames), 256):
        frames = torch.from_numpy(np.array(bank.frames[start : start + 256]))
        pieces.append(fast_vision(model.model.visual, patches(frames)).to(torch.bfloat16))
    return torch.cat(pieces)


def train_vision(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    train: Bank,
    where: NDArray[np.float32],
    dev: Bank,
    work: Path,
    log: Log,
    steps: int,
    seed: int,
    grids: int = 128,
    lr: float = 1.2e-3,
    code_weight: float = 1.0,
    fresh: Fresh | None = None,
) -> None:
    """Train `model.model.visual` in place; goes on from the checkpoint in `work` where there is one.

    `where` are the training bank's places, from `mixing.places`; `grids` is the batch, in which a grid with a code is
    `code_weight` times as likely as another, and to which `fresh` adds things.
    """
    visual: Any = model.model.visual
    embeddings: Any = model.get_input_embeddings()
    targets = TokenTargets(tokenizer, embeddings.weight.detach())
    optimiser = MasterAdamW(visual.parameters(), lr, steps)
    if saved := load_checkpoint(work / "vision.pt"):
        optimiser.restore(saved["optimiser"])
    classes, dev_classes = class_maps(train.labels), torch.from_numpy(class_maps(dev.labels))
    often = np.where(train.labels[:, 1] >= FIRST_CODE, code_weight, 1.0)
    share = None if code_weight == 1 else often / often.sum()
    began = last = time.monotonic()
    while optimiser.done < steps:
        rng = np.random.default_rng([seed, 1, optimiser.done])
        rows = np.sort(rng.choice(len(classes), grids, replace=False, p=share))
        frames, covered = np.array(train.frames[rows]), classes[rows]
        if fresh is not None:
            fresh.put(rng, frames, covered, where[rows])
        mix(rng, frames, covered, where[rows], 2 if fresh is None else 1)
        tokens = fast_vision(visual, _shake(torch.from_numpy(frames), rng))
        loss = targets.loss(tokens, torch.from_numpy(covered))
        loss.backward()
        norm = optimiser.step()
        if optimiser.done % 40 == 0 or optimiser.done == steps:
            log.write("vision", optimiser.done, time.monotonic() - began, loss=loss.item(), norm=norm)
        if optimiser.done % 200 == 0 or optimiser.done == steps:
            right = targets.accuracy(features(model, dev), dev_classes)
            log.write("vision_dev", optimiser.done, time.monotonic() - began, **right)
        if time.monotonic() - last > EVERY_SECONDS or optimiser.done == steps:
            save_checkpoint(work / "vision.pt", optimiser=optimiser.state())
            last = time.monotonic()
