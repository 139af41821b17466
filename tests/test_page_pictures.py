"""What the page says of a real clip behind gates and reducers: what was skipped, merged and kept."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

import pdrop_video as pv
from demos import views
from demos.actions import Actions
from demos.gallery import CLIPS
from demos.sessions import Sessions
from demos.settings import Settings
from demos.uploads import Uploads
from pdrop_video import plots
from pdrop_video.guard import Guard
from pdrop_video.plots import Fate

built_in = cache(pv.load)


@pytest.mark.parametrize("reducer", ["evs:keep=0.25", "lrcp", "omnirefine", "aot:anchors=features"])
def test_a_visitor_is_told_what_was_skipped_merged_and_kept(reducer: str, tmp_path: Path) -> None:
    actions = Actions(Sessions({"built-in": built_in}), Guard((CLIPS,)), Uploads(tmp_path))
    settings = Settings(fps=4, gate="surprise", reducer=reducer)
    session = actions.begin("", str(CLIPS / "clip.mp4"), settings)
    session.watcher.join(60)
    album, seen = session.watcher.album, set()
    for seconds in album.seconds:
        shown, overlays = views.overlays(session, seconds), album.at(session.stream, seconds)
        assert shown.count("<figure>") == len(overlays) == 4
        for overlay in overlays:
            seen |= {Fate(fate) for fate in overlay.fates.flat}
            kept, means = overlay.count(Fate.KEPT, Fate.MEAN), overlay.count(Fate.MEAN)
            said = f"{kept} of 16 pieces kept" if kept else "no piece kept"
            said = "not read yet" if overlay.count(Fate.WAITS) else said
            assert shown.count(f'alt="stage {overlay.stage + 1} at {seconds:.1f} s: {said}') == 1
            assert ("a mean of" in plots.wording.kept(overlay)) == bool(means)
            assert ("left this picture out; the one at" in shown) == overlay.skipped
            for fate, words in (
                (Fate.LEFT_OUT, "the reducer left {} piece"),
                (Fate.MERGED, "the reducer merged {} piece"),
            ):
                count = overlay.count(fate)
                assert (words.format(count) in shown) == bool(count)
        legend = shown.partition("pv-legend")[2]
        skipped = overlays[0].skipped
        assert ("left out by the gate" in legend) == skipped
        assert ("merged into other pieces" in legend) == any(overlay.count(Fate.MERGED) for overlay in overlays)
    assert session.stream.status.skipped > 0
    assert (Fate.LEFT_OUT if reducer.startswith("evs") else Fate.MERGED) in seen
    assert reducer.startswith("evs") or Fate.MEAN in seen
