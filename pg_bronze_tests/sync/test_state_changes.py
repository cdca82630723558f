"""Reset, continue and reconcile beside a live writer: they wait or refuse, and report only what the bucket contains."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pg_bronze.errors import HistoryChanged, Superseded, TableBusy
from pg_bronze.lake.object_store import Store
from pg_bronze.postgres.connection import Source
from pg_bronze.sync import state_changes
from pg_bronze.sync.reconcile import reconcile
from pg_bronze_tests.harness.lake import MOVIE, SAME, Crash, Lake, NoLock, Outcome, fill, once_after
from pg_bronze_tests.harness.replicas import until
from pg_bronze_tests.harness.servers import s3_connection

LOCK_AWAITED = """select exists (
  select 1 from pg_locks join pg_database d on d.oid = database
  where d.datname = current_database() and locktype = 'advisory' and not granted
)"""
REASONS = {state_changes.reset: "reset on request", state_changes.resume: "continued on request"}
each_change = pytest.mark.parametrize("change", REASONS, ids=["reset", "continue"])


@pytest.fixture
def lake(database, bucket) -> Lake:
    """Ten films that are copied and ten that are not."""
    database.execute(f"{MOVIE}; {fill(1, 10)}")
    made = Lake(database, bucket.store())
    made.tick()
    database.execute(fill(11, 20))
    return made


@pytest.fixture
def pair(lake) -> tuple[Lake, Lake]:
    """Two writers with the same recorded watermark, on servers where the advisory lock does not hold."""
    lake.sync_class = NoLock
    return lake, second(lake)


def second(lake: Lake) -> Lake:
    return Lake(lake.database, lake.store, dict(lake.recorded), sync_class=lake.sync_class)


def content(lake: Lake) -> dict[str, bytes | None]:
    return {key: lake.store.get(key) for key in lake.all_keys()}


def assert_committed(lake: Lake, outcome: Outcome, change, follows: int) -> None:
    """The newest object in the bucket is the change, it follows object number ``follows``, and it was reported."""
    newest = lake.footers()[-1]
    [reported] = outcome.committed
    assert (newest.reason, newest.row_count) == (REASONS[change], 0)
    assert newest.after == reported.watermark == outcome.watermark
    assert newest.after.key == reported.key
    assert newest.after.seq == follows + 1
    assert newest.after.generation == newest.before.generation + (change is state_changes.reset)


def assert_exact(one: Lake, two: Lake) -> None:
    """Both writers continue, and the lake contains every row version once."""
    one.database.execute(fill(101, 105))
    one.drain()
    two.drain()
    assert one.compare() == SAME
    assert one.recorded == two.recorded
    assert not [key for key in one.all_keys() if "claims" in key]


@each_change
def test_a_change_waits_for_the_run_that_copies_the_table(lake, database, change):
    """Without the wait, the change and the run's object would compete for one number."""
    other, started = second(lake), []

    def start_change() -> None:
        started.append(pool.submit(other.tick, act=change))
        until(database.server, database.name, LOCK_AWAITED)

    with ThreadPoolExecutor(1) as pool:
        run = lake.tick(crash_at=once_after("claim", start_change))
        outcome = started[0].result(60)

    assert (run.row_counts, run.adopted) == ([10], ())
    assert_committed(lake, outcome, change, follows=run.watermark.seq)
    assert_exact(lake, other)


@each_change
def test_a_change_is_refused_if_the_run_does_not_end(lake, monkeypatch, change):
    monkeypatch.setattr(state_changes, "LOCK_WAIT_S", 0.1)
    before = content(lake)

    with lake.source() as source, lake.open(source), pytest.raises(TableBusy, match=r"movie: .* Nothing was changed\."):
        second(lake).tick(act=change)

    assert content(lake) == before


def test_the_wait_for_a_run_may_be_longer_than_a_statement(lake, database):
    """Both are a minute by default; a cancelled statement would be reported instead of the run that is in the way."""
    with (
        lake.source() as source,
        lake.open(source) as sync,
        Source(database.conninfo, database.url, statement_timeout_s=1) as waiting,
    ):
        assert not waiting.lock(sync.table.oid, wait_s=1.2)


@each_change
def test_a_change_follows_the_object_of_a_writer_that_commits_first(pair, change):
    """Applied to an older watermark, it would be a success that no reader sees."""
    one, two = pair

    outcome = one.tick(act=change, crash_at=once_after("recover", two.tick))

    assert_committed(one, outcome, change, follows=two.recorded["movie"].seq)
    assert_exact(one, two)


class DiesBeforePut(Store):
    """The bucket of a process that is killed during the PUT of an object, which arrives ``late``."""

    late: tuple[str, bytes] | None = None

    def create(self, key: str, body: bytes) -> bool:
        if key.endswith(".parquet"):
            self.late = (key, body)
            raise Crash("put")
        return super().create(key, body)


class ReceivesFirst(Store):
    """A bucket that receives another writer's object just before the first object of this one."""

    late: tuple[str, bytes] | None = None

    def create(self, key: str, body: bytes) -> bool:
        if self.late and key.endswith(".parquet"):
            late, self.late = self.late, None
            assert super().create(*late)
        return super().create(key, body)


@each_change
def test_a_change_follows_the_object_of_an_open_claim_that_arrives_first(pair, change):
    """The change takes the claim's key, where it then finds rows: success would be reported for their object."""
    one, two = pair
    killed, store = second(one), one.store
    killed.store = DiesBeforePut(store.client, store.bucket)
    assert killed.crash("never")
    one.store = ReceivesFirst(store.client, store.bucket)
    one.store.late = key, _ = killed.store.late

    outcome = one.tick(act=change)

    assert one.store.late is None, "the object arrived"
    assert outcome.committed[0].key != key
    assert_committed(one, outcome, change, follows=2)
    assert_exact(one, two)


@each_change
def test_a_change_is_refused_if_other_writers_always_commit_first(pair, database, change):
    one, two = pair
    outcomes = []

    def commit_first(step: str) -> None:
        if step == "recover":
            number = 30 + len(outcomes)
            database.execute(fill(number, number))
            outcomes.append(two.tick())

    with pytest.raises(Superseded, match=r"movie: other writers .* Nothing was changed\."):
        one.tick(act=change, crash_at=commit_first)

    assert len(outcomes) == state_changes.TRIES
    assert {footer.reason for footer in one.footers()} == {None}
    assert_exact(one, two)


@pytest.fixture
def reconciling(bucket):
    connection = s3_connection(bucket)
    return lambda sync, recorded, writer: reconcile(sync, recorded, writer, connection)[0]


def test_reconcile_is_refused_if_another_writer_commits_during_the_comparison(pair, database, reconciling):
    """It would set the watermark back to its own horizon, and the other writer's rows would be copied twice."""
    one, two = pair
    one.drain()
    two.drain()

    def copy_new_rows() -> None:
        database.execute(fill(21, 30))
        two.tick()

    with pytest.raises(TableBusy, match=r"movie: another writer committed .* Nothing was changed\."):
        one.tick(act=reconciling, crash_at=once_after("read", copy_new_rows))

    assert one.footers()[-1].after == two.recorded["movie"]
    assert_exact(one, two)


def test_reconcile_names_columns_whose_texts_depend_on_names_in_the_catalog(database, bucket, reconciling):
    """A rename of another table changes the text of a regclass, and no transaction is lost."""
    database.execute("create table other (i int); create type mood as enum ('sad')")
    for name, declared, value in (
        ("plain", "text", "'other'"),
        ("named", "regclass", "'other'"),
        ("feels", "mood", "'sad'"),
    ):
        database.execute(
            f"create table {name} (id int primary key, kind {declared}); insert into {name} values (1, {value})"
        )
    lake = Lake(database, bucket.store())
    for name in ("plain", "named", "feels"):
        lake.drain(name)
    database.execute("alter table other rename to another; alter type mood rename value 'sad' to 'blue'")

    lake.tick("plain", act=reconciling)
    for name, column in (("named", r"'kind' \(regclass\)"), ("feels", r"'kind' \(public.mood\)")):
        possible = (
            rf"Or something that a value of column {column} names was renamed .* `pg-bronze continue {name}` keeps"
        )
        with pytest.raises(HistoryChanged, match=rf"{name}: of 1 live rows, 1 .*{possible}"):
            lake.tick(name, act=reconciling)
