"""`Part`: a small trained network that stands beside a model's own weights, and what a file says of one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

Self = TypeVar("Self", bound="Part")


@dataclass(frozen=True, slots=True)
class Trained:
    """What is known of a part's training; a file holds it beside the weights.

    Attributes
    ----------
    part : str
        Its name in `pdrop_video.parts.PARTS`.
    version : int
        Of the part's code; a file of another version is refused.
    model : dict
        For which model it was trained: see `pdrop_video.parts.files.identity`.
    shape : dict
        Arguments of the part's class.
    settings : dict
        Of the training: seed, steps, rates, and what else the weights depend on.
    figures : dict
        Losses and accuracies on held-out lines, before and after.
    parameters : int
        How many numbers were trained.
    """

    part: str
    version: int
    model: Mapping[str, Any]
    shape: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


class Part(nn.Module):
    """A trained part: a module of few weights, kept in float32 whatever the model's type, in a file of bfloat16.

    A part of your own is a subclass that is put into `pdrop_video.parts.PARTS`. Its ``__init__`` takes plain numbers
    and words alone, which it hands on to this one's, so that a file can say how the part is made again.

    Parameters
    ----------
    **shape
        The arguments of the subclass, JSON-ready.

    Attributes
    ----------
    name, version : str, int
        Its name, and the number that goes up when old weights mean something else.
    says, paper : str
        One line: what it does; and where it comes from.
    families : tuple of str
        The types of models that it serves; all of them where empty.
    trained : Trained or None
        What its file says; None of one that comes from no file.
    source : str
        The file, for messages.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    says: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    families: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **shape: Any) -> None:
        super().__init__()
        self.shape = shape
        self.trained: Trained | None = None
        self.source = ""

    @classmethod
    def of(cls: type[Self], model: Any, **shape: Any) -> Self:
        """An untrained part for a model, in float32 on the CPU.

        Parameters
        ----------
        model : PreTrainedModel
            Whose width, and what else it needs to know, it reads from the config.
        **shape
            In place of the defaults.
        """
        return cls(hidden=model.config.get_text_config().hidden_size, **shape)

    def attach(self, model: Any) -> None:
        """Called once when it is loaded beside a model: for a part that runs some of the model's own layers."""

    @property
    def parameters_count(self) -> int:
        """Numbers that are trained."""
        return sum(each.numel() for each in self.parameters())

    @property
    def digest(self) -> str:
        """By what a saved stream knows these weights again."""
        found = hashlib.sha256(f"{self.name} {self.version} {sorted(self.shape.items())}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            # a file has bfloat16: one that was just trained and the same one read back are told apart by nobody
            found.update(name.encode() + _bits(tensor).numpy().tobytes())
        return found.hexdigest()[:16]

    def beside(self: Self, tensor: Tensor) -> Self:
        """Itself, on the device of a tensor."""
        first = next(self.parameters())
        return self if first.device == tensor.device else self.to(tensor.device)


def _bits(tensor: Tensor) -> Tensor:
    short = tensor.detach().to("cpu")
    return short.bfloat16().contiguous().view(torch.int16) if short.is_floating_point() else short.contiguous()
