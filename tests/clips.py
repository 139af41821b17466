"""A tiny CLIP in the format of the hub, its tokenizer beside it."""

from __future__ import annotations

import string
from pathlib import Path

import torch
import transformers as tf

SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)


def clip(folder: Path, seen: int = 32, words: int = 24) -> tf.CLIPModel:
    """Save a random CLIP that spells: a letter is a word, of which it reads so many, start and end among them."""
    letters = [*string.ascii_lowercase, "?"]
    spelled = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(spelled)}
    tokenizer = tf.CLIPTokenizer(vocab=vocabulary, merges=[])
    end = vocabulary["<|endoftext|>"]
    text = dict(
        SIZES, vocab_size=len(vocabulary), max_position_embeddings=words, eos_token_id=end, bos_token_id=end - 1
    )
    vision = dict(SIZES, hidden_size=seen, image_size=16, patch_size=8)
    torch.manual_seed(0)
    model = tf.CLIPModel(tf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():  # norms and projections as no fresh model has them
            if "norm" in name or "projection" in name:
                weight.add_(0.3 * torch.randn_like(weight))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
