"""Puts the pages of the site together: README.md, docs/ and all that they link to, as the repository is laid out.

So a link is written once, works where the repository is shown, and is checked when the site is built. The pages of the
API are made here: one for each package, of what its `__all__` says, and of the methods that docs/formulas.md names. A
page of docs/ that mkdocs.yml does not name stands under "Reference".
"""

from __future__ import annotations

import ast
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
CODE = re.compile(r"\[`(pdrop_video[\w.]+)`\]\([./]*(pdrop_video/[\w/]+\.py)\)")
"""A link to a class by its full name and file; on the site it leads to the API."""
_staged: list[tempfile.TemporaryDirectory[str]] = []


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Build from a folder that holds what the pages need, and nothing else."""
    _staged.append(tempfile.TemporaryDirectory(prefix="pdrop_video-docs-"))
    staged = Path(_staged[-1].name)
    for path in reached():
        (staged / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, staged / path)
    (staged / "docs" / "api").mkdir()
    pages = api_pages()
    for name, text in pages.items():
        (staged / "docs" / "api" / f"{name}.md").write_text(text, encoding="utf-8")
    parts = {title: inner for part in config.nav or [] for title, inner in part.items()}
    parts["API"] += [{name: f"docs/api/{name}.md"} for name in pages]
    named = set(re.findall(r"docs/\w+\.md", str(config.nav)))
    written = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
    parts["Reference"] += [page for page in written if page not in named]  # by their own titles
    config.docs_dir = str(staged)
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead from a class's name to the API in place of its file."""
    return CODE.sub(r"[`\1`][\1]", markdown)


def on_post_build(**_: Any) -> None:
    """Take the folder away."""
    while _staged:
        _staged.pop().cleanup()


def reached() -> set[Path]:
    """README.md, what docs/ holds, and every file that these link to, and so on, from the repository's root."""
    found: set[Path] = set()
    todo = [ROOT / "README.md", ROOT / "docs" / "site" / "site.css", *(ROOT / "docs").glob("*.*")]
    while todo:
        path = todo.pop()
        if path.relative_to(ROOT) in found:
            continue
        found.add(path.relative_to(ROOT))
        if path.suffix == ".md":
            text = CODE.sub("", path.read_text(encoding="utf-8"))
            linked = (path.parent / target for target in LINK.findall(text) if ":" not in target)
            todo += [each for each in (link.resolve() for link in linked) if each.is_file() and ROOT in each.parents]
    return found


def api_pages() -> dict[str, str]:
    """A page for each package, by its name, and one for the names at the top."""
    methods = CODE.findall((ROOT / "docs" / "formulas.md").read_text(encoding="utf-8"))
    pages = {"pdrop_video": page("pdrop_video", ROOT / "pdrop_video", [])}
    for package in sorted(path.parent for path in (ROOT / "pdrop_video").glob("*/__init__.py")):
        inside = [name for name, file in methods if Path(file).parts[1] == package.name]
        pages[package.name] = page(f"pdrop_video.{package.name}", package, inside)
    return pages


def page(name: str, package: Path, methods: list[str]) -> str:
    """What a package says of itself, its public names, and its methods."""
    blocks = [f"# {name}\n\n::: {name}\n    options: {{members: false, show_root_heading: false}}\n"]
    blocks += [f"::: {name}.{each}\n" for each in public(package / "__init__.py")]
    if methods:
        blocks += ["# Methods\n", *(f"::: {each}\n" for each in dict.fromkeys(methods))]
    return "\n".join(blocks)


def public(file: Path) -> Iterator[str]:
    """The names of a module's `__all__`."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            yield from ast.literal_eval(node.value)
