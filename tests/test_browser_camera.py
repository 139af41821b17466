"""The webcam in headless Chromium: it is off as soon as anything else is wanted, and takes nothing from it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from visits import FIRST, Visit, answered, ask, cameras, finished, record, state, upload

pytestmark = pytest.mark.browser
LATE = 6000
"""Milliseconds after which a camera that is on would long have begun anew."""


@pytest.mark.parametrize("way", ["file", "example"])
def test_what_is_opened_while_the_webcam_records_is_watched(visit: Visit, way: str) -> None:
    page = visit()
    record(page)
    assert cameras(page) == ["live"]
    page.get_by_role("tab", name="Video").click()
    if way == "file":
        upload(page)
    else:
        page.locator(".pv-example").first.click()
    finished(page)
    page.wait_for_timeout(LATE)
    assert cameras(page) == ["ended"]
    expect(page.locator("#progress .pv-heading")).to_contain_text("Watched clip.mp4")
    ask(page, FIRST[0])
    answered(page, 0, FIRST[1])


def stop(page: Page, way: str) -> None:
    page.locator("#camera button[aria-label*='capture']" if way == "its own button" else way).first.click()


@pytest.mark.parametrize("way", ["#stop-watching", "#clear", "its own button"])
def test_whoever_stops_the_webcam_has_it_off_and_can_start_it_again(visit: Visit, way: str) -> None:
    page = visit()
    record(page)
    stop(page, way)
    state(page, "idle" if way == "#clear" else "stopped")
    page.wait_for_timeout(LATE)
    assert cameras(page) == ["ended"]
    state(page, "idle" if way == "#clear" else "stopped")
    record(page)
    assert cameras(page) == ["ended", "live"]


def test_a_recorder_that_is_left_has_its_camera_off(visit: Visit) -> None:
    page = visit()
    page.locator("#video [aria-label='Capture from camera']").click()
    page.locator("#video").get_by_text("Click to Access Webcam").click()
    page.locator("#video button[aria-label='start recording']").click()
    expect(page.locator("#video [title='stop recording']")).to_be_visible()
    assert cameras(page) and set(cameras(page)) == {"live"}
    page.locator("#clear").click()
    expect(page.locator("#video input[type=file]")).to_have_count(1)
    assert set(cameras(page)) == {"ended"}
