"""The built-in model's tokenizer and chat template: ordinary `transformers` files, any English question gets tokens."""

from __future__ import annotations

import re
import string
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .phrasings import phrasings
from .quiz import CORNERS, KINDS, NOTHING, SIDES
from .world import COLOURS, DIGITS, DIRECTIONS, ICONS, SHAPES, SPLITS

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|unk|>",
)
ROLES = ("user", "assistant", "system")
LETTERS = ("A", "B", "C", "D")
"""Capitals that stand alone are tokens of their own: scorers look for them. Everything else is read in lower case."""
LATER = ("code",)
"""Words that came with the third set; they stand last, so that no other word's number changed."""
INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)
"""Video-MME's."""
ENDING = "The best answer is:"

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for item in message['content'] -%}
{%- if item['type'] == 'image' or 'image' in item or 'image_url' in item -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- elif item['type'] == 'video' or 'video' in item -%}
<|vision_start|><|video_pad|><|vision_end|>
{%- elif 'text' in item -%}
{{ item['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""


def vocabulary() -> dict[str, int]:
    """Special tokens, capitals, single characters, then all words of all questions and answers; id by order."""
    words: set[str] = {*COLOURS, *SHAPES, *ICONS, *DIRECTIONS, *SIDES, NOTHING, "yes", "no", *ROLES}
    sentences = [INSTRUCTION, ENDING, *CORNERS]
    sentences += [sentence for split in SPLITS for kind in KINDS for sentence in phrasings(kind, split)]
    for sentence in sentences:
        words.update(re.findall(r"[a-z]+", re.sub(r"{\w+}", "", sentence).lower()))
    characters = [*DIGITS, *string.ascii_lowercase, *string.punctuation]
    pieces = [f"##{c}" for c in (*string.ascii_lowercase, *DIGITS)]
    ordered = dict.fromkeys([*SPECIAL, *LETTERS, *characters, *pieces, *sorted(words), *LATER])
    return {token: number for number, token in enumerate(ordered)}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template."""
    inner = Tokenizer(models.WordPiece(vocabulary(), unk_token="<|unk|>", max_input_chars_per_word=64))
    inner.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    inner.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|unk|>",
        additional_special_tokens=[t for t in SPECIAL if t not in ("<|im_end|>", "<|endoftext|>", "<|unk|>")],
        model_max_length=32768,
        padding_side="left",
    )
    tokenizer.add_tokens([AddedToken(letter, single_word=True, normalized=False) for letter in LETTERS])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja into `folder`."""
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    return tokenizer
