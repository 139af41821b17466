"""What a vision tower's own text half makes of a question, and how what the tower sees is brought beside it.

Knows transformers' CLIP. Refuses to know visual tokens' places and who stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import shown
from ..common.ties import working
from ..errors import ConfigError


@dataclass(frozen=True, slots=True)
class Aligned:
    """A question's words, and the way from the tower's numbers to theirs.

    Attributes
    ----------
    words : Tensor [words, shared]
        Of length 1; without start, end and padding.
    weight, bias : Tensor [seen]
        Of the tower's last norm.
    eps : float
        Its smallest variance.
    projection : Tensor [shared, seen]
    """

    words: Tensor
    weight: Tensor
    bias: Tensor
    eps: float
    projection: Tensor

    def beside(self, attended: Tensor) -> Tensor:
        """What the tower sees, brought beside the words [tokens, shared], of length 1.

        Parameters
        ----------
        attended : Tensor [tokens, seen]

        Raises
        ------
        ConfigError
            If the text half belongs to another tower.
        """
        if attended.shape[1] != len(self.weight):
            raise ConfigError(
                f"the text tower belongs to a vision tower of {len(self.weight)} numbers a patch; this model's has "
                f"{attended.shape[1]}. Name the checkpoint that the model's vision tower was taken from."
            )
        attended = working(attended)
        weight, bias, projection = (each.to(attended) for each in (self.weight, self.bias, self.projection))
        normed = F.layer_norm(attended, weight.shape, weight, bias, self.eps)
        return F.normalize(normed @ projection.mT, dim=-1)


@lru_cache(maxsize=8)
def aligned(checkpoint: str, question: str) -> Aligned:
    """A question as a whole CLIP's text half reads it; the checkpoint itself is let go of again.

    Words beyond what the text half reads (77 tokens, start and end among them) are cut off.

    Parameters
    ----------
    checkpoint : str
        A folder, or a name on the hub.
    question : str

    Raises
    ------
    ConfigError
        If it holds no whole CLIP, or of the question nothing is left.
    """
    from transformers import AutoConfig, AutoTokenizer, CLIPModel

    try:
        kind = AutoConfig.from_pretrained(checkpoint).model_type
        if kind != "clip":
            raise ConfigError(
                f"text_tower is {shown(checkpoint)}, of type {shown(kind)}; expected a whole CLIP, text and vision."
            )
        tokenizer, model = (
            AutoTokenizer.from_pretrained(checkpoint),
            CLIPModel.from_pretrained(checkpoint, dtype=torch.float32),
        )
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"text_tower is {shown(checkpoint)}, which can't be loaded ({shown(str(error))}); expected a folder, or a "
            "name on the hub, of a whole CLIP with its tokenizer."
        ) from error
    most = model.text_model.config.max_position_embeddings
    said = tokenizer(question, truncation=True, max_length=most, return_special_tokens_mask=True)
    ids, special = torch.tensor(said["input_ids"]), torch.tensor(said["special_tokens_mask"], dtype=torch.bool)
    if bool(special.all()):
        raise ConfigError(f"the standing question is {shown(question)}, of which the text tower reads nothing.")
    with torch.no_grad():
        hidden = model.text_model(input_ids=ids[None]).last_hidden_state[0, ~special]  # behind the last norm
        words = F.normalize(model.text_projection(hidden).float(), dim=-1)
    norm = model.vision_model.post_layernorm
    parts = (each.detach().float().clone() for each in (norm.weight, norm.bias, model.visual_projection.weight))
    weight, bias, projection = parts
    return Aligned(words, weight, bias, float(norm.eps), projection)
