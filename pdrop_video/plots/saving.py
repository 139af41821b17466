"""Pictures into files. Knows which there are, and what each of them says in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..common import checks
from ..common.atomic import check_replaceable, replacing
from ..errors import ConfigError
from .album import Album
from .charts import blank, cache, evidence, memory
from .frames import described, kept
from .subjects import Answered, Watched
from .wording import CACHE, EVIDENCE, MEMORY


def check_folder(folder: str | Path) -> None:
    """Whether pictures can be drawn and saved there, before there is anything to draw. The folder is made.

    Raises
    ------
    ConfigError
        If the folder can't be written.
    PDropError
        If matplotlib, the extra "plots", is not installed.
    """
    blank(1, 1)
    with _saving(checks.path("folder", folder)):
        Path(folder).mkdir(parents=True, exist_ok=True)
        check_replaceable(Path(folder) / "memory.png")


def save(folder: str | Path, stream: Watched, album: Album, answers: Sequence[Answered] = ()) -> list[Path]:
    """Write all pictures as PNG files on white; each says in its description what it shows.

    Parameters
    ----------
    folder : str or path
        Made if it does not exist.
    stream : VideoStream
    album : Album
    answers : sequence of Answer

    Returns
    -------
    list of Path
        remembered.png, memory.png, cache.png, and answer-1.png and so on.

    Raises
    ------
    ConfigError
        If the folder can't be written.
    """
    folder = checks.path("folder", folder)
    figures = {
        "remembered": (kept(stream, album), described(stream, album)),
        "memory": (memory(stream), MEMORY),
        "cache": (cache(album.history, stream.cache_bound), CACHE),
        **{f"answer-{number}": (evidence(answer), EVIDENCE) for number, answer in enumerate(answers, 1)},
    }
    paths = []
    with _saving(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, (figure, said) in figures.items():
            paths.append(Path(folder) / f"{name}.png")
            with replacing(paths[-1]) as part:
                figure.savefig(part, dpi=110, facecolor="white", format="png", metadata={"Description": said})
    return paths


@contextmanager
def _saving(folder: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"no pictures can be saved in {str(folder)!r}: {error}; choose a folder that can.") from error
