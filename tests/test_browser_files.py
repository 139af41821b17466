"""Files in headless Chromium: of any kind, dropped or chosen, also where a video is shown; and what the player does."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import av
import numpy as np
import pytest
from media import steady, write_video
from PIL import Image
from playwright.sync_api import Page, expect
from visits import CLIP, Visit, example, finished, state, upload

pytestmark = pytest.mark.browser
_DROP = """([name, content]) => {
    const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0)), carried = new DataTransfer();
    carried.items.add(new File([bytes], name));
    const place = document.querySelector("#video video, #video button");
    for (const kind of ["dragenter", "dragover", "drop"])
        place.dispatchEvent(new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
}"""


def drop(page: Page, path: Path) -> None:
    page.evaluate(_DROP, [path.name, base64.b64encode(path.read_bytes()).decode()])


def watched(page: Page, name: str) -> None:
    expect(page.locator("#progress .pv-heading")).to_contain_text(f"Watched {name}")
    finished(page)


def gif(path: Path) -> Path:
    pictures = [Image.fromarray(np.full((64, 64, 3), 10 * shade, np.uint8)) for shade in range(8)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=500)
    return path


def sound(path: Path) -> Path:
    with av.open(str(path), "w", format="mp4") as written:
        stream = written.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        written.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def test_a_shown_video_is_replaced_in_one_step_by_a_file_of_any_kind(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    example(page)
    expect(page.locator("#video video")).to_have_count(1)
    drop(page, gif(tmp_path / "moving.gif"))
    watched(page, "moving.gif")
    expect(page.get_by_text("Browsers can't play .gif files").first).to_be_visible()
    expect(page.locator("#video video")).to_have_count(0)
    upload(page, Path(shutil.copy(CLIP, tmp_path / "CAPITAL.MP4")))
    watched(page, "CAPITAL.MP4")
    assert page.locator("#video video").evaluate("video => new Promise(r => { video.onloadeddata = r; video.load(); })")
    with page.expect_file_chooser() as choosing:
        page.locator("#another").click()
    choosing.value.set_files(write_video(tmp_path / "stream.ts", steady(20, 2), rate=2))
    watched(page, "stream.ts")
    drop(page, sound(tmp_path / "only.m4a"))
    state(page, "failed")
    expect(page.locator("#progress .pv-error")).to_have_text(
        "only.m4a has no moving pictures, only: audio; expected a file with a video stream."
    )


def test_a_picker_that_comes_to_nothing_leaves_the_video_as_it_is(visit: Visit) -> None:
    page = visit()
    with page.expect_file_chooser() as choosing:
        page.locator("#video button[aria-dropeffect]").click()
    assert choosing.value.element.get_attribute("accept") is None, "what it may be is for the server to say"
    example(page)
    with page.expect_file_chooser():
        page.locator("#another").click()
    page.wait_for_timeout(500)
    expect(page.locator("#video video")).to_have_count(1)


def test_the_player_cuts_nothing_and_asks_nobody_else(visit: Visit) -> None:
    """What gradio's player trims is not what was watched, and its program for it comes from another server."""
    page, asked = visit(), set()
    page.on("request", lambda request: asked.add(urlsplit(request.url).hostname))
    example(page)
    expect(page.locator("#video [aria-label='Clear']")).to_be_visible()
    for name in ("Trim video to selection", "Reset video to initial value"):
        expect(page.locator(f"#video [aria-label='{name}']")).to_be_hidden()
    page.wait_for_timeout(1000)
    assert asked - {None} == {"127.0.0.1"}
