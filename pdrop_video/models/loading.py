"""The one place that loads models: from the package, a folder or the hub; safetensors only, no remote code."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from ..common import checks
from ..errors import ConfigError, ModelError
from .arguments import checked_device, checked_dtype, checked_more, checked_source, first_line
from .base import Adapter
from .cosmos3_edge import Cosmos3Edge
from .derived import Derived, derive, prove
from .ears import Hearing
from .exaone4_5 import Exaone4_5
from .facts import REFUSED, UNRUN
from .files import read_json, weights_bytes
from .gemma4 import Gemma4, Gemma4Unified
from .glm4v import Glm4v, Glm46V, GlmOcr
from .internvl import InternVL
from .llava_next_video import LlavaNextVideo
from .llava_onevision import LlavaOneVision
from .mel import Mel
from .minicpmv import MiniCPMV4_6, MiniCPMV4_7
from .molmo2 import Molmo2
from .muse import Muse
from .number_type import chosen, default_device, own_type
from .perception_lm import PerceptionLM
from .pixels import Pixels
from .progress import late_bars
from .prompt import Prompt
from .qwen2_5_omni import Qwen2_5Omni
from .qwen2_5_vl import Qwen2_5VL
from .qwen2_vl import Qwen2VL
from .qwen3_5 import Qwen3_5
from .qwen3_omni import Qwen3Omni
from .qwen3_vl import Qwen3VL
from .smolvlm import SmolVLM
from .video_llama_3 import VideoLlama3
from .video_llava import VideoLlava

BUILTIN = Path(__file__).parent.parent / "builtin"
"""The tiny model that ships with the package."""

FAMILIES = (
    *(Qwen2VL, Qwen2_5VL, Qwen3VL, LlavaOneVision, LlavaNextVideo, InternVL, SmolVLM),
    *(Glm4v, Glm46V, GlmOcr, VideoLlama3, PerceptionLM, Cosmos3Edge, Molmo2, VideoLlava),
    *(Qwen3_5, MiniCPMV4_6, MiniCPMV4_7, Gemma4, Gemma4Unified, Exaone4_5, Muse, Qwen2_5Omni, Qwen3Omni),
)
_LOADING = Lock()
"""transformers loads with functions of torch's replaced for all threads: two that load at once miss weights."""

ADAPTERS: dict[str, type[Adapter]] = {name: family for family in FAMILIES for name in family.model_types}
"""Every supported family by its ``model_type``."""


class Checkpoint(NamedTuple):
    """What was loaded: all that `VideoLM` needs to know of a model."""

    model: Any
    adapter: Adapter
    prompt: Prompt
    name: str
    dtype_why: str


def read(
    name: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    attn: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    split_special_tokens: bool = True,
    **kwargs: Any,
) -> Checkpoint:
    """A model with its family and its prompt; parameters and errors as for `pdrop_video.load`."""
    source, place = checked_source(name, BUILTIN), checked_device(device) or default_device()
    dtype, kwargs = checked_dtype(dtype), checked_more(kwargs, device)
    if attn is not None:
        kwargs["attn_implementation"] = checks.text("attn", attn)
    checks.switch("split_special_tokens", split_special_tokens)
    Pixels().within(min_pixels, max_pixels)  # wrong numbers are said before anything is read
    hub: dict[str, Any] = {k: kwargs[k] for k in ("revision", "cache_dir", "token", "local_files_only") if k in kwargs}
    config = _config(source, hub)
    adapter = _serving(source, config, hub)
    pixels = adapter.per_frame(_pixels(source, hub))
    if min_pixels is not None or max_pixels is not None:
        if not adapter.keeps_shape:
            why = "resize every frame to one size, or by their own rule"
            if issubclass(adapter, Derived):
                why = "have a processor that takes no limits of pixels"
            raise ConfigError(f"models of type {config.model_type!r} {why}; leave min_pixels and max_pixels out.")
        pixels = pixels.within(min_pixels, max_pixels)
    why = "as asked for"
    if dtype == "auto":
        left = str(place) != "cpu" or "device_map" in kwargs or "quantization_config" in kwargs
        dtype, why = chosen(None if left else own_type(config), partial(weights_bytes, source, hub))
    try:
        with _LOADING, late_bars():
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                source,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # reported, and refused below
                output_loading_info=True,
                **kwargs,
            )
        derived = adapter.scribe.tokenizer if issubclass(adapter, Derived) else None
        tokenizer = derived or AutoTokenizer.from_pretrained(source, trust_remote_code=False, **hub)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise ModelError(
            f"{source!r} was found but could not be loaded: {first_line(error)} Expected safetensors weights and "
            "tokenizer files as save_pretrained writes them (convert .bin weights by loading and saving them once)."
        ) from error
    except (TypeError, AttributeError) as error:  # how transformers takes an argument that it does not know
        if not kwargs:
            raise
        raise ConfigError(
            f"load was given {', '.join(kwargs)}, with which transformers fails: {first_line(error)} Leave out what "
            "from_pretrained does not know."
        ) from error
    model, report = loaded
    _refuse_holes(source, report)
    if adapter is LlavaOneVision:
        _refuse_away(model)
    if "device_map" not in kwargs:
        _move(model, place)
    template = read_json(source, "chat_template.json", hub).get("chat_template")
    family = adapter(model.eval(), pixels, tokenizer)
    _open_ears(family, source, hub)
    if isinstance(family, Derived):
        prove(family)
    return Checkpoint(
        model,
        family,
        adapter.prompt(tokenizer, template, split_special_tokens=split_special_tokens),
        name="built-in" if name is None else source,
        dtype_why=why,
    )


def describe(name: str | Path | None = None, **hub: Any) -> tuple[Any, Adapter]:
    """A model's config and an adapter that can preprocess but not encode; no weights are read.

    Parameters
    ----------
    name : str or Path, optional
        As for `load`.
    **hub
        `revision`, `cache_dir`, `token` or `local_files_only`.

    Raises
    ------
    ModelError
        As for `load`.
    """
    source, hub = checked_source(name, BUILTIN), checked_more(hub, None)
    config = _config(source, hub, weights=False)
    adapter = _serving(source, config, hub)
    described = adapter(SimpleNamespace(config=config), adapter.per_frame(_pixels(source, hub)))
    _open_ears(described, source, hub)
    return config, described


def adapter_for(model_type: str) -> type[Adapter]:
    """The adapter of a family.

    Raises
    ------
    ModelError
        If there is none.
    """
    if model_type not in ADAPTERS:
        known = ", ".join(sorted(ADAPTERS))
        raise ModelError(f"models of type {model_type!r} are not supported; expected one of: {known}.")
    return ADAPTERS[model_type]


def _serving(source: str, config: Any, hub: dict[str, Any]) -> type[Adapter]:
    """The adapter of a checkpoint's family; one made from the checkpoint's own processor where it has no file."""
    kind = config.model_type
    if kind in ADAPTERS or kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return adapter_for(kind)
    if why := REFUSED.get(kind) or UNRUN.get(kind):  # before anybody fetches weights
        raise ModelError(f"models of type {kind!r} are not supported: {why}.")
    return derive(source, config, hub)


def _config(source: str, hub: dict[str, Any], weights: bool = True) -> Any:
    folder = Path(source)
    if os.path.isfile(folder):  # no for a name that is too long for one
        raise ModelError(f"{source!r} is a file; expected the folder that holds config.json and the weights.")
    if os.path.isdir(folder):
        if not (folder / "config.json").is_file():
            raise ModelError(f"the folder {source!r} has no config.json; expected what save_pretrained writes.")
        if weights and not any(folder.glob("*.safetensors")):
            raise ModelError(
                f"the folder {source!r} holds no *.safetensors file; only safetensors weights are loaded. Convert "
                "others by loading them in transformers and calling save_pretrained once."
            )
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **hub)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"no usable model {source!r}: {first_line(error)} Expected a local folder, a name on the hub such as "
            "'Qwen/Qwen2.5-VL-7B-Instruct', or nothing for the built-in model."
        ) from error
    # of a whole omni checkpoint the part that sees, hears and thinks is loaded alone, without the one that speaks
    return getattr(config, "thinker_config", None) or config


def _pixels(source: str, hub: dict[str, Any]) -> Pixels:
    """The preprocessing numbers for video frames, in whichever of its files the checkpoint keeps them.

    The order is that of transformers: ``processor_config.json`` (written since 5.0), then a file of its own for video
    (in a folder of its own in LLaVA-OneVision's first layout), then the image processor's file. Qwen2.5-VL has only
    the last, and saving it again copies its limits into a video entry: limits that are the image's too are capped.
    """
    both = read_json(source, "processor_config.json", hub)
    image = both.get("image_processor") or read_json(source, "preprocessor_config.json", hub)
    video = (
        both.get("video_processor")
        or read_json(source, "video_preprocessor_config.json", hub)
        or read_json(source, "video_processor/preprocessor_config.json", hub)
    )
    if not (video or image):
        raise ModelError(
            f"{source!r} has no preprocessing numbers; expected video_preprocessor_config.json, "
            "preprocessor_config.json or processor_config.json, as the processor's save_pretrained writes them."
        )
    pixels = Pixels.of(video or image)
    pixels.said.update({name: value for name, value in both.items() if not isinstance(value, dict)})
    named = (
        of.get("processor_class") for of in (both, image, video or {}, read_json(source, "tokenizer_config.json", hub))
    )
    pixels.said["processor_class"] = next(filter(None, named), None)  # looked for where transformers looks
    return pixels.capped() if pixels.size == Pixels.of(image).size else pixels


def _open_ears(adapter: Adapter, source: str, hub: dict[str, Any]) -> None:
    """The numbers of a checkpoint's feature extractor, for a family that hears; they stand in one of two files."""
    if isinstance(adapter, Hearing):
        both = read_json(source, "processor_config.json", hub)
        numbers = both.get("feature_extractor") or read_json(source, "preprocessor_config.json", hub)
        bins = adapter.model.config.audio_config.num_mel_bins
        adapter.mel = Mel.of({"feature_size": bins} | numbers)
        if adapter.mel.bins != bins:
            raise ModelError(
                f"{source!r} makes {adapter.mel.bins} bands of sound for a tower that takes {bins}; fetch its "
                "preprocessor_config.json again."
            )


def _refuse_holes(source: str, report: dict[str, Any]) -> None:
    """Where weights do not fill the model, transformers warns and leaves random numbers."""
    holes = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if holes:
        raise ModelError(
            f"the weights of {source!r} do not fit its config: {len(holes)} tensors are missing or have another shape, "
            f"the first is {holes[0]}. Fetch or save the checkpoint again."
        )


def _refuse_away(model: Any) -> None:
    """Weights that accelerate brings while the whole model runs, of which only parts are run here."""
    for name, parameter in model.base_model.named_parameters(recurse=False):
        if parameter.is_meta:
            raise ModelError(
                f"the device_map leaves {name} of {type(model.base_model).__name__} on disk or in main memory, but it "
                "is used outside of any module that would bring it; give its name a device that computes."
            )


def _move(model: Any, device: str | torch.device) -> None:
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:  # no room on it
        raise ModelError(f"the model can't be put on {str(device)!r}: {first_line(error)}") from error
