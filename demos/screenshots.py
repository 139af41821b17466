"""Pictures of the page for its documentation, taken in Chromium from the running page; the browser tests use it too.

python -m demos.screenshots --chromium /usr/bin/chromium --folder docs
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from PIL import Image
from playwright.sync_api import sync_playwright

PATIENCE = 120_000
"""Most milliseconds for the page to show something; a busy machine takes its time."""
_QUESTIONS = ("What colour is shown first in the video?", "Can you tell me the last number in this clip?")
_WINDOWS = {"wide": (1280, 900), "phone": (390, 844)}


@contextmanager
def serving(*options: str, port: int = 0) -> Iterator[str]:
    """A page of its own with the built-in model, in another process.

    Parameters
    ----------
    *options : str
        For `demos.app`.
    port : int
        Where to listen; 0 for any that is free.

    Yields
    ------
    str
        The page's address.
    """
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/"
    server = subprocess.Popen([sys.executable, "-m", "demos.app", "--port", str(port), *options])
    try:
        for _ in range(1800):
            if server.poll() is not None:
                raise SystemExit("The page did not start; what it wrote says why.")
            try:
                httpx.get(address, trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


@contextmanager
def browsing(chromium: str) -> Iterator[Any]:
    """A headless Chromium whose camera shows a test picture."""
    arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


def main(
    chromium: Annotated[str, typer.Option(help="The browser's program.")] = "/usr/bin/chromium",
    folder: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("docs"),
) -> None:
    """Take a picture of the page in each window, in light and dark, and one of its pictures."""
    with serving() as address, browsing(chromium) as browser:
        for window, (width, height) in _WINDOWS.items():
            for scheme in ("light", "dark"):
                context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
                page = context.new_page()
                page.set_default_timeout(PATIENCE)
                page.goto(address)
                _use(page)
                _keep(page, folder / f"demo_{window}_{scheme}.webp")
                if (window, scheme) == ("wide", "light"):
                    page.get_by_role("tab", name="Pictures").click()
                    page.locator("#frames img").first.wait_for()
                    page.locator(".pv-charts", has_text=_QUESTIONS[-1]).locator("img").wait_for()
                    _keep(page, folder / "demo_pictures.webp", whole=True)
                context.close()


def _use(page: Any) -> None:
    page.locator(".pv-example").first.click()
    page.locator('#progress [data-state="done"]').wait_for()
    for number, question in enumerate(_QUESTIONS):
        page.locator("#question textarea").fill(question)
        page.locator("#ask").click()
        page.locator("#chat .bot.message").nth(number).locator(".pv-at").first.wait_for()
        page.wait_for_timeout(1500)
    page.locator("#chat .pv-at").first.click()  # what the first answer rested on, over the player
    page.locator(".pv-mask").wait_for()
    page.wait_for_timeout(500)


def _keep(page: Any, path: Path, whole: bool = False) -> None:
    drawn = Image.open(BytesIO(page.screenshot(full_page=whole)))
    drawn.save(path, "WEBP", quality=80, method=6)
    typer.echo(f"wrote {path}: {drawn.width} x {drawn.height}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    typer.run(main)
