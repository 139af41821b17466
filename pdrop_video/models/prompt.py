"""The chat template, cut where the video goes. Knows a tokenizer; refuses to know models."""

from __future__ import annotations

from typing import Any

from ..errors import ModelError


class Prompt:
    """Token ids before and after the video of one user turn.

    Both halves are cut from one text with a single `video_token` in the video's place, so that they are tokenized
    as transformers' processors tokenize them: whole, with the tokenizer's own first token.

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

    Raises
    ------
    ModelError
        If the template does not place a video, or the tokenizer does not know `video_token`.
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
    ) -> None:
        self.tokenizer, self.video_token, self.template = tokenizer, video_token, template
        self.placeholder, self._video = placeholder or video_token, f"{opening}{video_token}{ending}"
        self._rendered("")  # fail now, not at the first question
        self._video_id = tokenizer.get_vocab().get(video_token)
        if self._video_id is None or tokenizer(video_token, add_special_tokens=False)["input_ids"] != [self._video_id]:
            raise ModelError(
                f"the tokenizer does not know {video_token}; expected the model's own tokenizer.json and "
                "tokenizer_config.json."
            )

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
        content = [{"type": "video"}] if question is None else [{"type": "text", "text": question}]
        marker = "ANSWER"
        messages = [
            {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": marker}]},
            {"role": "user", "content": content},
        ]
        ids = self._ids(self._render(messages).rpartition(marker)[2].replace(self.placeholder, self._video))
        return ids if question is not None else ids[: ids.index(self._video_id)]

    def between(self, text: str) -> list[int]:
        """Ids of text between two parts of a video, as the template writes it between two videos of one turn.

        Templates that put all videos in front of all text get it on a line of its own.
        """
        marker = "BETWEEN"
        parts = [{"type": "video"}, {"type": "text", "text": marker}, {"type": "video"}]
        between = self._render([{"role": "user", "content": parts}]).split(self.placeholder)[1]
        between = between.replace(marker, text) if marker in between else f"\n{text}\n"
        opening, _, ending = self._video.partition(self.video_token)
        return self._ids(f"{ending}{between}{opening}")

    def words(self, text: str) -> list[int]:
        """Ids of text within an answer."""
        return self._ids(text)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _halves(self, question: str, system: str | None = None) -> tuple[list[int], list[int]]:
        text = self._rendered(question, system)
        first = self.tokenizer.bos_token  # templates may write it themselves
        ids = self.tokenizer(text, add_special_tokens=not (first and text.startswith(first)))["input_ids"]
        at = ids.index(self._video_id)
        return ids[:at], ids[at + 1 :]

    def _rendered(self, question: str, system: str | None = None) -> str:
        text = [{"type": "text", "text": question}] if question else []
        messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "video"}, *text]}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        return self._render(messages).replace(self.placeholder, self._video, 1)

    def _render(self, messages: list[dict[str, Any]]) -> str:
        """The template's text for a conversation."""
        try:
            rendered = self.tokenizer.apply_chat_template(
                messages, chat_template=self.template, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # jinja raises many kinds, transformers its own
            raise ModelError(f"the tokenizer's chat template can't render a video turn: {error}") from error
        if self.placeholder not in rendered:
            raise ModelError(
                f"the tokenizer's chat template writes no {self.placeholder} for a video; expected the template of a "
                "video model. Save the model's own chat_template.jinja beside its tokenizer."
            )
        return str(rendered)
