"""Recipes: what they say, how they are written and read, what they cost; and the catalogue of methods."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import methods
import pytest
import torch
import yaml
from families import build, video

import pdrop_video as pv
from pdrop_video.cli.options import recipe_of
from pdrop_video.costs.decoder import DecoderShape, prefill_flops
from pdrop_video.gate.static import Static
from pdrop_video.memory import EVICTORS
from pdrop_video.memory.evictors.pyramid import Pyramid as PyramidEvictor
from pdrop_video.memory.storages import AbsMax
from pdrop_video.models import describe
from pdrop_video.pyramid import ALLOCATORS, SCORERS
from pdrop_video.pyramid.scorers.contrast import Contrast
from pdrop_video.reduce.evs import EVS
from pdrop_video.registry import Facts, facts_of, name_of, named
from pdrop_video.stream.cost import recipe_flops
from pdrop_video.stream.methods import SLOTS, catalogue, markdown

RECIPES = {
    "nothing said": (pv.Recipe(), {"pyramid": {}, "memory": {}}),
    "names": (
        pv.Recipe("static", "evs", pv.Pyramid(scorer="novelty"), pv.Memory(tokens=100, evictor="hermes")),
        {
            "gate": "static",
            "reducer": "evs",
            "pyramid": {"scorer": "novelty"},
            "memory": {"tokens": 100, "evictor": "hermes"},
        },
    ),
    "parameters": (
        pv.Recipe(
            Static(5),
            "evs:keep=0.25",
            pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.1), scorer=Contrast(decay=0.5), allocator="uniform"),
            pv.Memory(bytes=2**20, evictor=PyramidEvictor(half_life=60.0), positions="original", archive=2**20),
        ),
        {
            "gate": "static:threshold=5.0",
            "reducer": "evs:keep=0.25",
            "pyramid": {
                "layers": [2, 4],
                "ratios": [0.5, 0.1],
                "scorer": "contrast:decay=0.5",
                "allocator": "uniform",
            },
            "memory": {
                "tokens": None,
                "bytes": 2**20,
                "evictor": "pyramid:half_life=60.0",
                "positions": "original",
                "archive": 2**20,
            },
        },
    ),
    "no limits": (
        pv.Recipe(pyramid=pv.Pyramid(stages=1), memory=pv.Memory(tokens=None)),
        {"pyramid": {"stages": 1}, "memory": {"tokens": None}},
    ),
}


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_its_file_says(name: str, suffix: str, tmp_path: Path) -> None:
    """Methods by one line, of pyramid and memory what is not the default; notes are for readers."""
    recipe, said = RECIPES[name]
    assert recipe.as_dict() == said
    file = tmp_path / f"recipe{suffix}"
    recipe.save(file, by="hand")
    read = json.loads(file.read_text()) if suffix == ".json" else yaml.safe_load(file.read_text())
    assert read == {**said, "notes": {"by": "hand"}}
    loaded = pv.Recipe.load(file)
    assert loaded.as_dict() == said
    assert loaded == pv.Recipe.from_dict(said)


def test_a_schedule_that_was_searched_is_a_recipe(tmp_path: Path) -> None:
    """And the other way round."""
    pyramid = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25))
    pyramid.save(tmp_path / "schedule.json", search={"budget": 0.5})
    assert pv.Recipe.load(tmp_path / "schedule.json").pyramid == pyramid
    pv.Recipe(pyramid=pyramid, reducer="evs").save(tmp_path / "recipe.json")
    assert pv.Pyramid.load(tmp_path / "recipe.json") == pyramid


def test_options_beside_a_recipe_s_file_win(tmp_path: Path) -> None:
    """A schedule and a budget as wholes; the methods that rank and forget stay unless they are named."""
    file = tmp_path / "recipe.yaml"
    pyramid, memory = pv.Pyramid(average=0.5, scorer="novelty"), pv.Memory(bytes=10**6, evictor="streaming_vlm")
    recipe = pv.Recipe("static", "evs", pyramid, memory)
    recipe.save(file)
    assert recipe_of(str(file)) == recipe and recipe_of() == pv.Recipe()
    for given, changed in (
        ({"gate": "none", "reducer": "evs:keep=0.25"}, {"gate": None, "reducer": "evs:keep=0.25"}),
        ({"ratios": "0.5,0.25"}, {"pyramid": pv.Pyramid(ratios=(0.5, 0.25), scorer="novelty")}),
        ({"ratios": "none", "scorer": "value_norm"}, {"pyramid": pv.Pyramid(stages=1, scorer="value_norm")}),
        ({"allocator": "uniform"}, {"pyramid": replace(pyramid, allocator="uniform")}),
        ({"memory": "99"}, {"memory": pv.Memory(tokens=99, evictor="streaming_vlm")}),
        ({"memory": "none"}, {"memory": pv.Memory(tokens=None, evictor="streaming_vlm")}),
        ({"evictor": "oldest", "archive": 7}, {"memory": pv.Memory(bytes=10**6, evictor="oldest", archive=7)}),
    ):
        assert recipe_of(str(file), **given) == replace(recipe, **changed), given
    assert recipe.altered(pyramid={"positions": "original"}) == recipe
    bytes_ = replace(recipe, memory=pv.Memory(tokens=99)).altered(memory={"bytes": 10**6})
    assert bytes_.memory == pv.Memory(bytes=10**6)


def test_a_recipe_opens_the_stream_that_its_parts_open() -> None:
    """Bit for bit."""
    lm = build("qwen2_5_vl")
    pyramid, memory = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25)), pv.Memory(tokens=60)
    whole = lm.stream(pv.Recipe("static", "evs:keep=0.6", pyramid, memory))
    parts = lm.stream(pyramid, memory, gate="static", reducer=EVS(0.6))
    for stream in (whole, parts):
        stream.push(video(7), [0.5 * i for i in range(7)])
    assert whole.status == parts.status and whole.status.carried_bytes.keys() == {"gate", "reducer", "scorer"}
    assert torch.equal(whole.next_logits("what is shown ?"), parts.next_logits("what is shown ?"))


BAD: dict[str, tuple[Any, str]] = {
    "no mapping": ([], r"a recipe is \[\]; expected entries such as gate"),
    "nothing": (None, "a recipe is None; expected entries"),
    "an unknown entry": ({"reducr": "evs"}, "a recipe has 'reducr'; expected gate, reducer, pyramid, memory"),
    "an unknown argument": ({"memory": {"tokns": 3}}, "memory has 'tokns'; expected some of tokens, bytes"),
    "a list for a memory": ({"memory": [3]}, r"memory is \[3\]; expected its arguments by name"),
    "a mapping for a gate": ({"gate": {"static": 3}}, "gate is {'static': 3}; expected some text"),
    "an unknown method": ({"reducer": "fvs"}, "there is no reducer 'fvs'; choose one of .*evs"),
    "a wrong number": ({"pyramid": {"ratios": [2]}}, "ratios"),
    "an unknown scorer": ({"pyramid": {"scorer": "best"}}, "there is no scorer 'best'"),
    "a scorer's parameter": ({"pyramid": {"scorer": "contrast:decay=fast"}}, "decay of scorer contrast is 'fast'"),
    "a parameter that it has not": ({"pyramid": {"scorer": "relevance:x=1"}}, "relevance has 'x=1'; expected no param"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_recipes_are_refused_with_their_file(bad: str, tmp_path: Path) -> None:
    given, said = BAD[bad]
    with pytest.raises(pv.ConfigError, match=said):
        pv.Recipe.from_dict(given)
    for name, write in (("a.yaml", yaml.safe_dump), ("a.json", json.dumps)):
        (tmp_path / name).write_text(write(given))
        with pytest.raises(pv.ConfigError, match=f"{name[:5]}.*{said}"):
            pv.Recipe.load(tmp_path / name)


def test_bad_files(tmp_path: Path) -> None:
    for name, text in (
        ("a.yaml", "gate: [static"),
        ("a.json", "{"),
        ("b.yaml", "&a [*a]"),
        ("c.yaml", "!!python/x {}"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(pv.ConfigError, match=name):
            pv.Recipe.load(tmp_path / name)
    with pytest.raises(pv.ConfigError, match=r"ends in '.toml'; expected a file that ends in .yaml, .yml or .json"):
        pv.Recipe().save(tmp_path / "a.toml")
    with pytest.raises(pv.ConfigError, match="can't be read"):
        pv.Recipe.load(tmp_path / "missing.yaml")
    with pytest.raises(pv.ConfigError, match="can't be written"):
        pv.Recipe().save(tmp_path / "no" / "folder.yaml")

    class Mine(EVS):
        """Of nobody's package."""

    with pytest.raises(pv.ConfigError, match=r"a recipe can't be written.*Mine"):
        pv.Recipe(reducer=Mine()).save(tmp_path / "a.yaml")
    assert not (tmp_path / "no").exists()


def test_a_recipe_beside_its_parts_is_refused() -> None:
    lm = build("qwen2_5_vl")
    for part in ({"memory": pv.Memory()}, {"gate": "static"}, {"reducer": "evs"}):
        with pytest.raises(pv.ConfigError, match="a recipe was given beside memory, gate or reducer"):
            lm.stream(pv.Recipe(), **part)
    for wrong in (pv.Memory(), "static", {}):
        with pytest.raises(pv.ConfigError, match=r"pyramid is .*expected a Pyramid"):
            lm.stream(wrong)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slot", SLOTS)
def test_every_listed_method_is_named_by_what_gives_it_again(slot: str) -> None:
    for name, method in SLOTS[slot].items():
        assert name_of(SLOTS[slot], method) == name
        assert named(slot, SLOTS[slot], name) is method


def test_names_with_parameters() -> None:
    """Of every kind of parameter."""
    assert named("evictor", EVICTORS, "pyramid:half_life=null,recent=0.5") == PyramidEvictor(recent=0.5)
    assert named("evictor", EVICTORS, " pyramid : periods = 8 ".replace(" ", "")) == PyramidEvictor(periods=8)
    assert name_of(EVICTORS, PyramidEvictor(periods=8, half_life=1.5)) == "pyramid:periods=8,half_life=1.5"
    with pytest.raises(pv.ConfigError, match=r"periods of evictor pyramid is 8.5; expected a whole number"):
        named("evictor", EVICTORS, "pyramid:periods=8.5")


# -- the catalogue -----------------------------------------------------------------------------------------------------


def test_every_listed_method_says_what_it_is() -> None:
    listed = catalogue()
    assert [(each.slot, each.name) for each in listed] == [
        (s, name) for s, registry in SLOTS.items() for name in registry
    ]
    for each in listed:
        assert each.facts.says and "|" not in each.facts.says and not each.facts.says.endswith(".")
        assert each.facts.paper or each.facts.ours or each.source == "common practice"
    keys = ["slot", "name", "paper", "trained", "needs_question", "ours"]
    assert all(list(each.as_dict()) == keys for each in listed)


def test_facts_are_not_asked_of_a_method_of_ones_own() -> None:
    class Plain:
        """All that the scorers' protocol asks."""

        uses_probe = uses_layout = once = False

        def __call__(self, ranking: Any) -> Any:
            return ranking.hidden.norm(dim=-1)

    assert named("scorer", SCORERS, Plain()) is not None and facts_of(Plain()) is None
    assert isinstance(facts_of(SCORERS["contrast"]), Facts) and isinstance(facts_of(ALLOCATORS["joint"]), Facts)


def test_the_pages_have_the_catalogue() -> None:
    """`pdrop-video methods --markdown` is what stands in docs/methods.md."""
    tables = methods.pages()
    for path, table in tables.items():
        page = path.read_text(encoding="utf-8")
        assert page.count(methods.BEGIN) == page.count(methods.END) == 1
        assert methods.written(page, table) == page, f"run `make methods`: it writes {path.name}"
    assert markdown(catalogue()) in tables.values()


# -- what a recipe costs -----------------------------------------------------------------------------------------------


def test_a_recipe_whose_memory_holds_no_step_has_no_cost() -> None:
    """And a chunk that would fill the memory costs what its pieces do."""
    config, adapter = describe()
    sizes = dict(frames=16, height=224, width=224)
    small = pv.Recipe(pyramid=pv.Pyramid(stages=1), memory=pv.Memory(tokens=15))
    with pytest.raises(pv.ConfigError, match="a memory of 15 tokens a layer can't hold one step of 16"):
        recipe_flops(small, config, adapter, **sizes)
    tight = pv.Recipe(pyramid=pv.Pyramid(stages=1), memory=pv.Memory(tokens=40))
    assert recipe_flops(tight, config, adapter, chunk=16, **sizes) == recipe_flops(
        tight, config, adapter, chunk=2, **sizes
    )


def test_a_memory_in_bytes_holds_what_its_storage_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """int8_per_token takes head_dim bytes and a scale of four for a head, not two bytes a number: it holds more.

    As much as 100 tokens; beside that, each number is multiplied by its scale as it is read.
    """
    config, adapter = describe()
    shape = DecoderShape.of(config)
    sizes = dict(frames=64, height=224, width=224)
    token = 2 * shape.kv_heads * (shape.head_dim + 4)
    small = 100 * shape.layers * token
    stored = pv.Memory(bytes=small)
    assert stored == pv.Memory(bytes=small, storage="int8_per_token") and pv.Memory().storage == "full"

    def flops(memory: pv.Memory) -> int:
        return recipe_flops(pv.Recipe(pyramid=pv.Pyramid(stages=1), memory=memory), config, adapter, **sizes).decoder

    reading, whole = flops(stored), flops(pv.Memory(tokens=100))
    monkeypatch.delattr(AbsMax, "flops")
    columns, rest = divmod(reading - whole, 2 * shape.kv_heads * shape.head_dim * shape.layers)
    assert flops(stored) == whole and whole > flops(pv.Memory(bytes=small, storage="full"))
    assert columns > 100 and rest == 0


def test_what_a_recipe_costs_by_the_sum_of_its_parts() -> None:
    config, adapter = describe()
    shape, steps, places = DecoderShape.of(config), 4, 4 * 4
    sizes = dict(frames=2 * steps, height=224, width=224, chunk=8)
    pyramid = pv.Pyramid(stages=1)
    plain = recipe_flops(pv.Recipe(pyramid=pyramid), config, adapter, **sizes)
    assert plain.gate == plain.reducer == 0
    assert (
        plain.decoder
        == prefill_flops(shape, pyramid.resolve(8), steps * places, 0) - 2 * shape.hidden * shape.vocabulary
    )
    reduced = recipe_flops(pv.Recipe("static", "evs:keep=0.5", pyramid), config, adapter, **sizes)
    assert reduced.tower == plain.tower and reduced.reducer == 6 * steps * places * shape.hidden
    half = prefill_flops(shape, pyramid.resolve(8), steps * places // 2, 0)
    assert reduced.decoder == half - 2 * shape.hidden * shape.vocabulary
    assert reduced.total == reduced.tower + reduced.decoder + reduced.reducer
