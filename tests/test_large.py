"""Models that do not fit where they compute: what is offloaded streams as what is not. Several cards: `spread.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
import transformers.distributed
from families import FAMILIES, budget, cases, video
from test_exact import QUESTION, next_logits
from test_loading import save

import pdrop_video as pv

PYRAMID = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25))


def offloaded(lm: pv.VideoLM, away: str) -> dict[str, str]:
    """A device_map by which modules whose names begin so are on disk, and all others on the CPU."""
    on_disk = [
        name for name, _ in lm.model.named_modules() if name.startswith(away) and name.count(".") == away.count(".")
    ]
    places = {name: "disk" for name in on_disk}
    inside = tuple(f"{name}." for name in on_disk)
    for name, module in lm.model.named_modules():
        if name and name not in places and not name.startswith(inside) and not list(module.children()):
            places[name] = "cpu"
    named = tuple(f"{name}." for name in places)
    return places | {name: "cpu" for name, _ in lm.model.named_parameters() if not name.startswith(named)}


@pytest.mark.filterwarnings("ignore:The following device_map keys:UserWarning")  # parameters beside modules
@pytest.mark.parametrize(
    "family, away", cases(FAMILIES, ("layers", "tower", "everything"), fast=lambda f, a: f == 1 or (f, a) == (5, 0))
)
def test_what_is_on_disk_streams_alike(family: str, away: str, tmp_path: Path) -> None:
    """Pushes that evict, a question, a save and a stream resumed from it, by either model."""
    folder = save(tmp_path / "checkpoint", family, "saved by 5")
    whole = pv.load(folder, dtype=torch.float64)
    stack = next(name for name, module in whole.model.named_modules() if module is whole.model.get_decoder())
    tower = next(
        name for name, _ in whole.model.named_modules() if name.endswith(("visual", "vision_tower", "vision_model"))
    )
    begins = {"layers": f"{stack}.layers.", "tower": tower, "everything": "model"}[away]
    places = offloaded(whole, begins)
    if family == "llava_onevision" and away == "everything":
        with pytest.raises(pv.ModelError, match="leaves image_newline of LlavaOnevisionModel"):
            pv.load(folder, device_map=places, offload_folder=str(tmp_path / "refused"))
        return
    lm = pv.load(folder, dtype=torch.float64, device_map=places, offload_folder=str(tmp_path / "weights"))
    assert any(parameter.is_meta for parameter in lm.model.parameters()) and lm.device.type == "cpu"

    pair, answers = [], []
    for model in (lm, whole):
        stream = model.stream(PYRAMID, pv.Memory(tokens=budget(whole, 2.6)))
        for turn in range(3):
            stream.push(video(4, seed=turn), [4.0 * turn + i for i in range(4)])
        pair.append(stream)
    assert [each.index.tolist() for each in pair[0]._state.cache.tables] == [
        each.index.tolist() for each in pair[1]._state.cache.tables
    ]
    for number, stream in enumerate(pair):
        stream.save(tmp_path / str(number))
    pair += [model.resume(tmp_path / str(number)) for number, model in ((0, whole), (1, lm))]
    for stream in pair:
        stream.push(video(4, seed=3), [12.0, 13.0, 14.0, 15.0])
    for stream in pair:
        answers.append(stream.ask(QUESTION, 4).token_ids)
        torch.testing.assert_close(next_logits(stream), next_logits(pair[1]), atol=1e-9, rtol=0)
    assert len(set(answers)) == 1


@pytest.mark.parametrize(
    "how", [dict(tp_plan="auto"), dict(tp_size=2), dict(distributed_config=tf.distributed.DistributedConfig(tp_size=2))]
)
def test_tensor_parallelism_is_refused(how: dict[str, Any]) -> None:
    """Before anything is read or any process group begins."""
    with pytest.raises(pv.ModelError, match="tensor parallelism is not supported: each process"):
        pv.load("no/such", **how)


def test_a_map_that_is_made_by_itself(tmp_path: Path) -> None:
    """accelerate's own, where there is but a CPU."""
    folder = save(tmp_path / "checkpoint", "qwen2_5_vl", "saved by 5")
    answers = []
    for how in (dict(device="cpu"), dict(device_map="auto")):
        stream = pv.load(folder, dtype=torch.float64, **how).stream(PYRAMID)
        stream.push(video(4), [0.0, 1.0, 2.0, 3.0])
        answers.append(next_logits(stream))
    assert torch.equal(*answers)
