"""Every family of models in transformers that takes video: how this library serves it, or why it does not.

Read off configurations and classes, so that a type that nobody has heard of is judged as well; no weights are needed.
Knows transformers' lists. Refuses to know loops and caches.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from transformers import ProcessorMixin
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.models.auto.processing_auto import (  # type: ignore[attr-defined]
    PROCESSOR_MAPPING_NAMES,
    processor_class_from_name,
)
from transformers.models.auto.video_processing_auto import (  # type: ignore[attr-defined]
    VIDEO_PROCESSOR_MAPPING_NAMES,
)

from .arguments import first_line
from .ears import Hearing
from .facts import CONDITIONS, KINDS, OWN_CONDITIONS, PROVED, REFUSED, UNRUN
from .loading import ADAPTERS

OWN, DERIVED = "own", "derived"
_KINDS = {
    "full_attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
    "indexed_attention": "indexed",
    "minimax_m3_sparse": "indexed",
    "qwen_sparse_attention": "indexed",
    "conv": "convolution",
    "mamba": "Mamba",
}
_WITHOUT_ATTENTION = ("mlp", "moe", "dense", "sparse")


@dataclass(frozen=True, slots=True)
class Family:
    """A type of models that takes video.

    Attributes
    ----------
    model_type : str
    served : str or None
        By an adapter of its "own", by one "derived" from the checkpoint's processor, or not.
    reason : str
        Why not; of one that is served under which condition, what of it is not, or that no test has tried it.
    layers : tuple of str
        Kinds of its decoder's layers.
    positions : str
    audio : bool
        Whether this library hears with it, too.
    """

    model_type: str
    served: str | None
    reason: str
    layers: tuple[str, ...]
    positions: str
    audio: bool

    def as_dict(self) -> dict[str, Any]:
        """What a program may want to know: ``model_type, served, reason, layers, positions, audio``."""
        return asdict(self) | {"layers": list(self.layers)}

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of a table."""
        sound = "yes" if self.audio else ""
        return self.model_type, self.served or "no", ", ".join(self.layers), self.positions, sound, self.reason


def catalogue() -> list[Family]:
    """Every type of the installed transformers that takes video, by name."""
    return [judged(kind) for kind in sorted(video_types())]


def video_types() -> Iterator[str]:
    """Types that load as models of pictures and text, and take video."""
    for kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        if kind in ADAPTERS or kind in VIDEO_PROCESSOR_MAPPING_NAMES or hasattr(_class(kind), "get_video_features"):
            yield kind


def judged(kind: str) -> Family:
    """How a type is served, or why not."""
    try:
        config, model = CONFIG_MAPPING[kind](), _class(kind)
    except Exception as error:  # of whatever a new type does
        said = f"its default configuration can't be made ({type(error).__name__}: {first_line(error)})"
        return Family(kind, OWN if kind in ADAPTERS else None, said, (), "unknown", False)
    text = config.get_text_config()
    layers = kinds_of(text)
    rope = any(_told(text, name) for name in ("rope_parameters", "rope_theta", "qk_rope_head_dim"))
    unplaced = "Mamba" in layers or hasattr(text, "qk_rope_head_dim")
    axes = hasattr(model, "get_rope_index") or hasattr(_inner(model), "get_rope_index")
    positions = "M-RoPE" if axes else "RoPE" if rope else "none" if unplaced else "learned"
    served, reason = _served(kind, layers)
    hears = issubclass(ADAPTERS.get(kind, object), Hearing)
    if hasattr(config, "audio_config") and not hears:
        reason = "; ".join(filter(None, (reason, "its sound input is not served")))
    return Family(kind, served, reason, layers, positions, hears)


def kinds_of(text: Any) -> tuple[str, ...]:
    """Kinds of a decoder's layers, from its configuration."""
    named = _told(text, "layer_types") or _told(text, "layers_block_type") or ["full_attention"]
    kinds = {_KINDS.get(each, str(each)) for each in named if each not in _WITHOUT_ATTENTION}
    if _told(text, "index_topk_blocks") or _told(text, "index_topk"):
        kinds.add("indexed")
    if _told(text, "mamba_num_heads") and "linear" in kinds:
        kinds = kinds - {"linear"} | {"Mamba"}
    if _told(text, "kv_lora_rank") and "full" in kinds:
        kinds = kinds - {"full"} | {"latent"}
    return tuple(sorted(kinds))


def markdown(versions: Mapping[str, Iterable[Family]]) -> str:
    """The catalogues of some versions of transformers as one table in Markdown, and below it why not.

    What a type is, and why it is not served, is told of the newest version that has it.
    """
    by_version = {version: {each.model_type: each for each in listed} for version, listed in versions.items()}
    newest = {kind: each for listed in by_version.values() for kind, each in listed.items()}
    many = len(by_version) > 1
    lines = [f"By `pdrop-video families`, of transformers {', '.join(by_version)}:", ""]
    titles = ["model type", *(by_version if many else ["served"]), "layers", "positions", "sound"]
    lines += [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    reasons: dict[str, list[str]] = {}
    for kind, each in sorted(newest.items()):
        served = [of[kind].cells[1] if kind in of else "not there" for of in by_version.values()]
        lines.append(f"| {' | '.join([f'`{kind}`', *served, *each.cells[2:5]])} |")
        told = {of[kind].reason: None for of in by_version.values() if kind in of}
        for reason in filter(None, told):
            reasons.setdefault(reason, []).append(f"`{kind}`")
    lines += ["", *(f"- {', '.join(kinds)}: {reason}" for reason, kinds in reasons.items())]
    return "\n".join(lines) + "\n"


def _served(kind: str, layers: tuple[str, ...]) -> tuple[str | None, str]:
    if kind in ADAPTERS:
        return OWN, OWN_CONDITIONS.get(kind, "")
    if kind in REFUSED:
        return None, REFUSED[kind]
    if missing := _missing(kind):
        return None, missing
    if kind in UNRUN:
        return None, UNRUN[kind]
    if others := [each for each in layers if each not in KINDS]:
        return None, f"the layer loop does not run {' and '.join(others)} layers"
    return DERIVED, CONDITIONS.get(kind, "") if kind in PROVED else "not tried"


def _missing(kind: str) -> str:
    """What a derived adapter needs and the type lacks."""
    model = _class(kind)
    if not any(hasattr(of, f"get_{what}_features") for of in (model, _inner(model)) for what in ("video", "image")):
        return f"{model.__name__} has neither get_video_features nor get_image_features, which make visual tokens"
    name = PROCESSOR_MAPPING_NAMES.get(kind)
    processor: Any = processor_class_from_name(name) if name else None
    own = getattr(processor, "replace_video_token", None)
    if processor is not None and own in (None, getattr(ProcessorMixin, "replace_video_token", None)):
        return f"{name} has no replace_video_token of its own, which writes the text of a video"
    return ""  # or the checkpoint says which processor it has


def _told(config: Any, name: str) -> Any:
    """What a configuration says, or one of its layers' where every layer has its own."""
    try:
        return getattr(config, name, None)
    except Exception:  # transformers' own kind, which its older versions do not have
        layers = (getattr(layer, name, None) for layer in config.per_layer_config)
        return next((said for said in layers if said), None)


def _class(kind: str) -> Any:
    return MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[CONFIG_MAPPING[kind]]


def _inner(model: Any) -> Any:
    """The class of what a model with a head holds."""
    module = sys.modules[model.__module__]
    names = (model.__name__.replace("ForConditionalGeneration", ending) for ending in ("Model", "_Model"))
    return next((of for name in names if (of := getattr(module, name, None))), None)
