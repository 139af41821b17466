"""Write one clip as an mp4 with its questions and right answers beside it, as JSON.

`python -m eval.synthetic.clip demos/clips/clip.mp4 --seed 2027 --index 608 --seconds 12`
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .quiz import KINDS, questions
from .render import FPS, SIDE, write_clip
from .world import sample_clip


def main(
    out: Annotated[Path, typer.Argument(help="The mp4 to write; the JSON gets the same name.")],
    seed: Annotated[int, typer.Option(help="Seed of the set.")] = 1,
    index: Annotated[int, typer.Option(help="Number of the clip in the set.")] = 0,
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "test",
    seconds: Annotated[int | None, typer.Option(min=4, help="Its length; 4 to 32 s if left out.")] = None,
    kinds: Annotated[str, typer.Option(help="Which questions, with commas between.")] = ",".join(KINDS),
) -> None:
    """Write one clip of the synthetic world and what can be asked about it."""
    clip = sample_clip(split, seed, index, seconds)
    write_clip(clip, out)
    about = {
        "made_by": f"eval.synthetic.clip, split {split}, seed {seed}, clip {index}, {clip.seconds} seconds",
        "seconds": clip.seconds,
        "fps": FPS,
        "side": SIDE,
        "shows": [{"second": t.second, "what": t.glyph, "colour": t.colour} for t in clip.things],
        "questions": [
            {"kind": q.kind, "question": q.text, "answer": q.answer} for q in questions(clip, tuple(kinds.split(",")))
        ],
    }
    out.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
