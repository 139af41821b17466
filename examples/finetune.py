"""Fine-tune with the Trainer of transformers while visual tokens are dropped: each step costs less.

python examples/finetune.py questions.jsonl --model llava-hf/llava-interleave-qwen-0.5b-hf --out tuned

Each line of the file is {"video": "a.mp4", "question": "...", "answer": "..."}.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments

import pdrop_video as pv

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("questions", type=Path)
parser.add_argument("--model", required=True, help="folder or name on the hub")
parser.add_argument("--out", required=True)
parser.add_argument("--frames", type=int, default=8)
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--rate", type=float, default=1e-5)
arguments = parser.parse_args()

processor = AutoProcessor.from_pretrained(arguments.model)
model = AutoModelForImageTextToText.from_pretrained(arguments.model)
samples = [json.loads(line) for line in arguments.questions.read_text(encoding="utf-8").splitlines()]


def encoded(turns: list[dict[str, Any]], **how: Any) -> Any:
    """A conversation as the model takes it."""
    return processor.apply_chat_template(turns, tokenize=True, return_dict=True, return_tensors="pt", **how)


def collate(batch: list[dict[str, str]]) -> Any:
    """One sample a step; only the answer is learned."""
    (sample,) = batch
    with pv.open_video(sample["video"], frames=arguments.frames) as video:
        frames = [Image.fromarray(frame.numpy()) for chunk in video for frame in chunk.frames]
    shown: list[dict[str, Any]] = [{"type": "image", "image": frame} for frame in frames]
    asked = [{"role": "user", "content": [*shown, {"type": "text", "text": sample["question"]}]}]
    answered = [*asked, {"role": "assistant", "content": [{"type": "text", "text": sample["answer"]}]}]
    inputs = encoded(answered)
    before = encoded(asked, add_generation_prompt=True)["input_ids"].shape[1]
    inputs["labels"] = inputs["input_ids"].clone()
    inputs["labels"][:, :before] = -100
    return inputs


trainer = Trainer(
    model,
    TrainingArguments(
        arguments.out,
        max_steps=arguments.steps,
        learning_rate=arguments.rate,
        per_device_train_batch_size=1,
        remove_unused_columns=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
    ),
    data_collator=collate,
    train_dataset=samples,
)
with pv.pyramid_drop(model, pv.Pyramid(ratios=(0.5, 0.25, 0.125))) as trace:
    trainer.train()

losses = [step["loss"] for step in trainer.state.log_history if "loss" in step]
print(
    f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; tokens left in the last step: {[len(kept[0]) for kept in trace.kept]}"
)
trainer.save_model(arguments.out)
processor.save_pretrained(arguments.out)
