"""Train the built-in model from nothing: `python -m eval.synthetic.train --out pdrop_video/builtin`.

Stages: a bank of grids through mp4, the vision tower alone, its features of the bank, the language part alone. A
stopped run goes on where it was when it is started again with the same `--work` folder.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import Qwen2_5_VLForConditionalGeneration

from .bank import SECONDS, open_bank
from .language_stage import train_language
from .lessons import Teacher
from .log import Log
from .mixing import places
from .model import build_model, save_model
from .optim import load_checkpoint, save_checkpoint
from .tokenizer import build_tokenizer
from .vision_stage import features, train_vision

TRAIN_SEED, DEV_SEED = 1, 900001


def main(
    out: Annotated[Path, typer.Option(help="Folder for the finished model.")],
    work: Annotated[Path, typer.Option(help="Folder for the bank (2.5 GB), checkpoints and the log.")] = Path("work"),
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the batches.")] = 0,
    clips: Annotated[int, typer.Option(help="Clips of 8 grids in the training bank.")] = 4000,
    vision_steps: Annotated[int, typer.Option(help="Steps of the vision stage.")] = 4500,
    language_steps: Annotated[int, typer.Option(help="Steps of the language stage.")] = 3000,
    vision_from: Annotated[
        Path | None, typer.Option(help="Model folder whose vision tower the first stage begins with, not from nothing.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Processor threads.")] = 2,
) -> None:
    """Train the built-in model on synthetic videos; an hour or less on two processor cores."""
    torch.set_num_threads(threads)
    began = time.monotonic()
    log = Log(work / "training_log.csv")
    dev_bank = open_bank(work / "bank_dev", "dev", DEV_SEED, 200, threads)
    bank = open_bank(work / "bank_train", "train", TRAIN_SEED, clips, threads)
    log.write("bank", clips * SECONDS, time.monotonic() - began)

    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed).bfloat16()
    if vision_from is not None:
        earlier = Qwen2_5_VLForConditionalGeneration.from_pretrained(vision_from, dtype=torch.bfloat16)
        model.model.visual.load_state_dict(earlier.model.visual.state_dict())
    where = places("train", TRAIN_SEED, clips)
    train_vision(model, tokenizer, bank, where, dev_bank, work, log, vision_steps, seed)

    seen = load_checkpoint(work / "features.pt")
    if seen is None:
        save_checkpoint(work / "features.pt", train=features(model, bank), dev=features(model, dev_bank))
        seen = load_checkpoint(work / "features.pt")
    assert seen is not None
    teacher = Teacher(seen["train"], bank.labels, tokenizer, "train")
    dev = Teacher(seen["dev"], dev_bank.labels, tokenizer, "dev")
    train_language(model, teacher, dev, work, log, language_steps, seed)
    save_model(model, out)
    log.write("saved", language_steps, time.monotonic() - began)


if __name__ == "__main__":
    typer.run(main)
