"""What stands for the parts of a recipe in a run's settings: names, numbers, lists and files in place of objects."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import yaml

import pdrop_video as pv

FRONT = ("gate", "reducer")
"""What stands in front of the language model, in the order in which frames meet it."""

PARTS = (*FRONT, "pyramid", "memory")
NOTHING, ALL = {"stages": 1}, {"tokens": None}
"""Of "none": a pyramid that drops nothing, and a memory that keeps everything."""


def parsed(name: str, text: str) -> Any:
    """A value in YAML.

    Raises
    ------
    ConfigError
        If it is not YAML.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise pv.ConfigError(f"{name} is not YAML: {' '.join(str(error).split())}.") from error


def method_of(slot: str, value: Any) -> Any:
    """A gate or a reducer by the one line that stands for it; None for "none"."""
    return None if value in (None, "none") else pv.Recipe(**{slot: value}).as_dict()[slot]


def of_recipe(values: dict[str, Any]) -> dict[str, Any]:
    """The parts of a recipe's file, with the settings that stand beside it in place of its own."""
    beside: dict[str, Any] = {
        slot: "none" if values[slot] is None else values[slot] for slot in FRONT if slot in values
    }
    for name, read in (("pyramid", schedule_of), ("memory", budget_of)):
        if name in values:
            beside[name] = read(values[name])
    said = pv.Recipe.load(values["recipe"]).altered(**beside).as_dict()
    return {name: said.get(name) for name in PARTS}


def schedule_of(value: Any) -> Any:
    """Ratios, as a list or as "0.5,0.25", "none" and a saved schedule's file stand for schedules; else it stays."""
    if isinstance(value, str) and value.endswith(".json"):
        found = pv.Pyramid.load(value)
        return {field.name: given for field in fields(found) if (given := getattr(found, field.name)) is not None}
    if isinstance(value, str):
        value = parsed("pyramid", value if value.lstrip().startswith(("{", "[")) or "," not in value else f"[{value}]")
    if value is None or value == "none":
        return dict(NOTHING)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = [value]
    return {"ratios": value} if isinstance(value, list) else value


def budget_of(value: Any) -> Any:
    """Numbers of tokens, and "none", stand for budgets; anything else stays."""
    if isinstance(value, str):
        value = parsed("memory", value)
    if value is None or value == "none":
        return dict(ALL)
    return {"tokens": value} if isinstance(value, int) and not isinstance(value, bool) else value


def built(kind: Any, arguments: dict[str, Any]) -> Any:
    """A `Pyramid` or a `Memory`; what it refuses is a `ValueError`."""
    for name in ("scorer", "allocator", "evictor"):
        if not isinstance(arguments.get(name) or "", str):  # an object of one's own can't be in a file
            raise ValueError(f"{name} is {arguments[name]!r}; expected a name")
    try:
        return kind(**arguments)
    except TypeError as error:  # an unknown name
        raise ValueError(f"{kind.__name__}({arguments}): {error}") from error
