"""The page for those who use a keyboard or a screen reader: axe-core finds nothing wrong, and Tab reaches all."""

from __future__ import annotations

from importlib.resources import files

import pytest
from playwright.sync_api import Page, expect
from visits import FIRST, Visit, answered, ask, example, unfold

pytestmark = pytest.mark.browser
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


def faults(page: Page) -> list[str]:
    """What axe-core finds wrong, each with the part that it is about."""
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text("utf-8"))
    found = page.evaluate("rules => axe.run(document, {runOnly: rules})", [*RULES])
    assert len(found["passes"]) > 20, "the rules were applied"
    return [
        f"{fault['id']}: {node['target']} {node['html'][:200]}"
        for fault in found["violations"]
        for node in fault["nodes"]
    ]


def settled(page: Page) -> Page:
    """The page once nothing on it is being loaded any more."""
    expect(page.get_by_role("tab", name="Video")).to_be_visible()
    page.locator(".loading").wait_for(state="detached")
    return page


def test_axe_finds_a_fault_where_there_is_one(visit: Visit) -> None:
    page = settled(visit())
    page.evaluate("document.querySelector('#ask').style.color = '#7f7fff'")
    page.evaluate(
        "document.querySelector('#question textarea').closest('label').replaceWith(Object.assign("
        "document.createElement('input'), {id: 'nameless'}))"
    )
    found = " ".join(faults(page))
    assert "color-contrast" in found and "nameless" in found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_wrong(visit: Visit, scheme: str, width: int) -> None:
    page = settled(visit(viewport={"width": width, "height": 800}, color_scheme=scheme))
    assert faults(page) == []
    example(page)
    ask(page, FIRST[0])
    answered(page, 0, FIRST[1])
    page.locator("#chat .pv-at").first.click()
    expect(page.locator("#seen .pv-seen")).to_be_visible()
    for name in ("tell", "settings"):
        unfold(page, name)
    for tab in page.get_by_role("tab").all():
        tab.click()
        page.wait_for_timeout(300)  # colours change slowly
        assert faults(page) == []


def test_a_question_is_asked_without_a_mouse(visit: Visit) -> None:
    """From the top of the page: to the example by Tab, then to the question; every stop can be seen."""
    page = visit()
    reached = set()

    def tab_to(part: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.outerHTML.slice(0, 80)"))
            assert page.evaluate("document.activeElement === document.body || document.activeElement.checkVisibility()")
            if page.evaluate("part => document.activeElement.matches(part)", part):
                return
        raise AssertionError(f"Tab never came to {part}: {reached}")

    tab_to(".pv-example")
    page.keyboard.press("Enter")
    expect(page.locator("#progress [data-state]")).to_have_attribute("data-state", "done")
    tab_to("#question textarea")
    page.keyboard.type(FIRST[0])
    page.keyboard.press("Enter")
    answered(page, 0, FIRST[1])
