"""Which video models of the installed transformers are served, and why the others are not; needs no torchvision."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import derived
import derived_hybrid  # noqa: F401  # which adds to derived.PARTS
import pytest
import served
import transformers as tf
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as LOADABLE
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES
from typer.testing import CliRunner

import pdrop_video as pv
from pdrop_video.cli import app
from pdrop_video.models import ADAPTERS, families
from pdrop_video.models.facts import CONDITIONS, KINDS, PROVED, REFUSED, UNRUN


@pytest.fixture(scope="module")
def listed() -> dict[str, families.Family]:
    return {family.model_type: family for family in families.catalogue()}


def test_every_video_type_is_served_or_refused_with_a_reason(listed: dict[str, families.Family]) -> None:
    """Those whose source makes features of videos, found by reading it, and those that have a video processor."""
    models = Path(tf.__file__).parent / "models"
    makers = {
        re.sub(r"ForConditionalGeneration|Model|_Reasoning_V3", "", name)
        for file in models.glob("*/modeling_*.py")
        if "def get_video_features" in (source := file.read_text(encoding="utf-8"))
        for name in re.findall(r"^class (\w+)\(", source, re.MULTILINE)
    }
    takers = {kind for kind, name in LOADABLE.items() if name.replace("ForConditionalGeneration", "") in makers}
    takers |= {kind for kind in VIDEO_PROCESSOR_MAPPING_NAMES if kind in LOADABLE}
    ours = {kind for kind in ADAPTERS if kind in LOADABLE}  # older ones lack some
    assert takers <= listed.keys() and ours <= listed.keys() and len(takers) > 10
    for family in listed.values():
        assert family.served in ("own", "derived", None) and family.layers and family.positions
        assert family.served or len(family.reason) > 20, family
        assert (family.served == "own") == (family.model_type in ADAPTERS)


def test_the_facts_are_those_of_the_tests() -> None:
    alone = {kind for kind in derived.PARTS if kind not in ADAPTERS and kind not in REFUSED}
    assert alone == {kind for kind in PROVED - ADAPTERS.keys() if kind in LOADABLE}  # older ones lack some
    assert not REFUSED.keys() & (PROVED | UNRUN.keys()) and CONDITIONS.keys() | UNRUN.keys() <= PROVED


def test_kinds_of_layers(listed: dict[str, families.Family]) -> None:
    for kind, layers in dict(qwen2_5_vl="full", gemma4="full sliding", kimi_k25="latent", qwen3_5="full linear",
                             nemotron_h_omni="Mamba full", minimax_m3_vl="full indexed").items():  # fmt: skip
        if kind in listed:
            assert listed[kind].layers == tuple(layers.split())
            if kind not in ADAPTERS and not set(listed[kind].layers) <= KINDS:
                assert listed[kind].served is None
    assert not listed["qwen2_vl"].audio and "sound" not in listed["qwen2_vl"].reason
    for kind in {"gemma4", "muse_spark", "nemotron_h_omni", "dots3_note"} & listed.keys():
        assert not listed[kind].audio and listed[kind].reason.endswith("its sound input is not served")
    assert "qwen2_5_omni_thinker" not in listed or listed["qwen2_5_omni_thinker"].audio
    assert "glm5_next" not in listed or listed["glm5_next"].positions == "none"
    assert listed["qwen2_vl"].positions == "M-RoPE" and listed["internvl"].positions == "RoPE"
    assert listed["instructblipvideo"].positions == "learned"


def test_a_type_that_nobody_knows_is_judged_by_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all facts were forgotten."""
    for facts in (REFUSED, UNRUN, ADAPTERS):
        monkeypatch.setattr(families, next(n for n, v in vars(families).items() if v is facts), {})
    monkeypatch.setattr(families, "PROVED", frozenset())
    assert (families.judged("glm4v").served, families.judged("glm4v").reason) == ("derived", "not tried")
    assert families.judged("internvl").served == "derived"
    if "qwen3_5" in LOADABLE and "linear" not in KINDS:
        assert "does not run" in families.judged("qwen3_5").reason and families.judged("qwen3_5").served is None
    assert (
        families.judged("instructblip").served is None
        and "replace_video_token" in families.judged("instructblip").reason
    )


def test_the_command() -> None:
    done = CliRunner().invoke(app, ["families", "--json"])
    assert done.exit_code == 0
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    assert {"model_type", "served", "reason", "layers", "audio"} <= rows[0].keys()
    assert {row["model_type"]: row["served"] for row in rows}["qwen3_vl"] == "own"
    assert "qwen3_vl" in CliRunner().invoke(app, ["families"]).stdout
    page = CliRunner().invoke(app, ["families", "--markdown"]).stdout
    assert "| `qwen3_vl` | own | full | M-RoPE |  |" in page


def test_the_file_says_of_this_version_what_the_catalogue_says() -> None:
    told = served.told()
    if tf.__version__ not in told:
        pytest.skip("the file is of other versions of transformers")
    assert served.own()[tf.__version__] == told[tf.__version__], "run `make families`"


def test_the_tables_are_what_the_file_says() -> None:
    told = served.told()
    for path, table in served.pages(told).items():
        page = path.read_text(encoding="utf-8")
        assert page.count(served.BEGIN) == page.count(served.END) == 1
        assert served.written(page, table) == page, f"run `make families`: it writes {path.name}"
    assert served.as_text(told) == served.FILE.read_text(encoding="utf-8")
    assert list(told) == sorted(told, key=lambda version: [*map(int, version.split("."))]) and len(told) == 3


def test_a_table_of_versions() -> None:
    """Beside each other; of a type the newest version's kinds, and every version's reasons once."""
    old, new = (dict(positions="RoPE", audio=False, layers=(kind,)) for kind in ("full", "latent"))
    made = families.markdown(
        {
            "5.1.0": [families.Family("a", None, "It fails.", **old), families.Family("b", "own", "", **old)],
            "5.2.0": [families.Family(kind, "derived" if kind == "a" else None, "Why.", **new) for kind in "acd"],
        }
    )
    rows = [line.strip("| ").replace(" ", "").split("|") for line in made.splitlines() if line.startswith("| `")]
    assert [row[:4] for row in rows] == [
        ["`a`", "no", "derived", "latent"],
        ["`b`", "own", "notthere", "full"],
        ["`c`", "notthere", "no", "latent"],
        ["`d`", "notthere", "no", "latent"],
    ]
    assert made.splitlines()[-2:] == ["- `a`: It fails.", "- `a`, `c`, `d`: Why."]


@pytest.mark.parametrize("kind", [kind for kind in REFUSED | UNRUN if kind in LOADABLE and kind not in ADAPTERS])
def test_a_refused_type_is_refused_before_weights_are_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(pv.ModelError) as raised:
        pv.load(tmp_path)
    assert str(raised.value) == f"models of type {kind!r} are not supported: {(REFUSED | UNRUN)[kind]}."


def test_missing_torchvision_is_one_sentence(
    listed: dict[str, families.Family], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = next(kind for kind, family in listed.items() if family.served == "derived")
    monkeypatch.setattr("pdrop_video.models.derived.deriving.is_torchvision_available", lambda: False)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(
        pv.ModelError, match=rf"^models of type '{kind}' .* needs torchvision; install the one that fits"
    ):
        pv.load(tmp_path)
