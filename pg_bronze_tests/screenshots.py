"""The pictures of the UI in README.md and docs/, taken from a demo that runs for a minute.

    .venv/bin/python -m pg_bronze_tests.screenshots

Starts a demo in a temporary folder, waits until its tables have a history, revokes a right, and writes
``docs/images/*.png``. The pages are those of ``e2e/test_browser.py``.
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect

from pg_bronze_tests.e2e.conftest import free_port
from pg_bronze_tests.harness.browser import Ui, open_browser
from pg_bronze_tests.harness.demo_process import DemoProcess, running_demo

FOLDER = Path(__file__).parents[1] / "docs/images"
MOST_BYTES = 150_000
HISTORY = 15  # copies of the table whose plots are shown
SETTINGS = {"PG_BRONZE_INTERVAL_S": "4"}


def take(ui: Ui, demo: DemoProcess) -> None:
    """Take all pictures."""
    for _ in range(HISTORY):
        demo.until("copied movie:")
    ui.open(demo.page("tables"))
    expect(ui.node("movie_latest")).to_be_visible()
    _keep(ui, "lineage")
    ui.open_asset("bronze/movie")
    expect(ui.page.get_by_text("Column name")).to_be_visible()
    _keep(ui, "asset")
    ui.show_plots()
    expect(ui.page.locator("canvas").first).to_be_visible()
    ui.page.get_by_role("button", name="Plots").evaluate("button => button.scrollIntoView()")
    _keep(ui, "plots")
    ui.open_sensor("bronze_tick")
    expect(ui.page.get_by_role("button", name="requested").first).to_be_visible()
    _keep(ui, "ticks")
    demo.execute("revoke select on genre from bronze; insert into genre values (100, 'noir')")
    ui.open_check("bronze/genre", "up_to_date")
    expect(ui.page.get_by_text("grant select on").first).to_be_visible()
    _keep(ui, "check")


def _keep(ui: Ui, name: str) -> None:
    ui.settle()
    file = ui.keep(FOLDER / f"{name}.png")
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{file} has {size:,} bytes, more than {MOST_BYTES:,}.")
    print(f"{file}: {size:,} bytes", flush=True)


def main() -> None:
    """Start a demo and a browser, and take the pictures."""
    with (
        tempfile.TemporaryDirectory(prefix="pg_bronze_screenshots_") as folder,
        running_demo(Path(folder), free_port(), **SETTINGS) as demo,
        open_browser() as page,
    ):
        take(Ui(page, demo.url), demo)


if __name__ == "__main__":
    sys.exit(main())
