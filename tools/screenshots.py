"""Take the pictures of `refold ui` that the docs show, in both themes.

Usage: screenshots.py STORE

STORE is what `make demo` left. Needs playwright and a Chromium.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"


def now(page: Page) -> None:
    """Show what there is."""
    page.wait_for_selector("#title-run")


def why(page: Page) -> None:
    """Ask why a run is as it is."""
    page.click('[aria-labelledby="title-run"] tr[data-key="4"] [data-column="status"]')
    page.wait_for_selector(".chain li")


def past(page: Page) -> None:
    """Look back."""
    page.keyboard.press("Escape")
    page.fill("#slider", "300")
    page.wait_for_selector('#moment[data-position="300"]')


def changes(page: Page) -> None:
    """Compare two moments."""
    page.get_by_role("button", name="compare from here").click()
    page.fill("#slider", "340")
    page.wait_for_selector('#moment[data-position="340"]')
    page.wait_for_selector(".change")


def curves(page: Page) -> None:
    """Show the curves of all runs."""
    page.keyboard.press("End")
    page.get_by_role("link", name="Curves").click()
    page.wait_for_selector(".chart >> nth=1 >> .u-legend tr >> nth=5")


def log(page: Page) -> None:
    """Show the events."""
    page.get_by_role("link", name="Log").click()
    page.wait_for_selector(".log summary")
    page.locator(".log summary").nth(2).click()


def ask(page: Page) -> None:
    """Ask for a clone, and leave it at that."""
    page.get_by_role("link", name="Now").click()
    page.get_by_label("ask something of run 5").click()
    page.get_by_label("clone").check()


VIEWS: Mapping[str, Callable[[Page], None]] = {
    "now": now,
    "why": why,
    "past": past,
    "changes": changes,
    "curves": curves,
    "log": log,
    "ask": ask,
}
"""The pictures, in the order in which they are taken."""


def main(store: str) -> None:
    """Take all pictures."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("screenshots: no Chromium is installed")
    command = [sys.executable, "-m", "refold", "ui", "--no-browser", "--store", store]
    served = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert served.stdout is not None
    try:
        address = served.stdout.readline().strip()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for theme in ("light", "dark"):
                page = browser.new_page(viewport={"width": 1280, "height": 760}, color_scheme=theme)
                page.goto(address)
                for name, show in VIEWS.items():
                    show(page)
                    page.mouse.move(0, 759)
                    page.wait_for_timeout(500)  # until it is painted
                    page.screenshot(path=IMAGES / f"ui-{name}-{theme}.png")
                page.close()
            browser.close()
    finally:
        served.terminate()
        served.wait()


if __name__ == "__main__":
    main(sys.argv[1])
