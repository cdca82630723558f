"""Dagster's web pages in a headless Chromium: where they are, and what a person does on them.

Tests, the pictures of the documentation and `benchmarks/pages.py` use it. Elements are found by their roles and by the
names of assets, which outlast a change of texts. Chromium is that of the machine, which Playwright need not download.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from playwright.sync_api import Locator, Page, expect, sync_playwright

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1280, 800
PATIENCE_S = 60
# Root needs the first. Nothing is shown on a screen, so drawing with a simulated graphics card is wasted time.
OPTIONS = ("--no-sandbox", "--disable-gpu")
# Moving edges and spinners are drawn by the processor, again and again.
_NO_ANIMATIONS = """document.addEventListener('DOMContentLoaded', () => {
  const style = document.createElement('style');
  style.textContent = '*, ::before, ::after { animation: none !important; transition: none !important; }';
  document.head.appendChild(style);
})"""


def program() -> str:
    """Return the Chromium of this machine."""
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    raise AssertionError("Chromium is not installed. On Debian: apt-get install chromium")


@contextmanager
def open_browser() -> Iterator[Page]:
    """Yield an empty page of a new browser without a history."""
    expect.set_options(timeout=PATIENCE_S * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=list(OPTIONS))
        try:
            page = browser.new_page(
                viewport={"width": WIDTH, "height": HEIGHT}, timezone_id="UTC", locale="en-US", reduced_motion="reduce"
            )
            page.set_default_timeout(PATIENCE_S * 1000)
            page.add_init_script(_NO_ANIMATIONS)
            yield page
        finally:
            browser.close()


class Ui:
    """The pages of one web server.

    Args:
        page: Where they are opened.
        url: The address of the web server.
        location: The name of the code location.
    """

    def __init__(self, page: Page, url: str, location: str = "pg_bronze") -> None:
        self.page = page
        self._url = url
        self._location = f"/locations/{location}"

    def open(self, path: str) -> None:
        """Open a page by its path."""
        self.page.goto(self._url + path, wait_until="domcontentloaded")

    def open_asset(self, key: str, view: str = "overview") -> None:
        """Open the page of an asset, such as `bronze/movie`."""
        self.open(f"/assets/{key}?view={view}")
        expect(self.page.get_by_role("tab", selected=True)).to_have_text(view.capitalize())

    def open_sensor(self, name: str) -> None:
        """Open the page of a sensor with its ticks."""
        self.open(f"{self._location}/sensors/{name}")

    def node(self, name: str) -> Locator:
        """Return the node of each asset with this name in a graph."""
        return self.page.get_by_text(name, exact=True)

    def open_check(self, key: str, name: str) -> None:
        """Open the page of a check of an asset."""
        self.open(f"/assets/{key}?view=checks&checkDetail={name}")
        expect(self.page.get_by_text("Evaluation result")).to_be_visible()

    def verdict(self, word: str) -> Locator:
        """Return the result of the check that is shown, if it is `Passed` or `Failed`."""
        return self.page.get_by_text(word, exact=True).first

    def materialize(self, key: str, day: str | None = None) -> None:
        """Materialize an asset as a person does, and wait until the run has succeeded.

        Args:
            key: The asset.
            day: The partition, typed into the dialog; None selects the latest by its button.
        """
        self.open_asset(key)
        self.page.get_by_role("button", name=re.compile("Materialize")).click()
        dialog = self.page.get_by_role("dialog")
        if day is None:
            dialog.get_by_role("button", name="Latest").click()
        else:
            dialog.get_by_role("textbox").fill(day)
            dialog.get_by_role("textbox").press("Enter")
        launch = dialog.get_by_role("button", name="Launch 1 run")
        launch.click()
        # A click that launches the run changes the name of the button. One while the dialog is being rendered does not.
        with suppress(AssertionError):
            expect(launch).to_be_hidden(timeout=10_000)
        if launch.is_visible():
            launch.click()
        self.page.get_by_text("View", exact=True).click()
        self.page.wait_for_url("**/runs/*")
        expect(self.page.get_by_text(re.compile("^(Success|Failure|Canceled)$")).first).to_have_text("Success")

    def ticks_without_runs(self) -> Locator:
        """Return the buttons that show what ticks without a run found, on the page of a sensor, newest first."""
        return self.page.get_by_role("button", name="0 runs requested")

    def show_plots(self) -> None:
        """Show the plots of the events on the page of an asset."""
        self.page.get_by_role("button", name="Plots").click()
        self.page.get_by_role("button", name="Events").click()

    def plot(self, name: str) -> Locator:
        """Return the title of a plot."""
        return self.page.get_by_text(name, exact=True)

    def reload_definitions(self) -> None:
        """Reload the definitions, on a page that has the button, and wait until that has happened."""
        self.page.get_by_role("button", name="Reload definitions").click()
        expect(self.page.get_by_text(re.compile("^Definitions reloaded")).first).to_be_visible()

    def settle(self) -> None:
        """Wait until the page has loaded everything that it shows."""
        expect(self.page.get_by_role("progressbar")).to_have_count(0)
        self.page.wait_for_load_state("networkidle")

    def keep(self, file: Path) -> Path:
        """Save the visible part of the page as a picture."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=file, animations="disabled", caret="hide")
        return file
