"""The connection limit: how many connections to the source all processes of pg_bronze have open at once.

One belongs to the sensor, one to whoever has the short connection, and two to each run. A run holds one of a number of
slots, which are advisory locks of its kept connection, and more of them while it reads block ranges in parallel. The
short connection belongs to the process that has locked a file: a session can show what it holds only after it was
opened, so the server cannot keep a second one from that. Nothing here is used without ``PG_BRONZE_MAX_CONNECTIONS``.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import filelock
import psycopg

from pg_bronze.errors import NoConnectionFree, SettingsError
from pg_bronze.scheduling import run_slots

Use = Literal["sensor", "short", "run"]
# A catalog is read in a second, also of 1,000 tables, and a login takes milliseconds.
WAIT_S = 30.0
# A read is ended within 8 s, and one attempt is not enough: ``Reading.end`` repeats it.
ENDING_WAIT_S = 1.0
# First of the two 32-bit keys of the advisory lock of a slot: the letters "pgbs".
_SLOT_SPACE = 0x70676273
_TAKE = "select pg_try_advisory_lock(%(space)s, %(slot)s)"
_RELEASE = "select pg_advisory_unlock(%(space)s, %(slot)s)"
_CONNECTIONS_PER_SLOT = 2
# The names are visible to every role. Locks are listed for all databases of the cluster.
_HELD = """from pg_locks l left join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'advisory' and l.granted and l.classid = %(space)s::oid and l.objsubid = 2
  and l.database = (select d.oid from pg_database d where d.datname = current_database())"""
_HOLDERS = f"select concat(a.application_name) {_HELD}"
_TAKEN = f"select l.objid::int8 {_HELD}"


class _Session(Protocol):
    def ask(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""


def holders(session: _Session) -> list[str]:
    """Return the application name of the session that holds each slot of a run. Behind a pooler, none does."""
    return [name for (name,) in session.ask(_HOLDERS, {"space": _SLOT_SPACE})]


class ConnectionLimit:
    """The part of the limit that the connections of one ``Source`` may use.

    Args:
        most: ``PG_BRONZE_MAX_CONNECTIONS``; 0 for no limit.
        slots: How many runs may have connections at once.
        place: The server and database, which the limit is for.
        use: ``sensor`` has a separate connection, ``short`` the short one as long as it is open, and ``run`` the
            short one until it has a slot.
    """

    def __init__(self, most: int = 0, slots: int = 0, place: str = "", use: Use = "sensor") -> None:
        self._most = most
        self._slots = slots
        self._use = use
        self._lock = _lock_of(place) if most else None
        self._run: psycopg.Connection | None = None
        self._further: list[int] = []

    @contextmanager
    def opening(self, name: str) -> Iterator[None]:
        """Have the right to the short connection while a connection is opened.

        Args:
            name: The server, for messages.

        Raises:
            NoConnectionFree: Another process has it for too long. Retried at the next tick.
        """
        if self._lock is None or self._use == "sensor":
            yield
            return
        self._acquire(self._lock, name, WAIT_S)
        try:
            yield
        except BaseException:
            self.release()
            raise
        if self._use == "run":
            self.release()

    @contextmanager
    def ending(self, name: str) -> Iterator[None]:
        """Have the right to the short connection for a moment, to end a read of another session."""
        if self._lock is None:
            yield
            return
        self._acquire(self._lock, name, ENDING_WAIT_S)
        try:
            yield
        finally:
            self.release()

    def admit(self, connection: psycopg.Connection, pooled: bool, name: str) -> None:
        """Take a slot for the life of the kept connection of a run. Raises NoConnectionFree if all are taken.

        Behind a pooler none is taken: it would stay with a session that the pooler reuses.
        """
        self._run, self._further = connection, []  # the slots of a connection before it are free
        if self._lock is None or pooled or self._use != "run":
            return
        if not any(_took(connection, slot) for slot in range(self._slots)):
            raise self._none_free(name)

    def further(self, connection: psycopg.Connection, pooled: bool, wanted: int) -> int:
        """Return how many connections beside its two a run may have now, and take slots for them.

        Args:
            connection: The kept connection of the run.
            pooled: A pooler is in front of the server, where no slot can be held.
            wanted: The most that it returns.
        """
        if self._lock is None:
            return wanted
        if pooled or self._use != "run":
            return 0
        taken = {slot for (slot,) in connection.execute(_TAKEN, {"space": _SLOT_SPACE}).fetchall()}
        free = [slot for slot in range(self._slots) if slot not in taken]
        most = run_slots.further(len(free), len(self._further), -(-wanted // _CONNECTIONS_PER_SLOT))
        self._further += [slot for slot in free[: max(0, most - len(self._further))] if _took(connection, slot)]
        return min(wanted, _CONNECTIONS_PER_SLOT * min(most, len(self._further)))

    def give_back(self, kept: int) -> None:
        """Release the slots that a run does not need for ``kept`` connections beside its two; the others are closed."""
        needed = -(-kept // _CONNECTIONS_PER_SLOT)
        released, self._further = self._further[needed:], self._further[:needed]
        if self._run is not None:
            for slot in released:
                self._run.execute(_RELEASE, {"space": _SLOT_SPACE, "slot": slot})

    def release(self) -> None:
        """Leave the short connection to others; does nothing if this is not its holder."""
        if self._lock is not None:
            self._lock.release(force=True)

    def _acquire(self, lock: filelock.BaseFileLock, name: str, wait_s: float) -> None:
        try:
            lock.acquire(timeout=wait_s)
        except filelock.Timeout as error:
            raise self._none_free(name) from error
        except OSError as error:
            raise SettingsError(
                f"PG_BRONZE_MAX_CONNECTIONS requires a file that cannot be locked ({type(error).__name__}): "
                f"{lock.lock_file}. Set TMPDIR to a folder in which this user may write. It is retried after the fix."
            ) from error

    def _none_free(self, name: str) -> NoConnectionFree:
        runs = f"{self._slots} run{'' if self._slots == 1 else 's'}"
        return NoConnectionFree(
            f"{name}: no connection is free, because PG_BRONZE_MAX_CONNECTIONS is {self._most}, which is enough for "
            f"{runs} at once. It is retried at the next tick."
        )


def _took(connection: psycopg.Connection, slot: int) -> bool:
    found = connection.execute(_TAKE, {"space": _SLOT_SPACE, "slot": slot}).fetchone()
    return bool(found and found[0])


def _lock_of(place: str) -> filelock.BaseFileLock:
    # The folder may be shared with other users, whose files cannot be locked.
    user = getattr(os, "getuid", int)()
    name = hashlib.sha256(f"{user} {place}".encode()).hexdigest()[:16]
    return filelock.FileLock(Path(tempfile.gettempdir(), f"pg_bronze_{name}.lock"), thread_local=False)
