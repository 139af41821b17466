"""What is compared and what is taken away, in headless Chromium: two recipes side by side, files of a conversation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect
from visits import FIRST, Visit, answered, ask, example, unfold

pytestmark = pytest.mark.browser


def test_two_recipes_stand_side_by_side(visit: Visit) -> None:
    page = visit()
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-question textarea, #compare-question input").first.fill(FIRST[0])
    page.locator("#compare").click()
    expect(page.get_by_text("Choose a video first; then compare.")).to_be_visible()
    page.get_by_role("tab", name="Video").click()
    example(page)
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare").click()
    rows = page.locator("#compared tr")
    expect(page.locator("#compared th[scope=col]")).to_have_text(["As watched, with dropping", "Without dropping"])
    expect(rows.filter(has_text="Answer").locator("td")).to_have_text([FIRST[1], FIRST[1]])
    expect(rows.filter(has_text="Pieces remembered").locator("td")).to_have_text(["24 of 192", "192 of 192"])
    for picture in page.locator("#compared img").all():
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    expect(page.locator("#compared tr", has_text="Kept at 0.0 s").locator("td")).to_have_text(
        ["4 of 16 pieces kept", "16 of 16 pieces kept"]
    )


def test_a_conversation_is_saved_as_a_file(visit: Visit) -> None:
    page = visit()
    example(page)
    unfold(page, "saving")
    page.locator("#save-md").click()
    expect(page.get_by_text("There is no conversation yet; ask something first.")).to_be_visible()
    ask(page, FIRST[0])
    answered(page, 0, FIRST[1])
    files = {}
    for kind in ("md", "json"):
        with page.expect_download() as coming:
            page.locator(f"#save-{kind}").click()
        assert coming.value.suggested_filename == f"clip.{kind}"
        files[kind] = Path(coming.value.path()).read_text("utf-8")
    assert f"**{FIRST[0]}**\n\n{FIRST[1]}\n" in files["md"]
    (turn,) = json.loads(files["json"])["turns"]
    assert turn["answer"]["text"].strip() == FIRST[1] and turn["answer"]["evidence"][0]["weight"]


def test_a_stream_is_taken_away_and_opened_again_in_another_page(visit: Visit) -> None:
    page, other = visit(), visit()
    example(page)
    unfold(page, "saving")
    with page.expect_download() as coming:
        page.locator("#save-stream").click()
    assert coming.value.suggested_filename == "clip.pdrop"
    path = Path(coming.value.path()).rename(Path(coming.value.path()).with_name("mine.pdrop"))
    unfold(other, "saving")
    other.locator("#saving input[type=file]").set_input_files(path)
    expect(other.locator("#progress")).to_contain_text("Watched mine: 11.5 s")
    ask(other, FIRST[0])
    answered(other, 0, FIRST[1])
    unfold(other, "settings")
    expect(other.locator("#again")).to_be_disabled()
