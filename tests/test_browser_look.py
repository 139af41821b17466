"""How the page looks and is used in headless Chromium: what is in sight, what times lead to, what may be clicked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import servers
from media import numbered, steady, write_video
from playwright.sync_api import Locator, Page, expect
from visits import FIRST, QUESTIONS, Visit, answered, ask, example, finished, greys, unfold, upload, watch_live

pytestmark = pytest.mark.browser
DESK, PHONE = {"width": 1280, "height": 720}, {"width": 390, "height": 844}


def box(part: Locator) -> dict[str, float]:
    found = part.bounding_box()
    assert found
    return found


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_question_and_progress_are_in_sight_wherever_one_reads(visit: Visit, size: dict[str, int]) -> None:
    """The box for the question always, also at the end of the page; the progress as the video begins."""
    page = visit(viewport=size)
    upload(page)
    finished(page)
    for down in (0, 10_000):
        page.evaluate(f"window.scrollTo(0, {down})")
        for part in ("#question textarea", "#ask"):
            expect(page.locator(part)).to_be_in_viewport(ratio=1)
    page.evaluate("window.scrollTo(0, 0)")
    expect(page.locator("#progress .pv-bar")).to_be_in_viewport()
    player, progress = box(page.locator("#video")), box(page.locator("#progress"))
    assert 0 <= progress["y"] - player["y"] - player["height"] < 40, "the progress stands right under the player"


def test_an_answer_on_a_phone_comes_into_sight(visit: Visit) -> None:
    page = visit(viewport=PHONE)
    example(page)
    page.evaluate("window.scrollTo(0, 0)")
    ask(page, FIRST[0])
    answered(page, 0, FIRST[1])
    expect(page.locator("#chat .pv-said")).to_be_in_viewport(ratio=1)
    bar = box(page.locator("#ask-bar"))
    said = box(page.locator("#chat .pv-said"))
    assert said["y"] + said["height"] <= bar["y"], "and not behind the question"


def test_the_times_of_an_answer_lead_to_their_seconds(visit: Visit) -> None:
    """The first shape, a cross, comes at second 4: that is what the answer rests on, and where its button leads."""
    page, (question, answer) = visit(), next(item for item in QUESTIONS if item[0].startswith("What shape is shown"))
    example(page)
    ask(page, question)
    answered(page, 0, answer)
    chip = page.locator("#chat .pv-at", has_text="4.0 s")
    chip.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#video video').currentTime === 4")
    assert page.locator("#video video").evaluate("video => video.paused")
    expect(page.locator("#chat .pv-times")).to_contain_text("watched up to 11.5 s")
    assert "<" not in (page.locator("#chat [data-testid=bot]").get_attribute("aria-label") or "<")


def test_suggestions_are_asked_on_click_where_they_fit_and_a_strange_clip_is_warned_of(
    visit: Visit, tmp_path: Path
) -> None:
    page, path = visit(), tmp_path / "strange.mp4"
    expect(page.locator(".pv-ask")).to_have_count(0)
    example(page)
    page.locator(".pv-ask", has_text=FIRST[0]).click()
    answered(page, 0, FIRST[1])
    expect(page.locator(".pv-warning")).to_have_count(0)
    write_video(path, steady(8, 2), pictures=[numbered(i) for i in range(8)], rate=2)
    upload_again(page, path)
    expect(page.locator(".pv-warning")).to_contain_text("can't know this video")
    expect(page.locator(".pv-warning")).to_be_in_viewport(ratio=1)
    expect(page.locator(".pv-ask")).to_have_count(0)


def upload_again(page: Page, path: Path) -> None:
    page.locator("#clear").click()
    expect(page.locator("#progress [data-state]")).to_have_attribute("data-state", "idle")
    upload(page, path)
    finished(page)


def test_what_stops_can_be_used_when_there_is_something_to_stop(visit: Visit, tmp_path: Path) -> None:
    page, path = visit(), tmp_path / "long.mp4"
    stop, over, again, answer = (
        page.locator(f"#{name}") for name in ("stop-watching", "clear", "again", "stop-answer")
    )
    unfold(page, "settings")
    for button in (stop, over, again, answer):
        expect(button).to_be_disabled()
    write_video(path, steady(2400, 2), pictures=[numbered(i % 256) for i in range(2400)], rate=2)
    upload(page, path)
    for button in (stop, over, again):
        expect(button).to_be_enabled()
    stop.click()
    expect(stop).to_be_disabled()
    expect(over).to_be_enabled()
    page.evaluate(
        """() => { window.seen = []; const stop = document.querySelector("#stop-answer");
        new MutationObserver(() => window.seen.push(stop.disabled)).observe(stop, {attributes: true}); }"""
    )
    ask(page, FIRST[0])
    expect(page.locator("#chat .pv-times")).to_be_visible()
    expect(answer).to_be_disabled()
    assert page.evaluate("window.seen.includes(false)"), "it could be used while the answer was written"
    over.click()
    for button in (stop, over, again, answer):
        expect(button).to_be_disabled()


def test_settings_are_set_by_presets_and_reset_and_used_to_watch_again(visit: Visit) -> None:
    page = visit()
    example(page)
    remembered = page.locator("#progress dl div").filter(has_text="Remembered").locator("dd")
    expect(remembered).to_have_text("24 of 192 pieces")  # an eighth
    unfold(page, "settings")
    kept = page.get_by_label("Pieces kept, from stage to stage")
    rate = page.get_by_label("Frames a second")
    page.locator("#preset").get_by_text("Drop nothing").click()
    expect(kept).to_have_value("all: nothing is dropped")
    page.locator("#again").click()
    expect(remembered).to_have_text("192 of 192 pieces")
    expect(page.locator("#video video")).to_have_count(1)
    page.locator("#preset").get_by_text("Fast changes").click()
    expect(rate).to_have_value("8")
    page.locator("#reset").click()
    expect(rate).to_have_value("0")
    expect(kept).to_have_value("a half, then a quarter, then an eighth")
    expect(page.locator("#preset").get_by_role("radio", name="Usual")).to_be_checked()


def test_standing_questions_go_one_by_one_and_an_alert_says_what_is_so(visit: Visit) -> None:
    page = visit()
    unfold(page, "tell")
    for question in ("Does a fish appear?", "Is a key shown?", "Does a cross appear?"):
        page.locator("#tell-me textarea, #tell-me input").first.fill(question)
        page.locator("#look-out").click()
        expect(page.locator("#standing li", has_text=question)).to_be_visible()
    page.get_by_role("button", name="Remove: Is a key shown?").click()
    expect(page.locator("#standing li")).to_have_count(2)
    expect(page.locator("#standing")).not_to_contain_text("key")
    example(page)
    alert = page.get_by_role("alert").filter(has_text="Does a fish appear?")
    expect(alert).to_be_visible()
    seconds = alert.locator(".pv-at").first.get_attribute("data-at")
    alert.locator(".pv-at").first.click()
    page.wait_for_function(f"document.querySelector('#video video').currentTime.toFixed(2) === '{seconds}'")
    page.get_by_role("button", name="Remove: Does a fish appear?").click()
    expect(alert).to_have_count(0)


def test_a_network_stream_shows_its_last_picture(visit: Visit, tmp_path: Path) -> None:
    """Of four seconds at four pictures a second, each a grey of its own; then the source is silent."""
    page = visit()
    page.get_by_role("tab", name="Live").click()
    with servers.serving(servers.send(greys(tmp_path), "stall")) as server:
        watch_live(page, server.address)
        picture = page.locator("#last-picture img")
        expect(picture).to_have_attribute("alt", re.compile(r", at [7-9]\.\d s$"))
        expect(page.locator("#camera")).to_be_hidden()
        size = picture.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")
        assert size[0] > 0 and size[1] > 0
        page.locator("#clear").click()
        expect(picture).to_have_count(0)
        expect(page.locator("#camera")).to_be_visible()


def test_buttons_are_large_enough_for_fingers_on_a_phone(visit: Visit) -> None:
    page = visit(viewport=PHONE, has_touch=True)
    example(page)
    ask(page, FIRST[0])
    expect(page.locator("#chat .pv-at")).not_to_have_count(0)
    for name in ("tell", "settings"):
        unfold(page, name)
    small = []
    for tab in ("Live", "Pictures", "Video"):
        page.get_by_role("tab", name=tab).click()
        small += page.evaluate(
            """() => [...document.querySelectorAll(".gradio-container button")]
            .filter(button => button.checkVisibility() && !button.closest("footer"))
            .map(button => [button.innerText || button.ariaLabel, button.getBoundingClientRect().height])
            .filter(([, height]) => height < 44)"""
        )
    assert small == []
