"""What a run was made with: code, packages, machine and model, for whoever reads its figures later."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers.utils.hub import cached_file, extract_commit_hash

import pdrop_video as pv

from .config import RunConfig

PACKAGES = ("torch", "transformers", "av", "numpy", "pandas", "safetensors", "tokenizers", "ray", "flash-attn")


def header_of(config: RunConfig, task_note: str) -> dict[str, Any]:
    """The header of a run, JSON-ready."""
    return {
        "task": config.task,
        "note": task_note,
        "model": config.model or "built-in",
        "revision": hub_commit(config.model, config.revision),
        "recipe": config.recipe_object().as_dict(),
        "configuration": config.identity(),
        "config_digest": config.digest,
        "paraphrase": config.paraphrase,
        "data": str(config.data),
        "seed": config.seed,
        "git_commit": git_commit(),
        "version": pv.__version__,
        "packages": versions(),
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
    }


def hub_commit(model: str | None, revision: str | None) -> str | None:
    """The commit of a model on the hub, which a branch's name or none at all stands for; else the revision as given."""
    if model is None or Path(model).exists():
        return revision
    try:
        path = cached_file(model, "config.json", revision=revision)
    except OSError:  # loading the model will say what is wrong
        return revision
    return extract_commit_hash(path, None) or revision


def git_commit(folder: Path = Path(__file__).parent) -> str | None:
    """The commit of this checkout, with "+" if files differ from it; None outside a repository.

    An environment within somebody else's repository is outside: none of its files are in that one.
    """
    try:
        if not _git(folder, "ls-files", "."):
            return None
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    run = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of the packages that figures may depend on, where installed."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Where the settings that answers depend on differ, as "name: old -> new"."""
    before, after = old.get("configuration", {}), new["configuration"]
    names = sorted(before.keys() | after.keys())
    return [f"{n}: {before.get(n)!r} -> {after.get(n)!r}" for n in names if before.get(n) != after.get(n)]
