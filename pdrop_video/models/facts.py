"""What is known of the families that have no file of their own: which were proved, which can't be served and why.

Facts only; what can be read off a configuration or a class is not among them.
"""

from __future__ import annotations

import transformers
from packaging.version import Version

KINDS = frozenset({"full", "sliding", "linear", "convolution", "Mamba", "latent"})
"""Kinds of decoder layers that the layer loop runs."""

_INDEXED = (
    "which keys a query sees is chosen by an indexer that keeps keys of its own, {how}; the layer loop would have to "
)
_INDEXED += "keep, drop and evict those with the attention's keys"

REFUSED: dict[str, str] = {
    "glm5_next": _INDEXED.format(
        how="pooled over neighbouring columns of the cache, so that a dropped token moves every pool"
    ),
    "qwen4_exp": _INDEXED.format(
        how="in blocks of neighbouring columns of the cache, so that a dropped token moves blocks"
    ),
    "dots3_note": _INDEXED.format(how="one for each token"),
    "hy_v4_vl": _INDEXED.format(how="one for each token"),
    "minimax_m3_vl": _INDEXED.format(how="in blocks that go by a column's place in the cache and not by its position"),
    "instructblip": "a Q-Former that reads the question makes the tokens of every frame, and the decoder (OPT, T5) has "
    "learned positions in place of RoPE: nothing can be watched before it is asked, nor placed beyond what was trained",
}
REFUSED["instructblipvideo"] = REFUSED["instructblip"]
"""By ``model_type``: what would have to change."""

_UNTIL_5_24 = {
    "kimi_k25": "before transformers 5.24 its own forward fails on videos: get_image_features splits by t * h * w what "
    "its tower has averaged over t",
    "nemotron_h_omni": "before transformers 5.24 its own forward fails on videos: it strings together what is no list",
}
UNRUN: dict[str, str] = {} if Version(transformers.__version__) >= Version("5.24") else _UNTIL_5_24
"""Types that load, whose own forward fails in the installed transformers, so that nothing can be held against it."""

OWN_CONDITIONS: dict[str, str] = {
    "molmo2": "in a stream a frame's tokens see each other and all before, where the model lets all of a prompt's",
}
"""What of a family with a file of its own is other than in the model."""

CONDITIONS: dict[str, str] = {
    "minicpm_ocr": "where its processor cuts no frames of videos into slices (slice_mode is off)",
}
"""What a type's checkpoints must say to be served by a derived adapter."""

PROVED: frozenset[str] = frozenset(
    {
        "cohere_compass",
        "ernie4_5_vl_moe",
        "hyperclovax_vision_v2",
        "kimi_k25",
        "lfm3_vl",
        "minicpm_ocr",
        "nemotron_h_omni",
    }
)
"""Types without a file of their own whose derived adapter is held against transformers in the tests."""
