"""The README's table of model types, from transformers' lists and `models/facts.py`: `make families` writes it anew."""

from __future__ import annotations

from pathlib import Path

from pdrop_video.models.families import catalogue, markdown

PAGE = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- families -->\n", "<!-- /families -->\n"


def table(page: str) -> str:
    """What stands between the marks."""
    return page.partition(BEGIN)[2].partition(END)[0]


def written(page: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{markdown(catalogue())}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
