"""What a model on the hub weighs and under which licence it comes, asked before it is fetched; and the fetching.

Knows the hub's metadata and its cache. Refuses to know what a model is, and how anything is shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name

from ..errors import ModelError
from .arguments import first_line
from .files import read_json

PATIENCE = 10.0
"""Seconds that the hub may take to say what there is."""

_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_BESIDE = (".json", ".jinja", ".txt", ".model", ".tiktoken")
"""Endings of what stands beside the weights: configuration, tokenizer, preprocessing."""
_NO_ANSWER: Any = (*HfHubHTTPError.__bases__, OSError)
"""What the hub's package raises where nobody answers; whose errors of HTTP they are depends on its version."""


class Unreachable(ModelError):
    """The hub does not answer.

    Attributes
    ----------
    cached : bool
        Whether the model is in the cache, whole.
    """

    def __init__(self, said: str, cached: bool) -> None:
        super().__init__(said)
        self.cached = cached


@dataclass(frozen=True, slots=True)
class Missing:
    """What has to be fetched before a model can be loaded.

    Attributes
    ----------
    name, revision : str
        As the hub calls it.
    licence : str or None
        As the model's card names it.
    files : dict
        Bytes of each file that is not in the cache, the weights last.
    """

    name: str
    revision: str | None
    licence: str | None
    files: dict[str, int]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())

    def fetch(self, tell: Callable[[int], object]) -> None:
        """Fetch the files into the cache; broken off and begun again, a file goes on where it was.

        Parameters
        ----------
        tell : callable
            Is given how many bytes have come since it was called last.

        Raises
        ------
        ModelError
            If the hub refuses one, or stops answering.
        """
        for file in self.files:
            try:
                hf_hub_download(self.name, file, revision=self.revision, tqdm_class=_counting(tell))
            except GatedRepoError as error:
                raise _gated(self.name) from error
            except _NO_ANSWER as error:
                raise ModelError(
                    f"{file} of {self.name!r} could not be fetched: {first_line(error)} The same command goes on where "
                    "it stopped."
                ) from error


def missing(source: str, revision: str | None = None) -> Missing | None:
    """What is not in the cache of a model on the hub; None for a folder, and where everything is there.

    Raises
    ------
    Unreachable
        If the hub does not answer.
    ModelError
        If there is no such model, or nobody may fetch it without leave.
    """
    if os.path.exists(source):
        return None
    hub = HfApi()
    try:
        info = hub.model_info(source, revision=revision, files_metadata=True, timeout=PATIENCE)
        if info.gated and not _cached(source, "config.json", info.sha):
            hub.auth_check(source)
    except HFValidationError:  # no name that a model can have: loading says so
        return None
    except GatedRepoError as error:
        raise _gated(source) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{source!r} has no revision {revision!r} on the hub; leave it out for the newest.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"the hub has no model {source!r} that may be read from here; expected a name such as "
            "'Qwen/Qwen2.5-VL-7B-Instruct', or a folder that exists. For a private one, log in: hf auth login."
        ) from error
    except _NO_ANSWER as error:
        cached = _whole(source, revision)
        where = "is" if cached else "is not"
        raise Unreachable(
            f"{source!r} can't be fetched: the hub does not answer ({first_line(error).rstrip('.')}), and the model "
            f"{where} in the cache. Try again with a network, or give a folder that holds it.",
            cached,
        ) from error
    there = {file.rfilename: file for file in info.siblings or ()}
    files = {
        name: there[name].size or 0
        for name in _needed(list(there))
        if not (_cached(source, name, info.sha) or _stored(source, there[name]))
    }
    return Missing(source, revision, _licence(info.card_data), files) if files else None


def _needed(names: Sequence[str]) -> list[str]:
    """The files that loading reads, the weights last: other formats of the same weights stay where they are."""
    top = [name for name in names if "/" not in name]
    weights = [name for name in top if _WEIGHTS.fullmatch(name)]
    if "model.safetensors" in weights:
        weights = ["model.safetensors"]
    return [name for name in top if name.endswith(_BESIDE)] + sorted(weights)


def _cached(source: str, file: str, revision: str | None) -> bool:
    return isinstance(try_to_load_from_cache(source, file, revision=revision), str)


def _stored(source: str, file: Any) -> bool:
    """Whether the cache has a file's content from another revision, which is not fetched again."""
    digest = file.lfs.sha256 if file.lfs else file.blob_id
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=source, repo_type="model") / "blobs"
    return bool(digest) and (folder / digest).is_file()


def _whole(source: str, revision: str | None) -> bool:
    """Whether the cache alone is enough to load the model."""
    if not _cached(source, "config.json", revision):
        return False
    if _cached(source, "model.safetensors", revision):
        return True
    index = read_json(source, "model.safetensors.index.json", {"revision": revision, "local_files_only": True})
    shards = set(index.get("weight_map", {}).values())
    return bool(shards) and all(_cached(source, shard, revision) for shard in shards)


def _licence(card: Any) -> str | None:
    """The licence that a model's card names; where it is of the author's own, the name of that."""
    said = None if card is None else card.get("license")
    if said == "other":
        said = card.get("license_name") or card.get("license_link") or said
    return ", ".join(map(str, said)) if isinstance(said, list) else said


def _gated(source: str) -> ModelError:
    return ModelError(
        f"{source!r} is given only to those who have accepted its licence: do so on the model's page on the hub, then "
        "log in here: hf auth login."
    )


def _counting(tell: Callable[[int], object]) -> Any:
    """What the hub's package takes for a bar of tqdm, and which only counts bytes."""

    class Counting:
        total, n = None, 0

        def __init__(self, *_: Any, initial: int | None = 0, **__: Any) -> None:
            tell(int(initial or 0))

        def __enter__(self) -> Counting:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, n: float | None = 1) -> None:
            tell(int(n or 0))

        def update_transfer(self, n: float | None = 1) -> None:
            """Bytes on the wire, which are not those of the file."""

        def __getattr__(self, name: str) -> Callable[..., None]:
            """Whatever else a bar can do."""
            return lambda *_, **__: None

    return Counting
