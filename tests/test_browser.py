"""The page in headless Chromium with the built-in model: what a visitor does, and what must then be on the screen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import servers
from media import numbered, steady, write_video
from playwright.sync_api import expect
from visits import FIRST, LAST, Visit, answered, ask, finished, frames, record, unfold, upload

from demos.screenshots import serving

pytestmark = pytest.mark.browser


def test_a_clip_is_uploaded_and_asked_twice(visit: Visit) -> None:
    page = visit()
    upload(page)
    finished(page)
    for number, (question, answer) in enumerate((FIRST, LAST)):
        ask(page, question)
        answered(page, number, answer)


def test_a_question_during_watching_is_answered_before_its_end(visit: Visit, tmp_path: Path) -> None:
    page, path = visit(), tmp_path / "long.mp4"
    write_video(path, steady(2400, 2), pictures=[numbered(i % 256) for i in range(2400)], rate=2)
    upload(page, path)
    expect(page.locator("#progress dd").first).to_have_text(re.compile(r"\d"))
    ask(page, FIRST[0])
    answered_text = re.compile(r"^\s*[a-z0-9]+\s*$")
    expect(page.locator("#chat .bot.message .pv-said").first).to_have_text(answered_text)
    assert page.locator("#progress [data-state]").get_attribute("data-state") == "watching"
    before = frames(page)
    page.locator("#stop-watching").click()
    expect(page.locator("#progress [data-state]")).to_have_attribute("data-state", "stopped")
    assert before <= frames(page) < 2400
    page.locator("#clear").click()
    expect(page.locator("#progress [data-state]")).to_have_attribute("data-state", "idle")
    expect(page.locator("#chat .bot.message")).to_have_count(0)
    upload(page, path)
    expect(page.locator("#progress [data-state]")).to_have_attribute("data-state", "watching")
    page.locator("#clear").click()
    expect(page.locator("#progress [data-state]")).to_have_attribute("data-state", "idle")
    page.wait_for_timeout(1500)  # what was asked for before is answered by then
    expect(page.locator("#progress [data-state]")).to_have_attribute("data-state", "idle")


def test_what_is_left_out_is_chosen_and_shown(visit: Visit, tmp_path: Path) -> None:
    """A still picture of four seconds, two frames a second: a step of two is looked at, six are left out."""
    page, path = visit(), tmp_path / "still.mp4"
    write_video(path, steady(32, 8), pictures=[numbered(5)] * 32, rate=8)
    page.get_by_text("Settings, for the next video").click()
    for label, choice in (("Leaving out pictures", "those that show"), ("Leaving out pieces", "three of four")):
        page.get_by_label(label).click()
        page.get_by_role("option").filter(has_text=choice).click()
    upload(page, path)
    finished(page)
    assert frames(page) == 8
    expect(page.locator("#progress dl div").filter(has_text="Left out").locator("dd")).to_have_text("6")
    page.get_by_role("tab", name="Pictures").click()
    page.locator("#moment input[type=number]").fill("3")
    page.locator("#moment input[type=number]").press("Enter")
    expect(page.locator("#frames figcaption").first).to_contain_text("as seen at 0.0 s")


def test_the_pictures_are_drawn(visit: Visit) -> None:
    page = visit()
    page.locator(".pv-example").first.click()
    finished(page)
    ask(page, FIRST[0])
    answered(page, 0, FIRST[1])
    page.get_by_role("tab", name="Pictures").click()
    expect(page.locator("#frames img")).to_have_count(4)
    expect(page.locator(".pv-charts img")).to_have_count(3)
    for image in page.locator("#frames img, .pv-charts img").all():
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_nothing_overlaps_on_a_phone(visit: Visit) -> None:
    page = visit()
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator(".pv-example").first.click()
    finished(page)
    ask(page, FIRST[0])
    answered(page, 0, FIRST[1])
    for tab in ("Live", "Pictures", "Video"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    messages = page.locator("#chat .bubble-wrap").bounding_box()
    for name in ("[data-testid=block-label]", ".icon-button-wrapper.top-panel"):
        over = page.locator(f"#chat {name}").bounding_box()
        assert messages and over and over["y"] + over["height"] <= messages["y"]


def test_two_visitors_have_sessions_of_their_own(visit: Visit) -> None:
    one, two = visit(), visit()
    upload(one)
    finished(one)
    ask(two, FIRST[0])
    expect(two.get_by_text("Choose a video first; then ask about it.")).to_be_visible()
    upload(two)
    finished(two)
    ask(one, FIRST[0])
    ask(two, LAST[0])
    answered(one, 0, FIRST[1])
    answered(two, 0, LAST[1])
    expect(one.locator("#chat")).not_to_contain_text(LAST[0])


def test_a_bad_file_and_a_forbidden_path_are_one_sentence_each(visit: Visit, tmp_path: Path) -> None:
    page, path = visit(), tmp_path / "bad.mp4"
    path.write_bytes(b"no video at all" * 100)
    upload(page, path)
    expect(page.locator("#progress [data-state]")).to_have_attribute("data-state", "failed")
    expect(page.locator("#progress .pv-error")).to_contain_text("bad.mp4")
    expect(page.locator("#video video")).to_have_count(0)
    expect(page.get_by_text("not playable")).to_have_count(0)  # nor anything else besides the one sentence
    for text, why in (("../../etc/passwd", "There is no video"), ("file:///etc/passwd", "expected an address of")):
        page.locator("#address textarea, #address input").first.fill(text)
        page.locator("#address button").click()
        expect(page.get_by_text(why).first).to_be_visible()


def test_text_stays_text(visit: Visit) -> None:
    page = visit()
    page.locator(".pv-example").first.click()
    finished(page)
    ask(page, "<img src=x onerror=\"document.title='broken'\">")
    expect(page.locator("#chat .user.message").first).to_have_text(re.compile("<img src=x onerror"))
    expect(page.locator("#chat .pv-said").first).to_have_text(
        re.compile(r"^\s*(\w+|\(The model ended its answer without a word\.\))\s*$")
    )
    assert page.locator("#chat .user.message img").count() == 0
    assert page.title() == "Ask a video"


def test_a_reload_gives_the_session_back(visit: Visit) -> None:
    page = visit()
    upload(page)
    finished(page)
    ask(page, FIRST[0])
    answered(page, 0, FIRST[1])
    page.reload()
    finished(page)
    answered(page, 0, FIRST[1])
    ask(page, LAST[0])
    answered(page, 1, LAST[1])


def test_what_is_too_big_is_said_so(visit: Visit, tmp_path: Path) -> None:
    page, path = visit(), tmp_path / "big.mp4"
    path.write_bytes(bytes(3 * 2**20))
    upload(page, path)
    expect(page.get_by_text("File(s) exceed the maximum allowed size of 2.0 Mb").first).to_be_visible()
    upload(page)  # and nothing else has changed
    finished(page)


def test_a_live_source_stalls_comes_back_and_is_asked_meanwhile(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "stream.ts"
    times, shown = steady(240, 4), [numbered(i % 256) for i in range(240)]
    data = write_video(path, times, pictures=shown, rate=4, options={"g": "4", "bf": "0"}).read_bytes()
    page = visit()
    page.get_by_role("tab", name="Live").click()
    with servers.serving(servers.send(data, "stall"), servers.send(data, "stall")) as server:
        page.locator("#live textarea, #live input").first.fill(server.address)
        page.locator("#live button").click()
        heading = page.locator("#progress .pv-heading")
        expect(heading).to_contain_text(f"Waiting for {server.address}")
        expect(page.locator("#progress")).to_contain_text("No picture has come for")
        ask(page, FIRST[0])
        expect(page.locator("#chat .pv-said").first).to_have_text(re.compile(r"^\s*\w+\s*$"))
        expect(heading).to_contain_text("Waiting for")
        expect(page.locator("#progress")).to_contain_text("The connection was lost and made again 1 time.")
        expect(heading).to_have_text(re.compile(r"^Waiting for .+: \d+:\d\d watched$"))  # the first gave less than 1:00
        page.locator("#stop-watching").click()
        expect(page.locator("#progress [data-state]")).to_have_attribute("data-state", "stopped")
        ask(page, LAST[0])
        expect(page.locator("#chat .pv-said").nth(1)).to_have_text(re.compile(r"^\s*\w+\s*$"))


def test_who_has_watched_blocks_nobody_and_who_leaves_the_line_makes_room(visit: Visit) -> None:
    """A webcam holds the only seat until it is stopped; who looks at what was watched holds none, and is answered."""
    with serving("--seats", "1", "--leave-seconds", "20") as address:
        looking, recording, leaving, last = (visit(address) for _ in range(4))
        upload(looking)
        finished(looking)
        record(recording)
        for page, number in ((leaving, 1), (last, 2)):
            upload(page)
            expect(page.locator("#progress")).to_contain_text(f"you are number {number} in the line")
        looking.reload()
        finished(looking)
        ask(looking, FIRST[0])
        answered(looking, 0, FIRST[1])
        leaving.close()
        expect(last.locator("#progress")).to_contain_text("you are number 1 in the line")
        expect(looking.locator("#progress [data-state]")).to_have_attribute(
            "data-state", "done"
        )  # its reload took less
        recording.locator("#stop-watching").click()
        finished(last)
        ask(looking, LAST[0])
        answered(looking, 1, LAST[1])


def test_the_webcam_is_watched_and_looked_out_with(visit: Visit) -> None:
    page = visit()
    unfold(page, "tell")
    page.get_by_role("tab", name="Live").click()
    page.locator("#tell-me textarea, #tell-me input").first.fill(FIRST[0])
    page.locator("#wanted textarea, #wanted input").first.fill("no such answer")
    page.locator("#look-out").click()
    expect(page.locator("#standing li")).to_have_count(1)
    page.locator("#camera").get_by_text("Click to Access Webcam").click()
    page.locator("#camera button[aria-label*='capture'], #camera button[aria-label*='record']").first.click()
    expect(page.locator("#progress dd").first).to_have_text(re.compile(r"\d"))
    expect(page.locator("#standing")).to_contain_text("likely")
    expect(page.locator(".pv-warning")).to_be_visible()  # it knows synthetic clips alone
    page.locator("#stop-watching").click()
    expect(page.locator("#progress [data-state]")).to_have_attribute("data-state", "stopped")
