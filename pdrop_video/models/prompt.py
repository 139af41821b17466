"""The chat template, cut where the video goes. Knows a tokenizer; refuses to know models."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Encoding

from ..errors import ModelError
from .encoder import Encoder

Messages = list[dict[str, Any]]


class Prompt:
    """Token ids before and after the video of one user turn.

    Both halves are cut from one text with a single `video_token` in the video's place, so that they are tokenized
    as transformers' processors tokenize them: whole, with the tokenizer's own first token.

    Text of users (questions, system prompts, told text, beginnings of answers) is never searched for anything, and
    special tokens in it stay text. What of a prompt is the template's and what is the user's is found by rendering it
    twice, once with numbers that were never seen before in place of the user's texts.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        With a chat template that writes `placeholder` for a video.
    video_token : str
        The token that stands for a visual one.
    template : str, optional
        A chat template to use in place of the tokenizer's own.
    placeholder : str
        What the template writes for a video; `video_token` where empty.
    opening, ending : str
        Text between the template's and the video's tokens.
    split_special_tokens : bool
        False lets special tokens in users' text be special.

    Raises
    ------
    ModelError
        If the template does not place a video, or the tokenizer does not know `video_token`. By any of the methods: if
        the template does not write a text, or what it writes around a text depends on it.
    """

    def __init__(
        self,
        tokenizer: Any,
        video_token: str,
        template: str | None = None,
        *,
        placeholder: str = "",
        opening: str = "",
        ending: str = "",
        split_special_tokens: bool = True,
    ) -> None:
        self.tokenizer, self.video_token, self.template = tokenizer, video_token, template
        self.placeholder, self.opening, self.ending = placeholder or video_token, opening, ending
        self._encoder = Encoder(tokenizer, split_special_tokens)
        self._video_id = tokenizer.get_vocab().get(video_token)
        if self._video_id is None or tokenizer(video_token, add_special_tokens=False)["input_ids"] != [self._video_id]:
            raise ModelError(
                f"the tokenizer does not know {video_token}; expected the model's own tokenizer.json and "
                "tokenizer_config.json."
            )
        self._halves("")  # fail now, not at the first question

    def before(self, system: str | None = None) -> list[int]:
        """Ids of everything up to the video."""
        return self._halves("", system)[0]

    def after(self, question: str) -> list[int]:
        """Ids of everything from the video's end to where the answer begins.

        With an empty question this is the answer-turn template, the best query-independent probe known (StreamMem).
        """
        return self._halves(question)[1]

    def again(self, question: str | None = None) -> list[int]:
        """Ids that follow an answer: up to the next turn's video, or without one up to where the next answer begins.

        Parameters
        ----------
        question : str, optional
            Asked in a turn without a video.
        """
        answer, *_ = _unseen(1, question or "")

        def talk(*asked: str) -> Messages:
            content = [_text(each) for each in asked] or [{"type": "video"}]
            return [
                {"role": "user", "content": [{"type": "video"}, _text("?")]},
                {"role": "assistant", "content": [_text(answer)]},
                {"role": "user", "content": content},
            ]

        first, *others = self._pieces(talk, *([] if question is None else [question]))
        behind, found, more = first.rpartition(answer)
        if not found or answer in behind:
            raise ModelError("the tokenizer's chat template does not write an answer once; expected it whole.")
        if question is not None:
            return self._encoder.ids([more, *others])
        return self._around_video([more], 0, begins=False)[0]

    def between(self, text: str) -> list[int]:
        """Ids of text between two parts of a video, as the template writes it between two videos of one turn.

        Templates that put all videos in front of all text get it on a line of its own.
        """

        def turn(said: str) -> Messages:
            return [{"role": "user", "content": [{"type": "video"}, _text(said), {"type": "video"}]}]

        before, said, behind = self._pieces(turn, text)
        if before.count(self.placeholder) == behind.count(self.placeholder) == 1:
            before, behind = before.partition(self.placeholder)[2], behind.partition(self.placeholder)[0]
        else:
            before = behind = "\n"
        return self._encoder.ids([f"{self.ending}{before}", said, f"{behind}{self.opening}"])

    def alone(self, said: Sequence[str], system: str | None = None) -> list[int]:
        """Ids of a conversation without a video, up to where the next answer begins.

        Parameters
        ----------
        said : sequence of str
            What the user said, what was answered, and so on in turns; the user's last.
        system : str, optional
        """

        def talk(*texts: str) -> Messages:
            roles = [
                *(["system"] if system is not None else []),
                *(("user", "assistant")[i % 2] for i in range(len(said))),
            ]
            return [{"role": role, "content": [_text(each)]} for role, each in zip(roles, texts, strict=True)]

        pieces = self._pieces(talk, *([] if system is None else [system]), *said)
        if any(mark in piece for piece in pieces[::2] for mark in (self.placeholder, self.video_token)):
            raise ModelError("the tokenizer's chat template writes a video where there is none; show one.")
        return self._encoded(pieces).ids

    def words(self, text: str) -> list[int]:
        """Ids of text within an answer."""
        return self._encoder.ids(["", text])

    def _halves(self, question: str, system: str | None = None) -> tuple[list[int], list[int]]:
        """Ids up to the video and behind it."""

        def turns(*texts: str) -> Messages:
            *instructed, asked = texts if question else (*texts, "")
            user: Messages = [{"role": "user", "content": [{"type": "video"}, *([_text(asked)] if asked else [])]}]
            return [*({"role": "system", "content": [_text(each)]} for each in instructed), *user]

        texts = [*([] if system is None else [system]), *([question] if question else [])]
        return self._around_video(self._pieces(turns, *texts), 0 if system is None else 2, begins=True)

    def _around_video(self, pieces: list[str], number: int, *, begins: bool) -> tuple[list[int], list[int]]:
        """Ids in front of and behind the video, which the template's piece of this number must hold."""
        if sum(piece.count(self.placeholder) for piece in pieces[::2]) != 1 or self.placeholder not in pieces[number]:
            raise ModelError(
                f"the tokenizer's chat template writes no {self.placeholder} for a video, or not one behind the system "
                "prompt and in front of the question; expected the template of a video model. Save the model's own "
                "chat_template.jinja beside its tokenizer."
            )
        before, _, behind = pieces[number].partition(self.placeholder)
        left = [*pieces[:number], f"{before}{self.opening}"]
        whole = [*left[:-1], f"{left[-1]}{self.video_token}{self.ending}{behind}", *pieces[number + 1 :]]
        encoding = self._encoded(whole) if begins else self._encoder(whole)
        at, ids = encoding.char_to_token(len(self._encoder.written(left))), encoding.ids
        assert at is not None
        assert ids[at] == self._video_id
        return ids[:at], ids[at + 1 :]

    def _encoded(self, whole: list[str]) -> Encoding:
        """A prompt from its beginning, with the tokenizer's first token; templates may write it themselves."""
        first = self.tokenizer.bos_token
        return self._encoder(whole, begins=not (first and whole[0].startswith(first)))

    def _pieces(self, messages: Callable[..., Messages], *texts: str) -> list[str]:
        """What the template writes for messages of some texts: its own text and what it makes of each, in turns.

        Templates may trim a text or write it in capitals; what they write around it must be the same for every text.
        """
        unseen = _unseen(len(texts), *texts)
        template, rest = [], self._render(messages(*unseen))
        for number in unseen:
            before, found, rest = rest.partition(number)
            if not found or number in rest:
                raise ModelError(
                    "the tokenizer's chat template writes one of system prompt, question and other text not at all, or "
                    "more than once, or in another order; expected each once. Leave it out, or give the model another "
                    "chat_template.jinja."
                )
            template.append(before)
        template.append(rest)
        pieces = [template[0], *(piece for pair in zip(texts, template[1:], strict=True) for piece in pair)]
        if self._render(messages(*texts)) == "".join(pieces):  # texts stand there as they are, as they mostly do
            return pieces
        pieces = template[:1]
        for i, text in enumerate(texts):
            rendered = self._render(messages(*unseen[:i], text, *unseen[i + 1 :]))
            before = "".join(part + number for part, number in zip(template[:i], unseen[:i], strict=True)) + template[i]
            behind = template[i + 1] + "".join(
                number + part for number, part in zip(unseen[i + 1 :], template[i + 2 :], strict=True)
            )
            end = len(rendered) - len(behind)
            if end < len(before) or not (rendered.startswith(before) and rendered.endswith(behind)):
                raise ModelError(
                    f"the tokenizer's chat template writes something else around {text[:60]!r} than around other text; "
                    "expected the same. Word it differently, or give the model another chat_template.jinja."
                )
            pieces += [rendered[len(before) : end], template[i + 1]]
        return pieces

    def _render(self, messages: Messages) -> str:
        """The template's text for a conversation."""
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages, chat_template=self.template, tokenize=False, add_generation_prompt=True
                )
            )
        except Exception as error:  # jinja raises many kinds, transformers its own
            raise ModelError(f"the tokenizer's chat template can't render a video turn: {error}") from error


def _text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


def _unseen(count: int, *texts: str) -> list[str]:
    """Numbers that stand in none of the texts, which no template changes."""
    numbers: list[str] = []
    while len(numbers) < count:
        number = f"{secrets.randbits(128):039}"
        if not any(number in text for text in texts):
            numbers.append(number)
    return numbers
