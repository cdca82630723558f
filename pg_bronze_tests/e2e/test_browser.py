"""One walk through Dagster's pages in a browser, from the first page of a new demo to a table that fails and is healed.

The tests are the steps of one story: each begins where the one before it has ended. The demo is that of the wheel, in
a folder that has nothing to do with it.
"""

import os
import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import expect

from pg_bronze_tests.e2e.conftest import BIN, ROOT, free_port
from pg_bronze_tests.harness.browser import Ui, open_browser
from pg_bronze_tests.harness.demo_process import DemoProcess, running_demo
from pg_bronze_tests.harness.repetitions import repetition

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TODAY = datetime.now(UTC).date()
SETTINGS = {"PG_BRONZE_START_DATE": str(TODAY - timedelta(days=9)), "PG_BRONZE_INTERVAL_S": "2"}
PICTURES = ROOT / ".cache/browser"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of the demo and its home folder."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def demo(installation: Path, folder: Path) -> Iterator[DemoProcess]:
    """A demo in which rows are written by the tests alone."""
    # Contains the S3 server of the demo, which its wheel installs beside Python.
    path = os.pathsep.join([os.environ["PATH"], str(BIN)])
    command = [installation / "pg-bronze"]
    with running_demo(folder, free_port(), "--no-writer", command=command, PATH=path, **SETTINGS) as started:
        yield started


@pytest.fixture(scope="module")
def pages(demo: DemoProcess) -> Iterator[Ui]:
    with open_browser() as page:
        yield Ui(page, demo.url)


@pytest.fixture
def ui(pages: Ui, request: pytest.FixtureRequest) -> Iterator[Ui]:
    """The pages of the demo. What they show when a test fails is kept in ``.cache/browser``."""
    failed = request.session.testsfailed
    yield pages
    if request.session.testsfailed > failed:
        print("the page:", pages.keep(PICTURES / f"{request.node.name}.png"))


def test_the_page_that_the_demo_names_shows_source_bronze_and_silver_tables(ui: Ui, demo: DemoProcess):
    ui.open(demo.page("tables"))

    expect(ui.node("movie_latest")).to_be_visible()
    expect(ui.node("movie").nth(1)).to_be_visible()
    expect(ui.page.get_by_role("dialog")).to_have_count(0)


@repetition
def test_a_person_materializes_today(ui: Ui):
    ui.materialize("bronze/movie")

    expect(ui.page.get_by_text(f"partition: {TODAY}")).to_be_visible()


def test_a_person_materializes_a_past_day(ui: Ui):
    past = TODAY - timedelta(days=3)

    ui.materialize("bronze/movie", str(past))

    expect(ui.page.get_by_text(f"partition: {past}")).to_be_visible()


def test_a_tick_of_the_sensor_says_what_it_checked(ui: Ui):
    ui.open_sensor("bronze_tick")
    ui.ticks_without_runs().first.click()

    expect(ui.page.get_by_role("dialog")).to_contain_text(re.compile(r"\b9 tables\b"))


def test_the_plots_of_a_table_are_shown(ui: Ui):
    ui.open_asset("bronze/movie")
    ui.show_plots()

    expect(ui.plot("pg_bronze/bytes")).to_be_visible()
    expect(ui.page.locator("canvas").first).to_be_visible()


def test_a_table_whose_right_is_revoked_fails_its_check_which_names_the_grant(ui: Ui, demo: DemoProcess):
    """A failing table that looks green is the worst that a page can do."""
    ui.open_check("bronze/genre", "up_to_date")
    expect(ui.verdict("Passed")).to_be_visible()

    demo.execute("revoke select on genre from bronze; insert into genre values (100, 'noir')")

    expect(ui.verdict("Failed")).to_be_visible()
    expect(ui.page.get_by_text('grant select on "public"."genre" to "bronze"').first).to_be_visible()


def test_the_table_passes_again_after_the_grant(ui: Ui, demo: DemoProcess):
    demo.execute("grant select on genre to bronze")
    # The catalog sensor may have noticed the missing right meanwhile, and then the asset cannot be materialized.
    ui.open(demo.page("tables"))
    ui.reload_definitions()

    ui.materialize("bronze/genre")

    ui.open_check("bronze/genre", "up_to_date")

    expect(ui.verdict("Passed")).to_be_visible()


def test_the_demo_has_copied_stops_and_leaves_one_folder(demo: DemoProcess, folder: Path):
    assert demo.process.stdout is not None
    demo.process.send_signal(signal.SIGINT)

    printed = demo.printed + demo.process.stdout.read()

    assert demo.process.wait(30) == 0, printed
    assert "first slice" in printed
    assert printed.endswith("stopped\n")
    assert [path.name for path in folder.iterdir()] == [".pg_bronze"]
