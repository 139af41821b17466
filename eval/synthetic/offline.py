"""Answers with plain `transformers`, no streaming, no dropping: a reference for the library, and the dev accuracy."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from .bank import clip_grids
from .model import patches, video_positions
from .quiz import KINDS, questions
from .world import sample_clip


def load(folder: Path) -> tuple[Qwen2_5_VLForConditionalGeneration, PreTrainedTokenizerFast]:
    """The model in float32 and its tokenizer, from a folder."""
    model: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return model.eval(), tokenizer


def prompt(tokenizer: PreTrainedTokenizerFast, question: str) -> tuple[list[int], list[int]]:
    """Token ids before and after the video, from the chat template."""
    content = [{"type": "video"}, {"type": "text", "text": question}]
    turns: Any = [{"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    before, after = str(text).split("<|video_pad|>")
    return tokenizer(before).input_ids, tokenizer(after).input_ids


@torch.no_grad()
def ask(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    grids: NDArray[np.uint8],
    asked: list[str],
    most: int = 4,
) -> list[str]:
    """Greedy answers to several questions about one clip.

    Parameters
    ----------
    model, tokenizer
        From `load`.
    grids : array
        `[grids, 2, 112, 112, 3]` uint8, one grid a second.
    asked : list of str
        Questions.
    most : int
        Most tokens in an answer.
    """
    pixels = patches(torch.from_numpy(grids)).flatten(0, 1)
    seen = model.model.visual(pixels, torch.tensor([[len(grids), 8, 8]])).pooler_output
    embed = model.get_input_embeddings()
    answers = []
    for question in asked:
        before, after = prompt(tokenizer, question)
        video, text_at = video_positions(len(before), torch.arange(len(grids)).float())
        said: list[int] = []
        while len(said) < most:
            tail = [*after, *said]
            hidden = torch.cat([embed(torch.tensor(before)), seen, embed(torch.tensor(tail))])
            first = torch.arange(len(before)).expand(3, -1)
            last = (text_at + torch.arange(len(tail))).expand(3, -1)
            positions = torch.cat([first, video, last], 1)[:, None]
            out = model.model.language_model(inputs_embeds=hidden[None], position_ids=positions, use_cache=False)
            token = int(model.lm_head(out.last_hidden_state[0, -1]).argmax())
            if token == tokenizer.eos_token_id:
                break
            said.append(token)
        answers.append(str(tokenizer.decode(said)).strip())
    return answers


def main(
    model: Annotated[Path, typer.Option(help="Model folder.")] = Path("pdrop_video/builtin"),
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "dev",
    seed: Annotated[int, typer.Option(help="Seed of the clips.")] = 5,
    clips: Annotated[int, typer.Option(help="How many clips.")] = 60,
) -> None:
    """Accuracy of a model folder on fresh clips decoded from mp4, by kind, with plain transformers."""
    torch.set_num_threads(2)
    loaded, tokenizer = load(model)
    right: dict[str, list[bool]] = defaultdict(list)
    wrong = []
    for index in range(clips):
        clip = sample_clip(split, seed, index)
        asked = questions(clip)
        answers = ask(loaded, tokenizer, clip_grids(clip), [q.text for q in asked])
        for question, said in zip(asked, answers, strict=True):
            right[question.kind].append(said == question.answer)
            if said != question.answer:
                wrong.append((index, question.kind, question.answer, said, clip.seconds, len(clip.things)))
    for row in wrong:
        print(*row)
    everything = [x for xs in right.values() for x in xs]
    by_kind = {kind: round(float(np.mean(right[kind])), 4) for kind in KINDS if right[kind]}
    print(json.dumps({"accuracy": float(np.mean(everything)), "by_kind": by_kind, "questions": len(everything)}))


if __name__ == "__main__":
    typer.run(main)
