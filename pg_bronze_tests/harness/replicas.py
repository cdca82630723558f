"""Servers that follow another one: a streaming hot standby, and a subscriber of logical replication."""

import contextlib
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg

from pg_bronze.demo import binaries, data_dir, os_user
from pg_bronze.demo.binaries import Binaries
from pg_bronze.demo.os_user import OsUser, clean_environment, run_as
from pg_bronze.demo.postgres import PostgresServer

WAIT_S = 60
# Servers that others can follow: replication of both kinds, and prepared transactions.
PRIMARY_OPTIONS = {
    "wal_level": "logical",
    "max_prepared_transactions": "20",
    "max_connections": "100",
    "fsync": "off",
    "wal_writer_delay": "10ms",
}


class Standby(PostgresServer):
    """A streaming hot standby of ``primary``, which has to run when this is started for the first time."""

    def __init__(self, data_dir: Path, primary: PostgresServer, options: dict[str, str] | None = None) -> None:
        # A standby must not allow less of these than its primary does.
        wanted = {"max_prepared_transactions": "20", "max_connections": "100", "hot_standby": "on"}
        super().__init__(data_dir, bindir=primary._bindir, options=wanted | (options or {}))
        self.primary = primary

    def _read_password(self) -> str:
        # Roles come with the copy.
        return self.primary.password

    def _cluster(self, programs: Binaries, place: Path, account: OsUser | None) -> Path:
        data = place / "data"
        if data.exists():
            return data
        data.mkdir(mode=0o700)
        os_user.change_owner(data, account)
        source = self.primary
        subprocess.run(
            [
                programs / "pg_basebackup", "-D", str(data), "-h", source.host, "-p", str(source.port),
                "-U", source.user, "-R", "-X", "stream", "-c", "fast", "--no-sync",
            ],
            check=True, capture_output=True, text=True, cwd=place,
            env=clean_environment() | {"PGPASSWORD": source.password},
            **run_as(account),
        )  # fmt: skip
        return data

    def catch_up(self) -> None:
        """Return once everything is replayed that the primary had written when this was called."""
        with self.primary.connect() as connection:
            (lsn,) = connection.execute("select pg_current_wal_insert_lsn()::text").fetchone()
            # An open transaction's last records are flushed by nobody at once.
            connection.execute("select pg_logical_emit_message(true, 'catch up', '')")
            connection.commit()
        until(self, "postgres", f"select pg_last_wal_replay_lsn() >= '{lsn}'")

    def cut_off(self) -> None:
        """Receive nothing more from the primary."""
        with self.connect(autocommit=True) as connection:
            connection.execute("alter system set primary_conninfo = ''")
            connection.execute("select pg_reload_conf()")
        until(self, "postgres", "select not exists (select 1 from pg_stat_wal_receiver)")

    def promote(self) -> None:
        """Make it a primary of its own, on the next timeline."""
        with self.connect(autocommit=True) as connection:
            connection.execute("select pg_promote()")
        until(self, "postgres", "select not pg_is_in_recovery()")


class Upgraded(PostgresServer):
    """The cluster of ``old``, which has been stopped, moved to the newest PostgreSQL with pg_upgrade."""

    def __init__(self, data_dir: Path, old: PostgresServer) -> None:
        super().__init__(data_dir, options=PRIMARY_OPTIONS)
        self.old = old

    def _read_password(self) -> str:
        return self.old.password

    def _cluster(self, programs: Binaries, place: Path, account: OsUser | None) -> Path:
        data = place / "data"
        before = binaries.find(self.old._bindir, account)
        data.mkdir(mode=0o700)
        work = place / "upgrade"  # pg_upgrade writes its logs where it stands
        work.mkdir()
        for path in (data, work):
            os_user.change_owner(path, account)
        old_data = data_dir.open_data_dir(self.old.data_dir, account) / "data"
        steps = [
            [programs / "initdb", "-U", self.user, "-A", "trust", "-D", str(data), "-E", "UTF8", "--no-data-checksums",
             "--no-sync", "--locale=C"],
            [programs / "pg_upgrade", "-U", self.user, "-b", str(before.bindir), "-B", str(programs.bindir),
             "-d", str(old_data), "-D", str(data), "--no-sync"],
        ]  # fmt: skip
        for step in steps:
            done = subprocess.run(
                step, capture_output=True, text=True, cwd=work, check=False,
                env=clean_environment() | {"PGPASSWORD": self.old.password},
                **run_as(account),
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
        return data


def until(server: PostgresServer, dbname: str, question: str) -> None:
    """Ask a server until it says true; AssertionError after a minute.

    A standby's replay ends whoever is in its way, which may be who only asks or waits here: asked again.
    """
    deadline = time.monotonic() + WAIT_S
    with server.connect(dbname, autocommit=True) as connection:
        while time.monotonic() < deadline:
            with contextlib.suppress(psycopg.errors.SerializationFailure):
                if connection.execute(question.encode()).fetchone()[0]:
                    return
                connection.execute("select pg_sleep(0.02)")
    raise AssertionError(f"not true within {WAIT_S} s: {question}")


class Subscription:
    """Tables of database ``publisher`` copied by logical replication into ``subscriber``; both have the tables."""

    def __init__(self, publisher: Any, subscriber: Any, tables: list[str]) -> None:
        self.publisher, self.subscriber = publisher, subscriber
        self.name = f"sub_{subscriber.name}"
        publisher.execute(f"create publication everything for table {', '.join(tables)}")
        target = psycopg.conninfo.make_conninfo("", **publisher.conninfo)
        subscriber.execute(f"create subscription {self.name} connection '{target}' publication everything")
        until(subscriber.server, subscriber.name, "select bool_and(srsubstate = 'r') from pg_subscription_rel")

    def catch_up(self) -> None:
        """Return once the subscriber has applied all that the publisher had committed when this was called."""
        lsn = self.publisher.execute("select pg_logical_emit_message(true, 'catch up', '')::text")[0][0]
        question = (
            f"select bool_or(confirmed_flush_lsn > '{lsn}') from pg_replication_slots where slot_name = '{self.name}'"
        )
        until(self.publisher.server, self.publisher.name, question)

    def end(self) -> None:
        self.subscriber.execute(f"drop subscription {self.name}")
        self.publisher.execute("drop publication everything")
