"""What requests and answers of chat completions look like: OpenAI's, and what is added for videos."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("this text holds half a character and can't be encoded") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Second = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1e7)]


class Wire(BaseModel):
    """A request of this server's own: an entry that it does not know is an error."""

    model_config = ConfigDict(extra="forbid")


class ImageUrl(BaseModel):
    """Where a picture is: data:, http(s), or the name of a file in one of the server's folders."""

    url: Text
    detail: Text | None = None


class VideoUrl(BaseModel):
    """Where a video is, and how it is watched."""

    url: Text
    fps: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] | None = None
    start: Second | None = None
    end: Second | None = None
    frames: Annotated[int, Field(ge=1, le=4096)] | None = None


class TextPart(BaseModel):
    """Text."""

    type: Literal["text"]
    text: Text


class ImagePart(BaseModel):
    """A picture; several in one message are the frames of a video, one a second."""

    type: Literal["image_url"]
    image_url: ImageUrl


class VideoPart(BaseModel):
    """A video."""

    type: Literal["video_url"]
    video_url: VideoUrl


Part = Annotated[TextPart | ImagePart | VideoPart, Field(discriminator="type")]


class Message(BaseModel):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Part]


class StreamOptions(BaseModel):
    """Of an answer in pieces."""

    include_usage: bool = False


class Drawn(BaseModel):
    """How an answer is generated; what is left out: greedily."""

    max_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None
    stream: bool | None = False

    @property
    def stops(self) -> list[str]:
        """The texts at which the answer ends."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


class ChatRequest(Drawn):
    """A conversation to go on with. Entries of OpenAI's that are not here change nothing, or are refused."""

    model: Text
    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    n: Literal[1] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    response_format: Annotated[dict[str, Any], AfterValidator(lambda given: _only_text(given))] | None = None


def _only_text(given: dict[str, Any]) -> dict[str, Any]:
    if given.get("type") != "text":
        raise ValueError("answers are plain text here; expected {'type': 'text'}, or nothing")
    return given


class TopLogprob(BaseModel):
    """A token that could have stood there."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token of the answer."""

    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    """How likely tokens were."""

    content: list[TokenLogprob]
    refusal: None = None


class AnswerMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The one answer."""

    index: int = 0
    message: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"]


class PromptDetails(BaseModel):
    """Of the prompt's tokens, those that need not be computed again."""

    cached_tokens: int


class VisualTokens(BaseModel):
    """Visual tokens that entered the model, and that each of its stages still remembered, shallow to deep."""

    entered: int
    remembered: list[int]


class Usage(BaseModel):
    """What the answer took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    visual_tokens: VisualTokens


class ChatAnswer(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "pdrop_video"


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
