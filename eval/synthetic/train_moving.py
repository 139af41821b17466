"""Train the built-in model on, for the third set.

    python -m eval.synthetic.train_moving --start DIR --out DIR --work DIR

The start is an earlier version of the built-in model (as `eval.synthetic.train` makes it). Stages: a bank of grids of
both worlds through mp4, the vision tower alone, its features, the language part alone. A stopped run goes on where it
was when it is started again with the same `--work` folder.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from .bank import SECONDS, Bank, open_bank
from .fresh import Fresh
from .lessons import Teacher
from .log import Log
from .mixed_stage import Teachers, train_mixed
from .mixing import places
from .model import build_model, save_model
from .moving_lessons import MovingTeacher
from .optim import load_checkpoint, save_checkpoint
from .tokenizer import build_tokenizer
from .vision_stage import features, train_vision

TRAIN_SEED, DEV_SEED = 5, 900001
CODE_WEIGHT = 3.0
"""Codes are what the earlier version's tower has never seen."""
FRESH = 4000
"""Stencils in the pool of things that are set down on the bank's grids."""


def begin_from(start: Path, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """A fresh model whose weights, but for words that the earlier version did not know, are that version's."""
    model = build_model(build_tokenizer(), seed).bfloat16()
    earlier = Qwen2_5_VLForConditionalGeneration.from_pretrained(start, dtype=torch.bfloat16)
    model.model.visual.load_state_dict(earlier.model.visual.state_dict())
    return model


def take_language(model: Qwen2_5_VLForConditionalGeneration, start: Path) -> None:
    """Put the earlier version's language part in; a word that it did not know keeps its fresh embedding."""
    earlier = Qwen2_5_VLForConditionalGeneration.from_pretrained(start, dtype=torch.bfloat16)
    embeddings: Any = model.get_input_embeddings()
    fresh = embeddings.weight.detach().clone()
    model.model.language_model.load_state_dict(earlier.model.language_model.state_dict())
    known = PreTrainedTokenizerFast.from_pretrained(start).get_vocab()
    new = [number for word, number in build_tokenizer().get_vocab().items() if word not in known]
    with torch.no_grad():
        embeddings.weight[new] = fresh[new]


def main(
    start: Annotated[Path, typer.Option(help="Folder of the version to begin with.")],
    out: Annotated[Path, typer.Option(help="Folder for the finished model.")],
    work: Annotated[Path, typer.Option(help="Folder for the bank (2 GB), checkpoints and the log.")] = Path("work"),
    seed: Annotated[int, typer.Option(help="Seed of new weights and of the batches.")] = 0,
    clips: Annotated[int, typer.Option(help="Clips of 8 grids in the training bank.")] = 3200,
    still: Annotated[int, typer.Option(help="How many of them are of still cameras.")] = 1200,
    vision_steps: Annotated[int, typer.Option(help="Steps of the vision stage.")] = 1500,
    language_steps: Annotated[int, typer.Option(help="Steps of the language stage.")] = 2500,
    threads: Annotated[int, typer.Option(help="Processor threads.")] = 2,
) -> None:
    """Train the built-in model on, so that it follows moving cameras and things."""
    torch.set_num_threads(threads)
    began = time.monotonic()
    log = Log(work / "training_log.csv")
    dev_bank = open_bank(work / "bank_dev", "dev", DEV_SEED, 160, threads, 80)
    bank = open_bank(work / "bank_train", "train", TRAIN_SEED, clips, threads, still)
    log.write("bank", clips * SECONDS, time.monotonic() - began)

    tokenizer = build_tokenizer()
    model = begin_from(start, seed)
    where = places("train", TRAIN_SEED, clips, still)
    fresh = Fresh(np.random.default_rng([seed, 4]), "train", FRESH)
    train_vision(
        model, tokenizer, bank, where, dev_bank, work, log, vision_steps, seed, 128, 1.2e-3, CODE_WEIGHT, fresh
    )

    seen = load_checkpoint(work / "features.pt")
    if seen is None:
        save_checkpoint(work / "features.pt", train=features(model, bank), dev=features(model, dev_bank))
        seen = load_checkpoint(work / "features.pt")
    assert seen is not None
    take_language(model, start)

    def both(of: Bank, rows: torch.Tensor, split: str, first: int) -> dict[str, Teacher]:
        cut = first * SECONDS
        return {
            "still": Teacher(rows[:cut], of.labels[:cut], tokenizer, split),
            "moving": MovingTeacher(rows[cut:], of.labels[cut:], tokenizer, split),
        }

    train, dev = both(bank, seen["train"], "train", still), both(dev_bank, seen["dev"], "dev", 80)
    teachers = {world: Teachers(train[world], dev[world]) for world in train}
    train_mixed(model, teachers, work, log, language_steps, seed)
    save_model(model, out)
    log.write("saved", language_steps, time.monotonic() - began)


if __name__ == "__main__":
    typer.run(main)
