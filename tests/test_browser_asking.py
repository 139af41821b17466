"""Questions in headless Chromium: those that can't be asked now, that are too long, and those that stand."""

from __future__ import annotations

import re

import pytest
import servers
from playwright.sync_api import expect
from visits import FIRST, Visit, ask, example, finished, unfold

pytestmark = pytest.mark.browser


def test_what_cannot_be_asked_is_said_and_stays_in_its_box(visit: Visit) -> None:
    page = visit()
    box = page.locator("#question textarea")
    with servers.serving(servers.send(b"", "stall")) as server:  # an answer waits for a first picture
        page.get_by_role("tab", name="Live").click()
        page.locator("#live textarea, #live input").first.fill(server.address)
        page.locator("#live button").click()
        expect(page.locator("#progress .pv-heading")).to_contain_text("Opening")
        ask(page, FIRST[0])
        expect(page.locator("#chat .bot.message")).to_have_count(1)
        for press in (page.locator("#ask").click, lambda: box.press("Enter")):
            box.fill("And then?")
            press()
            expect(page.get_by_text("One answer at a time: wait for the one").first).to_be_visible()
            expect(box).to_have_value("And then?")
            page.locator(".toast-close").first.click()
        page.locator("#clear").click()
    page.get_by_role("tab", name="Video").click()
    example(page)
    box.fill("")
    box.focus()
    page.keyboard.insert_text("x" * 2001)
    expect(box).to_have_value("x" * 2001)  # and not cut
    page.locator("#ask").click()
    expect(page.get_by_text("question has 2,001 characters; expected 2,000 at most.").first).to_be_visible()
    expect(box).to_have_value("x" * 2001)
    expect(page.locator("#chat .bot.message")).to_have_count(0)


def test_a_standing_question_goes_by_yes_against_no(visit: Visit) -> None:
    """The fish of the example comes at 9 s; a key never does."""
    page = visit()
    unfold(page, "tell")
    for number, question in enumerate(("Is a fish shown?", "Is a key shown?")):
        page.locator("#tell-me textarea, #tell-me input").first.fill(question)
        page.locator("#look-out").click()
        expect(page.locator("#standing li")).to_have_count(number + 1)
    example(page)
    finished(page)
    fish, key = page.locator("#standing li").all()
    expect(fish).to_contain_text(re.compile(r"since (9|1\d)\.\d s; now (9\d|100)% likely"))
    expect(key).to_contain_text(re.compile(r"not yet; now \d% likely"))
