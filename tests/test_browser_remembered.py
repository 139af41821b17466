"""Moments of a video in headless Chromium: what is kept of one, over the player, and of all, on the time line."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import servers
from playwright.sync_api import Page, expect
from visits import CLIP, FIRST, Visit, answered, ask, example, finished, greys, watch_live

import pdrop_video as pv
from demos.settings import Settings
from pdrop_video.plots import Album

pytestmark = pytest.mark.browser


@cache
def plain() -> tuple[pv.VideoStream, Album]:
    """The example as the page watches it."""
    lm, album = pv.load(), Album()
    stream = Settings().open(lm)
    with pv.open_video(CLIP, lm.adapter.fps, Settings().chunk) as reader:
        for chunk in reader:
            stream.push(chunk)
            album.add(stream, chunk)
    return stream, album


def dark(page: Page) -> list[list[bool]]:
    """The places over the player that are made dark [rows, columns]."""
    page.locator(".pv-mask").wait_for()
    return page.locator(".pv-mask").evaluate(
        """mask => [...Array(mask.height).keys()].map(y => [...Array(mask.width).keys()].map(
            x => mask.getContext("2d").getImageData(x, y, 1, 1).data[3] > 0))"""
    )


def test_the_kept_places_of_a_moment_lie_over_the_player(visit: Visit) -> None:
    page = visit()
    example(page)
    ask(page, FIRST[0])
    answered(page, 0, FIRST[1])
    page.locator("#chat .pv-at").first.click()
    stream, album = plain()
    overlays = album.at(stream, 0)
    for overlay in reversed(overlays):
        page.locator(f"#seen [data-stage='{overlay.stage}']").click()
        expect(page.locator("#seen p span:visible")).to_contain_text(f"{overlay.kept} of 16 pieces kept")
        assert np.array(dark(page)).sum() == 16 - overlay.kept
    page.locator(f"#seen [data-stage='{overlays[-1].stage}']").click()
    bright = overlays[-1].picture.reshape(4, -1, 4, overlays[-1].picture.shape[1] // 4, 3).mean((1, 3, 4))
    assert bright[~np.array(dark(page))].min() > bright[np.array(dark(page))].max(), "the same as the picture's own"
    video, mask = (page.locator(part).bounding_box() for part in ("#video video", ".pv-mask"))
    assert video and mask
    assert mask["height"] == pytest.approx(video["height"], abs=1), "a square picture fills the player's height"
    assert mask["width"] == pytest.approx(mask["height"], abs=1)
    assert mask["x"] + mask["width"] / 2 == pytest.approx(video["x"] + video["width"] / 2, abs=1)
    page.locator("#video video").evaluate("video => video.play()")
    expect(page.locator(".pv-mask")).to_have_count(0)


def test_the_time_line_says_what_is_remembered_and_leads_there(visit: Visit) -> None:
    page = visit()
    example(page)
    stream, album = plain()
    bars = page.locator(".pv-stretch")
    expect(bars).to_have_count(len(album.seconds))
    for bar, (seconds, shares) in zip(bars.all(), album.remembered(stream), strict=True):
        assert bar.get_attribute("data-at") == f"{seconds:.2f}"
        heights = bar.locator("i").evaluate_all("parts => parts.map(part => part.style.height)")
        assert [float(height.rstrip("%")) for height in heights] == pytest.approx([100 * s for s in shares], abs=0.1)
    bars.first.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    at = float(bars.nth(4).get_attribute("data-at") or "nan")
    page.wait_for_function(f"Math.abs(document.querySelector('#video video').currentTime - {at}) < 0.01")
    expect(page.locator("#seen")).to_contain_text(f"Kept of the picture at {at:.1f} s")
    page.locator("#seen [data-hide]").click()
    expect(page.locator(".pv-mask")).to_have_count(0)
    page.locator("#clear").click()
    expect(bars).to_have_count(0)


def test_a_moment_of_a_stream_without_a_player_is_shown_as_a_picture(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    page.get_by_role("tab", name="Live").click()
    with servers.serving(servers.send(greys(tmp_path), "stall")) as server:
        watch_live(page, server.address)
        expect(page.locator(".pv-stretch")).not_to_have_count(0)
        page.locator("#stop-watching").click()
        expect(page.locator("#progress [data-state]")).to_have_attribute("data-state", "stopped")
        page.locator(".pv-stretch").nth(1).click()
        expect(page.locator("#seen img:visible")).to_have_count(1)


def test_the_gallery_has_two_clips_that_the_model_knows_and_a_real_one(visit: Visit) -> None:
    page = visit()
    expect(page.locator(".pv-example")).to_have_text(["Example: things", "Example: numbers", "Real: the Earth"])
    for number in (1, 2):
        example(page, number)
        page.wait_for_function("document.querySelector('#video video')?.videoWidth > 0")
        expect(page.locator(".pv-ask")).to_have_count(6 if number == 1 else 0)
        expect(page.locator(".pv-warning")).to_have_count(0 if number == 1 else 1)
        if number == 1:
            page.locator(".pv-ask").nth(2).click()
            answered(page, 0, "2")  # the first digit
    finished(page)
