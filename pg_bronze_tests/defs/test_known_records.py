"""Asset records that a process keeps: parsed once for each change, and never outdated."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log import sql_event_log
from dagster._core.test_utils import instance_for_test

from pg_bronze.defs.known_records import AssetFacts, KnownRecords, facts_of
from pg_bronze_tests.defs.test_postgres_storage import opened
from pg_bronze_tests.harness.servers import Database

SQLITE = {"module": "pg_bronze.defs.sqlite_storage", "class": "PooledSqliteStorage"}
KEYS = [dg.AssetKey(name) for name in ("movie", "person", "empty")]


@pytest.fixture(params=["sqlite", "postgres"])
def instances(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Iterator[list[dg.DagsterInstance]]:
    """Two instances of the same storage, as two sensor evaluations of a code server open them."""
    with ExitStack() as stack:
        found = []
        for _ in range(2):
            if request.param == "postgres":
                found.append(stack.enter_context(opened(database, tmp_path)))
            else:
                config = {"custom": SQLITE | {"config": {"base_dir": str(tmp_path / "storage")}}}
                found.append(stack.enter_context(instance_for_test({"storage": config}, temp_dir=str(tmp_path))))
        yield found


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that Dagster has parsed."""
    texts: list[str] = []
    deserialize = sql_event_log.deserialize_value
    monkeypatch.setattr(
        sql_event_log, "deserialize_value", lambda text, *kind: texts.append(text) or deserialize(text, *kind)
    )
    return texts


def write(instance: dg.DagsterInstance, name: str, number: int) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(name, metadata={"number": number}))


def numbers(instance: dg.DagsterInstance) -> dict[str, int]:
    """Return what the last materialization of each asset contains."""
    found = {}
    for record in instance.get_asset_records(KEYS):
        event = record.asset_entry.last_materialization
        assert event is not None
        assert event.asset_materialization is not None
        found[event.asset_materialization.asset_key.path[0]] = event.asset_materialization.metadata["number"].value
    return found


def test_only_the_assets_that_have_changed_are_parsed(instances: list[dg.DagsterInstance], parsed: list[str]):
    """A tick with 1,000 tables would parse 1,000 materializations, which is most of its CPU time."""
    one, two = instances
    for name in ("movie", "person"):
        write(one, name, 1)
    assert numbers(one) == {"movie": 1, "person": 1}
    parsed.clear()
    assert numbers(two) == {"movie": 1, "person": 1}
    assert parsed == []

    write(two, "person", 2)

    assert numbers(one) == {"movie": 1, "person": 2}
    assert len(parsed) == 1


def test_a_wiped_asset_has_no_record(instances: list[dg.DagsterInstance]):
    """A table whose materializations were wiped is copied again from what the bucket contains."""
    one, two = instances
    write(one, "movie", 1)
    assert numbers(two) == {"movie": 1}
    one.wipe_assets([dg.AssetKey("movie")])
    assert numbers(two) == {}
    write(one, "movie", 2)
    assert numbers(two) == {"movie": 2}


LABELS = frozenset({"text", "number", "share", "flag", "json"})


def facts(instance: dg.DagsterInstance) -> dict[dg.AssetKey, AssetFacts]:
    storage = instance.event_log_storage
    assert isinstance(storage, KnownRecords)
    return storage.get_asset_facts(KEYS, LABELS)


def test_facts_are_those_of_the_records_and_are_read_without_dagsters_classes(
    instances: list[dg.DagsterInstance], parsed: list[str]
):
    """A new process would parse 20 metadata entries of each table: a tenth of the CPU time of a quiet tick."""
    one, two = instances
    entries = {"text": 'a "text"', "number": 2**60, "share": 0.25, "flag": True, "other": "not asked for"}
    one.report_runless_asset_event(dg.AssetMaterialization("movie", metadata=entries, partition="2026-01-02"))
    one.report_runless_asset_event(dg.AssetObservation("empty"))

    found = facts(two)

    assert parsed == []
    assert found[KEYS[0]].last is not None
    assert found[KEYS[0]].last.values == {name: entries[name] for name in ("text", "number", "share", "flag")}
    assert found == {
        record.asset_entry.asset_key: facts_of(record.asset_entry, LABELS) for record in one.get_asset_records(KEYS)
    }


def test_facts_follow_materializations_wipes_and_what_only_dagster_can_parse(instances: list[dg.DagsterInstance]):
    one, two = instances
    for metadata in ({"number": 1}, {"number": 2}, {"json": {"a": [1]}}):
        one.report_runless_asset_event(dg.AssetMaterialization("movie", metadata=metadata))
        last = facts(two)[KEYS[0]].last
        assert last is not None
        assert last.values == metadata

    one.wipe_assets([KEYS[0]])
    assert facts(two) == {}
    one.report_runless_asset_event(dg.AssetObservation("movie"))
    assert facts(two) == {KEYS[0]: AssetFacts(None, None)}
    write(one, "movie", 3)
    last = facts(two)[KEYS[0]].last
    assert last is not None
    assert last.values == {"number": 3}


def test_two_storages_of_one_process_have_their_own_records(tmp_path: Path):
    with ExitStack() as stack:
        for number in (1, 2):
            config = {"custom": SQLITE | {"config": {"base_dir": str(tmp_path / str(number))}}}
            instance = stack.enter_context(instance_for_test({"storage": config}))
            write(instance, "movie", number)
            assert numbers(instance) == {"movie": number}
