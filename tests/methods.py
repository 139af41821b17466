"""The README's table of methods, from what the methods say of themselves: `make methods` writes it anew."""

from __future__ import annotations

from pathlib import Path

from pdrop_video.stream.methods import catalogue, markdown

PAGE = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- written by `make methods` -->\n", "<!-- up to here -->\n"


def written(page: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{markdown(catalogue())}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
