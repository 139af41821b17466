"""Which files hold the parts that `load` was asked for, and the parts out of them, beside a model."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..common import checks
from ..common.checks import shown
from ..errors import ConfigError
from .base import Part
from .files import SUFFIX, check_fits, read_part, read_said

SHIPPED = Path(__file__).parent.parent / "builtin" / "parts"
"""Parts that were trained for the built-in model, one file each."""


def located(
    given: str | os.PathLike[str] | Collection[str | os.PathLike[str]],
    registry: Mapping[str, type[Part]],
    builtin: bool,
) -> dict[str, Path]:
    """The file of each part that was asked for; no weights are read.

    Parameters
    ----------
    given : str, path, or several
        A part's name, for one that ships with the built-in model; a file; ``name=file``; a folder, of which every file
        with a part is taken, or ``name=folder``, of which the file ``name.safetensors`` is.
    registry : mapping
        Parts by name.
    builtin : bool
        Whether the model is the built-in one.

    Raises
    ------
    ConfigError
        If there is no such part or file, or one part is given twice.
    """
    several = [given] if isinstance(given, str | os.PathLike) else given
    if not isinstance(several, list | tuple | set | frozenset):
        raise ConfigError(f"parts must be a name, a file, a folder, or a list of such; got {shown(given)}.")
    found: dict[str, Path] = {}
    for each in several:
        for path in _files(os.fspath(each) if isinstance(each, os.PathLike) else each, registry, builtin):
            name = read_said(path).part
            if name in found:
                raise ConfigError(f"the part {name} was given twice, {found[name]} and {path}; give one of them.")
            found[name] = path
    return found


def _files(said: Any, registry: Mapping[str, type[Part]], builtin: bool) -> list[Path]:
    said = checks.text("each of parts", said)
    name, equals, place = said.partition("=")
    if equals and name.isidentifier() and not Path(said).exists():
        _check_name(name, registry)
        path = Path(place)
        path = path / f"{name}{SUFFIX}" if path.is_dir() else path
        if (there := read_said(path).part) != name:
            raise ConfigError(f"{path} was given as {name}, and holds the part {there}.")
        return [path]
    path = Path(said)
    if path.is_dir():
        if not (files := sorted(path.glob(f"*{SUFFIX}"))):
            raise ConfigError(f"the folder {said} holds no part; expected files that end in {SUFFIX}.")
        return files
    if path.suffix == SUFFIX or os.sep in said:
        return [path]
    _check_name(said, registry)
    if not builtin:
        raise ConfigError(
            f"the part {said} ships for the built-in model alone; for another model give the file of one that was "
            f"trained for it, as {said}=FILE: python -m pdrop_video.train_part {said} --model ... writes it."
        )
    path = SHIPPED / f"{said}{SUFFIX}"
    if not path.is_file():
        raise ConfigError(
            f"the part {said} does not ship with this version; train it, python -m pdrop_video.train_part {said}, and "
            f"give its file as {said}=FILE."
        )
    return [path]


def _check_name(name: str, registry: Mapping[str, type[Part]]) -> None:
    if name not in registry:
        raise ConfigError(
            f"there is no part {shown(name)}; choose one of {', '.join(registry)}, or give a file or a folder."
        )


def opened(paths: Mapping[str, Path], registry: Mapping[str, type[Part]], model: Any) -> dict[str, Part]:
    """The parts of some files, beside the model that they were trained for.

    Raises
    ------
    ConfigError, ModelError
        If a file is broken, or was trained for another model.
    """
    parts: dict[str, Part] = {}
    for path in paths.values():
        part = read_part(path, registry)
        assert part.trained is not None
        check_fits(part.trained, model, str(path))
        part.attach(model)
        parts[part.name] = part.to(model.get_input_embeddings().weight.device)
    return parts


def _named_by(method: object) -> tuple[str, ...]:
    """What a method's attribute `parts` names, where it is that: a gate's may be a switch, for parts of pictures."""
    named = getattr(method, "parts", ())
    return named if isinstance(named, tuple) else ()


def needed_by(*methods: object) -> tuple[str, ...]:
    """The parts that methods name in their attribute `parts`, each once."""
    return tuple(dict.fromkeys(name for method in methods for name in _named_by(method)))


def taken(parts: Mapping[str, Part], *methods: object) -> dict[str, Part]:
    """Of the parts that are loaded those that methods need.

    Raises
    ------
    ConfigError
        If one is not loaded, with what to do.
    """
    for method in methods:
        for name in _named_by(method):
            if name not in parts:
                raise ConfigError(
                    f"{method!r} needs the trained part {name!r}, which is not loaded; load it with the model, "
                    f'pdrop_video.load(..., parts=("{name}",)) or --part {name}, or train it: python -m '
                    f"pdrop_video.train_part {name}."
                )
    return {name: parts[name] for name in needed_by(*methods)}
