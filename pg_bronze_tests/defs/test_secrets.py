"""Secrets: no password and no key is stored or shown by Dagster, in the bucket or in a log."""

import threading
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._utils.error import serializable_error_info_from_exc_info

from pg_bronze_tests.harness.project import Project, key, sentences
from pg_bronze_tests.harness.repetitions import also
from pg_bronze_tests.harness.secrets import spellings, traces
from pg_bronze_tests.harness.slow import SLOW, wait_until_slow

PASSWORD = "pl4nted'pass word/%40@:\\"


@pytest.fixture
def guarded(cinema: Project) -> Iterator[Project]:
    """The project with a role whose password is easy to find in any text."""
    literal = PASSWORD.replace("'", "''")
    cinema.database.execute("set standard_conforming_strings = on")
    cinema.database.execute(f"create role guarded login password '{literal}'")
    cinema.database.execute("grant select on movie, person to guarded; grant create on schema public to guarded")
    cinema.set(PG_USER="guarded", PG_PASS=PASSWORD)
    cinema.reload()
    yield cinema
    cinema.database.execute("drop owned by guarded; drop role guarded")


def _check(project: Project, text: str) -> None:
    for secret in (PASSWORD, project.bucket.server.secret_key):
        for spelling in spellings(secret):
            assert spelling not in text


def test_no_stored_text_contains_a_secret(guarded: Project, capfd: pytest.CaptureFixture[str]):
    guarded.evaluate()
    guarded.evaluate("bronze_catalog")
    assert guarded.copy().success

    text = traces(guarded)

    assert "guarded" in text, "the name of the user is there, so the search includes the right texts"
    _check(guarded, text)
    _check(guarded, "".join(capfd.readouterr()))


@pytest.mark.parametrize(
    "variables",
    [
        {"PG_PASS": PASSWORD + "wrong"},
        {"PG_PASS": PASSWORD + "wrong", "PG_BRONZE_READER": "copy"},
        {"PG_PASS": "", "PG_PASS_COMMAND": "sh -c 'echo pl4nted; echo pl4nted >&2; exit 3'"},
        {"PG_HOST": "127.0.0.1,127.0.0.2", "PG_PORT": "1"},
        {"PG_PORT": "1"},
        {"MINIO_SECRET_KEY": "pl4ntedkey"},
        {"MINIO_ENDPOINT": "http://127.0.0.1:1"},
        {"PG_CONTROL_URL": "postgresql://guarded:pl4ntedurl@127.0.0.1:1/nowhere"},
    ],
    ids=[
        "password",
        "password, copy",
        "command",
        "hosts down",
        "database down",
        "secret key",
        "bucket down",
        "control url",
    ],
)
def test_a_failure_shows_no_secret(guarded: Project, capfd: pytest.CaptureFixture[str], variables: dict[str, str]):
    """Errors are copied into events, mails and chats."""
    guarded.set(**variables)
    guarded.reload()

    result = guarded.copy()
    try:
        guarded.evaluate()
        shown = ""
    except Exception as error:  # noqa: BLE001  # the UI shows the text of any error
        shown = serializable_error_info_from_exc_info((type(error), error, error.__traceback__)).to_string()

    text = traces(guarded) + shown + "".join(capfd.readouterr())
    assert "pl4nted" not in text
    assert result.success == ("PG_CONTROL_URL" in variables)


@pytest.mark.parametrize("reader", ["connectorx", *also("copy")])
def test_an_interrupted_read_shows_no_secret(guarded: Project, capfd: pytest.CaptureFixture[str], reader: str):
    """The reader has a URL with the password, and its error is logged as the cause."""
    database = guarded.database
    database.execute(SLOW)
    database.execute("alter table movie add f feeling default 'slow'")
    guarded.set(PG_BRONZE_READER=reader)
    guarded.reload()

    def cut() -> None:
        wait_until_slow(database)
        database.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep' "
            "and datname = current_database()"
        )

    helper = threading.Thread(target=cut)
    helper.start()
    result = guarded.copy("movie")
    helper.join()

    # connectorx reports no SQLSTATE, and the repeated read succeeds: the server is there again.
    expected = {"connectorx": "as by a lost connection", "copy": "the connection to PostgreSQL was lost"}[reader]
    assert expected in sentences(result)["bronze__movie"]
    text = traces(guarded) + "".join(capfd.readouterr())
    assert "guarded" in text
    _check(guarded, text)


def test_the_materialization_contains_no_value_of_a_row(cinema: Project):
    """Cursor values may be shown. Users of the UI may not be allowed to see other values."""
    cinema.database.execute("update movie set title = 'private-' || id")
    cinema.copy("movie")

    entries = [
        dg._serdes.serialize_value(item.event_log_entry)
        for record in cinema.instance.get_run_records()
        for item in cinema.instance.get_records_for_run(record.dagster_run.run_id).records
    ]

    assert "private-" not in "\n".join(entries)
    assert cinema.latest("movie") is not None
    assert key("movie").to_string() in "\n".join(entries).replace('\\"', '"')
