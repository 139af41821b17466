"""The chat template, cut where the video goes. Knows a tokenizer; refuses to know models."""

from __future__ import annotations

from typing import Any

from ..errors import ModelError


class Prompt:
    """Token ids before and after the video of one user turn.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        With a chat template that writes `video_token` for a video.
    video_token : str
        The placeholder to cut at.
    template : str, optional
        A chat template to use in place of the tokenizer's own.

    Raises
    ------
    ModelError
        If the template does not place a video.
    """

    def __init__(self, tokenizer: Any, video_token: str, template: str | None = None) -> None:
        self.tokenizer, self.video_token, self.template = tokenizer, video_token, template
        self._halves("")  # fail now, not at the first question

    def before(self, system: str | None = None) -> list[int]:
        """Ids of everything up to the video."""
        return self._encode(self._halves("", system)[0])

    def after(self, question: str) -> list[int]:
        """Ids of everything from the video's end to where the answer begins.

        With an empty question this is the answer-turn template, the best query-independent probe known (StreamMem).
        """
        return self._encode(self._halves(question)[1])

    def _halves(self, question: str, system: str | None = None) -> tuple[str, str]:
        text = [{"type": "text", "text": question}] if question else []
        messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "video"}, *text]}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        try:
            rendered = self.tokenizer.apply_chat_template(
                messages, chat_template=self.template, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # jinja raises many kinds, transformers its own
            raise ModelError(f"the tokenizer's chat template can't render a video turn: {error}") from error
        before, found, after = rendered.partition(self.video_token)
        if not found:
            raise ModelError(
                f"the tokenizer's chat template writes no {self.video_token} for a video; expected the template of a "
                "video model. Save the model's own chat_template.jinja beside its tokenizer."
            )
        return before, after

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]
