"""Token ids of a prompt in which special tokens are what the template wrote, and never what somebody typed.

Knows tokenizers and their files. Refuses to know chat templates.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer

from ..errors import ModelError

_MARKUP = re.compile(r"<.+>|\[.+\]", re.DOTALL)


class Encoder:
    """Encodes the template's pieces and the user's in one go, exactly as the tokenizer encodes ordinary text.

    Merges, spaces and marks of a text's beginning reach across the borders of pieces, so nothing may be encoded apart.
    A copy of the tokenizer therefore knows the special tokens by secret names only, and these are written in place of
    the tokens that stand in the template's pieces. Whatever the user's pieces hold is text, like any other.

    Special are the tokens that the tokenizer calls so, and those that it was given besides and that are written as
    markup, as ``<think>`` or ``[IMG]``; added words and runs of spaces go on being what they are.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast one.
    split_special_tokens : bool
        False lets special tokens in the user's text be special, as transformers does unless told otherwise.

    Raises
    ------
    ModelError
        If the tokenizer is not a fast one, or can't be copied under other names.
    """

    def __init__(self, tokenizer: Any, split_special_tokens: bool = True) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise ModelError(
                f"the tokenizer is a {type(tokenizer).__name__}; expected a fast one. Save the model's own "
                "tokenizer.json beside its weights."
            )
        self._backend, self._splits = backend, split_special_tokens
        self._name_anew()

    def __call__(self, pieces: Sequence[str], *, begins: bool = False) -> Encoding:
        """The encoding of pieces, the template's and the user's in turns, the template's first.

        Parameters
        ----------
        pieces : sequence of str
            Any of them may be empty.
        begins : bool
            Whether the tokenizer puts its own first token in front.
        """
        return self._tokenizer.encode(self.written(pieces), add_special_tokens=begins)

    def ids(self, pieces: Sequence[str]) -> list[int]:
        """Token ids of pieces, as above."""
        return self(pieces).ids

    def written(self, pieces: Sequence[str]) -> str:
        """The text that is encoded: special tokens of the template's pieces by their secret names."""
        while any(self._secret in said for said in pieces[1::2]):
            self._name_anew()
        if not self._names:
            return "".join(pieces)
        return "".join(
            said if number % 2 else self._known.sub(lambda found: self._names[found[0]], said)
            for number, said in enumerate(pieces)
        )

    def _name_anew(self) -> None:
        self._secret = secrets.token_hex(16)
        added = self._backend.get_added_tokens_decoder()
        special = [t.content for t in added.values() if self._splits and _is_special(t)]
        special.sort(key=len, reverse=True)
        # a name begins and ends as the token does, since that decides what its neighbours are
        self._names = {t: f"{t[0]}{self._secret}{number:06}{t[-1]}" for number, t in enumerate(special)}
        self._known = re.compile("|".join(map(re.escape, special)))
        self._tokenizer = _copied(self._backend, added, self._names)
        here = [self._tokenizer.token_to_id(self._names.get(token.content, token.content)) for token in added.values()]
        if here != [*added] or self._tokenizer.get_vocab_size() != self._backend.get_vocab_size():
            raise ModelError(
                "the tokenizer's special tokens can't be told from text: a copy of it has other ids; load the model "
                "with split_special_tokens=False."
            )


def _is_special(token: AddedToken) -> bool:
    return bool(token.content) and (token.special or _MARKUP.fullmatch(token.content.strip()) is not None)


def _copied(backend: Tokenizer, added: dict[int, AddedToken], names: dict[str, str]) -> Tokenizer:
    """The same tokenizer with other names for some tokens, without truncation and padding."""
    if any(backend.model.token_to_id(name) is not None for name in names):
        copy = Tokenizer.from_str(json.dumps(_renamed(json.loads(backend.to_str()), names)))
        copy.no_truncation()
        copy.no_padding()
        return copy
    copy = Tokenizer(backend.model)  # which knows none of the names and is shared: large ones take seconds to copy
    for part in ("normalizer", "pre_tokenizer", "post_processor"):
        if (of := getattr(backend, part)) is not None:
            setattr(copy, part, of)
    for _, token in sorted(added.items()):
        flags = {flag: getattr(token, flag) for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        copy.add_tokens([AddedToken(names.get(token.content, token.content), **flags)])
    return copy


def _renamed(file: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A tokenizer's file with other names for some tokens, which keep their ids."""
    for token in file["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = file["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(token, token): number for token, number in vocabulary.items()}
    else:  # of a Unigram model, in the order of ids
        model["vocab"] = [[names.get(token, token), score] for token, score in vocabulary]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if model.get("merges"):
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [(a, b) for a, b in pairs if not {a, b, a + b} & names.keys()]
    return file
