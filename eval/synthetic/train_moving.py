"""Train the built-in model on, for the third set.

    python -m eval.synthetic.train_moving --start DIR --out DIR --work DIR

The start is an earlier version of the built-in model (as `eval.synthetic.train` makes it). Stages: a bank of grids of
both worlds through mp4, the vision tower alone, its features, the language part alone. A stopped run goes on where it
was when it is started again with the same `--work` folder.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
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
DEV_CLIPS, DEV_STILL = 160, 80
"""Clips of the dev bank, and how many of them are of still cameras."""
CODE_WEIGHT = 3.0
"""Codes are what the earlier version's tower has never seen."""
FRESH = 4000
"""Stencils in the pool of things that are set down on the bank's grids."""


def earlier_version(start: Path) -> Qwen2_5_VLForConditionalGeneration:
    """The model of a folder in bfloat16."""
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(start, dtype=torch.bfloat16, local_files_only=True)


def take_language(model: Qwen2_5_VLForConditionalGeneration, start: Path) -> None:
    """Put the earlier version's language part in; a word that it did not know keeps its fresh embedding."""
    embeddings: Any = model.get_input_embeddings()
    fresh = embeddings.weight.detach().clone()
    model.model.language_model.load_state_dict(earlier_version(start).model.language_model.state_dict())
    known = PreTrainedTokenizerFast.from_pretrained(start).get_vocab()
    new = [number for word, number in build_tokenizer().get_vocab().items() if word not in known]
    with torch.no_grad():
        embeddings.weight[new] = fresh[new]


def banks_of(folder: Path, clips: int, still: int, threads: int) -> dict[str, Bank]:
    """The banks of training and of the dev split, of which the first clips are of still cameras."""
    return {
        "train": open_bank(folder / "bank_train", "train", TRAIN_SEED, clips, threads, still),
        "dev": open_bank(folder / "bank_dev", "dev", DEV_SEED, DEV_CLIPS, threads, DEV_STILL),
    }


def teachers_of(
    banks: Mapping[str, Bank], still: int, path: Path, tower: Any, tokenizer: PreTrainedTokenizerFast
) -> dict[str, Teachers]:
    """Teachers of each world that the training bank has clips of.

    Parameters
    ----------
    banks, still
        From `banks_of`, and what it was given.
    path : Path
        Keeps the tower's features of both banks.
    tower : Qwen2_5_VLForConditionalGeneration
        Looks at the grids, where nobody has yet.
    tokenizer : PreTrainedTokenizerFast
        Of lessons.
    """
    if not path.exists():
        save_checkpoint(path, **{split: features(tower, bank) for split, bank in banks.items()})
    seen = load_checkpoint(path)
    assert seen is not None
    cut = {"train": still * SECONDS, "dev": DEV_STILL * SECONDS}

    def teacher(world: str, split: str) -> Teacher:
        rows = slice(cut[split]) if world == "still" else slice(cut[split], None)
        kind = Teacher if world == "still" else MovingTeacher
        return kind(seen[split][rows], banks[split].labels[rows], tokenizer, split)

    there = {"still": still, "moving": len(banks["train"].labels) // SECONDS - still}
    return {world: Teachers(teacher(world, "train"), teacher(world, "dev")) for world, some in there.items() if some}


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
    banks = banks_of(work, clips, still, threads)
    log.write("bank", clips * SECONDS, time.monotonic() - began)

    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed).bfloat16()
    model.model.visual.load_state_dict(earlier_version(start).model.visual.state_dict())
    where = places("train", TRAIN_SEED, clips, still)
    fresh = Fresh(np.random.default_rng([seed, 4]), "train", FRESH)
    more = (vision_steps, seed, 128, 1.2e-3, CODE_WEIGHT, fresh)
    train_vision(model, tokenizer, banks["train"], where, banks["dev"], work, log, *more)
    teachers = teachers_of(banks, still, work / "features.pt", model, tokenizer)
    take_language(model, start)
    train_mixed(model, teachers, work, log, language_steps, seed)
    save_model(model, out)
    log.write("saved", language_steps, time.monotonic() - began)


if __name__ == "__main__":
    typer.run(main)
