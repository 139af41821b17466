"""Look at what runs answered: `python -m eval.view RUN [RUN]`, a page on this machine.

Each item with its question and options, the answers of one run or of two side by side, and frames of its video as the
run remembered them; filters by category and by who was right. Knows gradio. What is shown is chosen in
`eval.stats.side_by_side` and drawn in `eval.runner.drawn`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from rich.console import Console

import pdrop_video as pv
from pdrop_video.video.decode import counted

from .runner.doors import clear_errors, encodable
from .runner.drawn import drawn
from .stats.record import Record, Run
from .stats.side_by_side import Pair, SideBySide
from .stats.verdicts import read_judged
from .tasks import Item, task_named

try:
    import gradio as gr
except ImportError as error:  # an extra of its own
    raise SystemExit("eval.view needs gradio: pip install pdrop-video[demo].") from error

_err = Console(stderr=True)
ALL = "all"
CSS = """
.pv-answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
.pv-answers h3, .pv-item h3 { margin: 0 0 .4rem; }
.pv-answers blockquote, .pv-item blockquote { margin: .3rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.pv-item ol { list-style: none; padding: 0; }
.pv-frames { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .6rem; }
.pv-frames figure { margin: 0; }
.pv-frames img { width: 100%; border-radius: .3rem; }
.pv-item li { white-space: pre-wrap; }
"""


@dataclass(slots=True)
class View:
    """What the page shows.

    Attributes
    ----------
    runs : SideBySide
    items : mapping of str to Item
        Where each item's video is; may lack any of them.
    without : str
        Why no frames can be shown, or nothing.
    """

    runs: SideBySide
    items: Mapping[str, Item] = field(default_factory=dict)
    without: str = ""

    def listed(self, category: str, standing: str, words: str) -> list[tuple[str, str]]:
        """Label and name of each item that the filters leave, in order."""
        wanted = ["" if value in (None, ALL) else value for value in (category, standing, words)]
        found = self.runs.chosen(*wanted)
        return [
            (f"{pair.item}: {pair.record.question.strip()[:80]} ({self.runs.standing(pair)})", pair.item)
            for pair in found
        ]

    def pair(self, name: str) -> Pair:
        """The item of that name; `ConfigError` if there is none."""
        for pair in self.runs.pairs:
            if pair.item == name:
                return pair
        raise pv.ConfigError(f"there is no item {name!r} in {' and '.join(self.runs.names)}; choose one of the list.")

    def said(self, name: str) -> str:
        """An item as HTML: question, options, the truth, and each run's answer."""
        pair = self.pair(name)
        record = pair.record
        places = "".join(f"<li>{escape(option)}{_truth(record, i)}</li>" for i, option in enumerate(record.options))
        truth = "withheld" if record.answer is None else escape(str(record.answer))
        fields = "; ".join(f"{escape(name)}: {escape(value)}" for name, value in pair.values)
        return (
            f'<section class="pv-item"><h3>{escape(pair.item)}</h3><p>Video {escape(record.video)}. {fields}</p>'
            f"<blockquote>{escape(record.question)}</blockquote><ol>{places}</ol><p>Truth: {truth}</p></section>"
            f'<div class="pv-answers">{"".join(self._answer(pair, run) for run in range(len(self.runs.names)))}</div>'
        )

    def _answer(self, pair: Pair, run: int) -> str:
        record, title = pair.records[run], escape(self.runs.names[run])
        if record is None:
            return f"<section><h3>{title}</h3><p>Not finished.</p></section>"
        verdict = {True: "Right", False: "Wrong", None: "Not scored"}[pair.right(run)]
        said = (
            f"<p>{escape(record.error)}</p>"
            if record.error
            else f"<blockquote>{escape(record.response or '')}</blockquote>"
        )
        scores = "".join(f"<br>{escape(name)}: {value:g}" for name, value in record.details.items())
        return (
            f"<section><h3>{title}: {verdict}</h3>{said}<p>Read as: {escape(str(record.strict))} (official: "
            f"{escape(str(record.official))}){scores}<br>{counted(record.frames, 'frame')} up to {record.at:.1f} s, "
            f"{record.visual_tokens:,} visual tokens; remembered by stage: "
            f"{' → '.join(f'{kept:,}' for kept in record.kept) or 'unknown'}; "
            f"{record.cache_bytes / 2**20:.2f} MiB</p></section>"
        )

    def frames(self, name: str, run: int) -> tuple[list[tuple[Any, str]], str]:
        """A run's frames of an item with their captions, and what there is to say of them."""
        record, item = self.pair(name).records[run], self.items.get(name)
        if record is None:
            return [], "Not finished."
        if item is None or not item.path.exists():
            return [], self.without or f"The video {record.video} is not in the data's folder."
        try:
            found = drawn(record, item.path, item.start)
        except pv.PDropError as error:
            return [], str(error).replace(str(item.path), record.video)
        if not record.moments:
            return found, "This run's records do not say what was kept: frames of what was watched, evenly spaced."
        most = "that it attended to most" if any(moment.weight is not None for moment in record.moments) else "it had"
        return found, f"Moments {most}, in the deepest stage; places that it had forgotten are dark."

    def pictures(self, name: str, run: int) -> str:
        """The same as HTML."""
        drawn, words = self.frames(name, run)
        figures = "".join(
            f'<figure><img alt="{escape(caption)}" src="data:image/webp;base64,{_webp(picture)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for picture, caption in drawn
        )
        title = f"What {escape(self.runs.names[run])} remembered"
        return f'<h3>{title}</h3><div class="pv-frames">{figures}</div><p>{escape(words)}</p>'


def _webp(picture: Any) -> str:
    made = BytesIO()
    Image.fromarray(picture).save(made, "WEBP", quality=80)
    return b64encode(made.getvalue()).decode()


def _truth(record: Record, index: int) -> str:
    """A mark behind the right option, where a letter, an index or the option itself says which it is."""
    right = record.answer in (index, chr(ord("A") + index), record.options[index])
    return " <strong>(truth)</strong>" if right and not isinstance(record.answer, bool) else ""


def view_of(runs: list[Run], data: Path | None = None) -> View:
    """What is shown of one or two runs; frames come from `data`, or from where the run had them."""
    if not 1 <= len(runs) <= 2:
        raise pv.ConfigError(f"{len(runs)} runs were named; expected one, or two to see them side by side.")
    both = SideBySide.of(runs)
    header = runs[0].header
    folder = data if data is not None else Path(str(header.get("data", "")))
    try:
        items = {item.id: item for item in task_named(str(header.get("task")), folder).items()}
    except pv.PDropError:
        why = "The benchmark's data are not there, so no frames are shown; give their folder with --data."
        return View(both, {}, why)
    return View(both, items)


def build(view: View) -> gr.Blocks:
    """The page."""
    names = view.runs.names
    with gr.Blocks(title="Answers of a run", analytics_enabled=False) as page:
        gr.Markdown(f"# {' and '.join(names)}\nEvery item with its question, the answers and what was remembered.")
        with gr.Row():
            category = gr.Dropdown([ALL, *view.runs.categories], value=ALL, label="Category", elem_id="category")
            standing = gr.Dropdown([ALL, *view.runs.standings], value=ALL, label="Who was right", elem_id="standing")
            words = gr.Textbox(label="Words in name, question or answer", elem_id="words")
        begin = view.listed(ALL, ALL, "")
        with gr.Row():
            item = gr.Dropdown(begin, value=begin[0][1], label=_count(begin), elem_id="item", scale=8)
            earlier, later = gr.Button("Previous", scale=1), gr.Button("Next", scale=1, elem_id="next")
        said = gr.HTML(elem_id="said")
        with gr.Row():
            shown = [gr.HTML(elem_id=f"frames-{run}") for run in range(len(names))]

        def filtered(category: str, standing: str, words: str) -> Any:
            left = view.listed(category, standing, words)
            return gr.update(choices=left, value=left[0][1] if left else None, label=_count(left))

        def look(name: str | None) -> list[Any]:
            if not name:
                return ["<p>No item is left by these filters.</p>", *([""] * len(names))]
            try:
                return [view.said(name), *(view.pictures(name, run) for run in range(len(names)))]
            except pv.PDropError as error:
                raise gr.Error(str(error), print_exception=False) from error

        def moved(by: int, name: str | None, *filters: str) -> str | None:
            left = [named for _, named in view.listed(*filters)]
            return left[(left.index(name) + by) % len(left)] if name in left else next(iter(left), None)

        filters: list[Any] = [category, standing, words]
        category.change(filtered, filters, item, api_name="items")
        for one in (standing, words):
            one.change(filtered, filters, item, api_visibility="private")
        for button, by in ((earlier, -1), (later, 1)):
            button.click(partial(moved, by), [item, *filters], item, api_visibility="private")
        item.change(look, item, [said, *shown], api_name="item")
        page.load(look, item, [said, *shown], api_visibility="private")
    return page


def _count(listed: list[Any]) -> str:
    return counted(len(listed), "item")


def main(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN]", help="Output folders of eval.run, one or two.")],
    data: Annotated[
        Path | None, typer.Option(help="The benchmark's folder, for frames; left out: where the run had it.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve at; 127.0.0.1 is this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 7870,
) -> None:
    """Serve a page that shows what one run answered, or two side by side."""
    with clear_errors(2):
        encodable("RUN", runs)
        encodable("--data", data)
        page = build(view_of([read_judged(folder) for folder in runs], data))
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port or None,
                prevent_thread_lock=True,
                quiet=True,
                ssr_mode=False,
                run_history=False,
                footer_links=[],
                css=CSS,
            )
        except OSError as error:
            raise pv.ConfigError(f"port {port} of {host} can't be served ({error}); choose another --port.") from error
        _err.print(f"the page is at {address} ; end with Ctrl+C", highlight=False, soft_wrap=True)
        page.block_thread()


if __name__ == "__main__":
    typer.run(main)
