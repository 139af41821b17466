"""`generate` inside `pyramid_drop`: its modes that would let another row than the prompt's last one rank are refused.

Knows what `generate` is given. Refuses to know what it does with it.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from transformers import PreTrainedModel

from ..errors import ModelError

_REFUSED_MODES = {  # what `generate` takes by argument or by its generation config, and why it is refused
    "assistant_model": "assisted generation proposes tokens behind the prompt, and the last of them would rank",
    "assistant_early_exit": "assisted generation proposes tokens behind the prompt, and the last of them would rank",
    "use_mtp": "assisted generation proposes tokens behind the prompt, and the last of them would rank",
    "prompt_lookup_num_tokens": "prompt lookup proposes tokens behind the prompt, and the last of them would rank",
    "prefill_chunk_size": "a prompt in chunks would be ranked by the last row of each chunk",
}


def guarded(model: PreTrainedModel) -> Any:
    """The model's generate, with the modes refused that would let another row than the prompt's last one rank."""
    generate: Any = model.generate
    signature = signature_of(model, "generate")

    @functools.wraps(generate)
    def guarded_generate(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        given |= given.pop("kwargs", {})
        config = given.get("generation_config") or model.generation_config
        for name, why in _REFUSED_MODES.items():
            if given.get(name, getattr(config, name, None)):
                raise ModelError(f"{name} does not work inside pyramid_drop: {why}; leave it out.")
        if given.get("use_cache", config.use_cache) is False:
            raise ModelError(
                "use_cache=False does not work inside pyramid_drop: every new token would rank the prompt anew; "
                "leave it out."
            )
        return generate(*args, **kwargs)

    return guarded_generate


def refused(*args: Any, **kwargs: Any) -> Any:
    """In place of continuous batching."""
    raise ModelError("continuous batching does not work inside pyramid_drop: its pages hold all rows of every layer.")


def signature_of(model: PreTrainedModel, method: str) -> inspect.Signature:
    """What the model's class says a method takes; another library's function on the instance may not say it."""
    return inspect.signature(getattr(type(model), method).__get__(model))
