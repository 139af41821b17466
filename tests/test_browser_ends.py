"""Ends in headless Chromium: of a session that nobody used, and of the server; and what a visitor is told to do."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect
from visits import FIRST, Visit, answered, ask, example, state

from demos.screenshots import PATIENCE, serving

pytestmark = pytest.mark.browser


def test_a_session_that_ended_and_a_server_that_is_gone_are_said(visit: Visit) -> None:
    with serving("--idle-minutes", "0.2") as address:
        page = visit(address)
        example(page)
        ask(page, FIRST[0])
        answered(page, 0, FIRST[1])
        panel = page.locator("#progress .pv-error")
        expect(panel).to_have_text(
            "This session was closed, as nobody used it for 0.2 minutes; open the video again.", timeout=PATIENCE
        )
        answered(page, 0, FIRST[1])  # what was said stays to be read
        example(page)
    notice = page.locator("#pv-notice")
    expect(notice).to_contain_text("The server does not answer.")
    expect(notice).to_have_attribute("role", "alert")
    with serving(port=urlsplit(address).port):
        expect(notice).to_be_hidden()
        state(page, "failed")
        expect(panel).to_have_text("This session was closed, or was never opened; open the video again.")
        example(page)
