"""An object of a newer format stops its table: the message names it, and nothing is written."""

import io
import json
from collections.abc import Callable

import polars as pl
import pytest

from pg_bronze.core.formats import FORMAT
from pg_bronze.errors import FormatTooNew
from pg_bronze.lake import stop
from pg_bronze.lake.footer import ENTRY
from pg_bronze.sync import state_changes
from pg_bronze.sync.verify_day import verify_day
from pg_bronze_tests.harness.lake import MOVIE, Lake, fill

NEWER = {"format": FORMAT + 1}


def footer_edited(lake: Lake, change: Callable[[dict], dict]) -> str:
    """Give the footer of the newest object other entries."""
    key = lake.keys()[-1]
    body = lake.store.get(key)
    buffer = io.BytesIO()
    footer = change(json.loads(pl.read_parquet_metadata(io.BytesIO(body))[ENTRY]))
    pl.read_parquet(io.BytesIO(body)).write_parquet(buffer, metadata={ENTRY: json.dumps(footer)})
    lake.store.replace(key, buffer.getvalue())
    return key


def newer_footer(lake: Lake) -> str:
    return f"the footer of {footer_edited(lake, lambda footer: footer | NEWER)}"


def newer_watermark(lake: Lake) -> str:
    key = footer_edited(lake, lambda footer: footer | {"after": footer["after"] | NEWER})
    return f"a watermark in the footer of {key}"


def newer_claim(lake: Lake) -> str:
    assert lake.crash("claim")
    [key] = lake.all_keys("_pg_bronze/claims/")
    lake.store.replace(key, json.dumps({**json.loads(lake.store.get(key)), **NEWER}).encode())
    return f"the claim {key}"


def newer_stop(lake: Lake) -> str:
    """Only the stop is newer: a claim comes with it in the same format, but a person may have deleted that."""
    layout = lake.layout()
    with lake.source() as source, lake.open(source) as sync:
        stop.write(lake.store, layout, lake.recorded["movie"], "restored", sync.now())
    written = json.loads(lake.store.get(layout.stop))
    assert written["format"] == FORMAT
    lake.store.replace(layout.stop, json.dumps({**written, **NEWER}).encode())
    lake.store.delete(layout.claim(lake.recorded["movie"].seq + 1))
    return f"the stop {layout.stop}"


@pytest.mark.parametrize("write_newer", [newer_footer, newer_watermark, newer_claim, newer_stop])
def test_what_a_newer_version_wrote_stops_the_table_and_stays(database, bucket, write_newer):
    """An older version would continue from a state that it misreads, or delete the reason why a table is stopped."""
    database.execute(f"{MOVIE}; {fill(1, 3)}")
    lake = Lake(database, bucket.store())
    lake.tick()
    recorded = dict(lake.recorded)
    database.execute(fill(4, 5))
    lake.tick()
    database.execute(fill(6, 7))
    named = write_newer(lake)
    before = contents(lake)
    message = rf"{named} has format 4, and this version of pg_bronze reads up to 3: .* Upgrade pg_bronze\."

    # Recovered from the bucket, and after an object that is not the newest one, as with a restored Dagster storage.
    for known in ({}, recorded) if "footer" in named else ({},):
        lake.recorded = dict(known)
        with pytest.raises(FormatTooNew, match=message):
            lake.tick()
        for act in (state_changes.reset, state_changes.resume):
            with pytest.raises(FormatTooNew, match=message):
                lake.tick(act=act)
        assert contents(lake) == before

    if "footer" in named:
        with lake.source() as source, pytest.raises(FormatTooNew, match=message):
            verify_day(lake.open(source), None, lake.layout().day(lake.keys()[0]))


def contents(lake: Lake) -> dict[str, bytes | None]:
    return {key: lake.store.get(key) for key in lake.all_keys()}
