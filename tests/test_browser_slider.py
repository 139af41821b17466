"""The slider of the pictures in headless Chromium, and the panel's figures."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from playwright.sync_api import Page, expect
from visits import Visit, example

pytestmark = pytest.mark.browser
TICKS = 7000
"""Milliseconds in which the pictures are drawn twice."""


def shown(page: Page) -> float:
    said = page.locator("#frames img").first.get_attribute("alt")
    return float(re.search(r"at ([\d.]+) s", str(said))[1])  # type: ignore[index]


def test_the_slider_moves_from_picture_to_picture_and_is_left_alone_while_it_is_dragged(visit: Visit) -> None:
    page = visit()
    example(page)
    memory = page.locator("#progress dl div").filter(has_text="Memory").locator("dd").inner_text()
    held, bound = re.findall(r"[\d.]+", memory)
    assert float(held) <= float(bound) and len(held.partition(".")[2]) == len(bound.partition(".")[2])
    page.get_by_role("tab", name="Pictures").click()
    slider, number = page.locator("#moment input[type=range]"), page.locator("#moment input[type=number]")
    expect(slider).to_be_enabled()
    moments = [shown(page)]
    for _ in range(4):
        slider.press("ArrowRight")
        expect(page.locator("#frames img").first).not_to_have_attribute(
            "alt", re.compile(rf"at {re.escape(str(moments[-1]))} s")
        )
        moments.append(shown(page))
        assert float(number.input_value()) == moments[-1], "it stands at a picture's own time"
    steps = {round(later - earlier, 3) for earlier, later in pairwise(moments)}
    assert steps == {float(slider.get_attribute("step"))}  # type: ignore[arg-type]
    place = slider.bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + 0.2 * place["width"], place["y"] + place["height"] / 2)
    page.mouse.down()
    page.mouse.move(place["x"] + 0.8 * place["width"], place["y"] + place["height"] / 2, steps=5)
    dragged = slider.input_value()
    assert float(dragged) > moments[-1]
    page.wait_for_timeout(TICKS)
    assert slider.input_value() == dragged
    page.mouse.up()
    expect(number).to_have_value(dragged)
