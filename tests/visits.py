"""What a visitor does in the browser; the fixtures that open a page are in conftest.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from media import numbered, steady, write_video
from playwright.sync_api import Page, expect

from demos.gallery import CLIPS
from demos.screenshots import PATIENCE

CLIP = CLIPS / "clip.mp4"
QUESTIONS = [(item["question"], item["answer"]) for item in json.loads((CLIPS / "clip.json").read_text())["questions"]]
FIRST, LAST = QUESTIONS[0], QUESTIONS[1]
Visit = Callable[..., Page]
CAMERAS = """
window.cameras = [];
const given = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async wanted => {
    const stream = await given(wanted);
    window.cameras.push(...stream.getTracks());
    return stream;
};
"""
"""Keeps a list of what the page was given of cameras and microphones."""


def greys(folder: Path) -> bytes:
    """A stream of ten seconds at four pictures a second, each a grey of its own."""
    pictures = [numbered(6 * i) for i in range(40)]
    path = write_video(folder / "stream.ts", steady(40, 4), pictures=pictures, rate=4, options={"g": "4", "bf": "0"})
    return path.read_bytes()


def watch_live(page: Page, address: str) -> None:
    page.locator("#live textarea, #live input").first.fill(address)
    page.locator("#live button").click()


def upload(page: Page, path: Path = CLIP) -> None:
    page.locator("#video input[type=file]").set_input_files(path)


def finished(page: Page) -> None:
    expect(page.locator("#progress [data-state]")).to_have_attribute("data-state", "done", timeout=PATIENCE)


def example(page: Page, number: int = 0) -> None:
    page.locator(".pv-example").nth(number).click()
    finished(page)


def ask(page: Page, question: str) -> None:
    page.locator("#question textarea").fill(question)
    page.locator("#ask").click()


def answered(page: Page, number: int, text: str) -> None:
    said = page.locator("#chat .bot.message").nth(number).locator(".pv-said")
    expect(said).to_have_text(re.compile(rf"^\s*{re.escape(text)}\s*$"))


def frames(page: Page) -> int:
    return int(page.locator("#progress dd").first.inner_text().replace(",", ""))


def unfold(page: Page, name: str) -> None:
    """Open a part that is folded."""
    page.locator(f"#{name} button").first.click()


def state(page: Page, expected: str) -> None:
    expect(page.locator("#progress [data-state]")).to_have_attribute("data-state", expected, timeout=PATIENCE)


def record(page: Page) -> None:
    """Start the webcam, and let it be watched."""
    page.get_by_role("tab", name="Live").click()
    page.locator("#camera").get_by_text("Click to Access Webcam").click()
    page.locator("#camera button[aria-label*='capture']").first.click()
    state(page, "watching")
    expect(page.locator("#progress dd").first).to_have_text(re.compile(r"\d"))


def cameras(page: Page) -> list[str]:
    """What became of all cameras and microphones that the page was given: "live", or "ended"."""
    return list(page.evaluate("window.cameras.map(track => track.readyState)"))
