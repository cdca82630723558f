"""A type of which some values take ten minutes to print, and how to wait for a read of them to begin and to end."""

import threading
import time
from typing import Any

# An enum is read by ``concat``, and a function of that name for the type itself is preferred to that for any type.
SLOW = """create type feeling as enum ('fast', 'slow');
create function slowly(feeling) returns text language plpgsql as $$
begin
  if $1 = 'slow' then perform pg_sleep(600); end if;
  return textin(enum_out($1));
end $$;
create function pg_catalog.concat(feeling) returns text language sql as 'select public.slowly($1)'"""
FAST = "drop function pg_catalog.concat(feeling)"
ASLEEP = """select pid from pg_stat_activity
where datname = current_database() and wait_event = 'PgSleep' and pid <> pg_backend_pid()"""
_never = threading.Event()


def _asleep(database: Any) -> int:
    return len(database.execute(ASLEEP))


def wait_until_slow(database: Any, timeout_s: float = 60) -> bool:
    """Wait until a session sleeps in the database; without time, only tell whether one does."""
    deadline = time.monotonic() + timeout_s
    while not (found := _asleep(database)) and time.monotonic() < deadline:
        _never.wait(0.05)
    assert found or timeout_s == 0, "no read began"
    return found > 0


def wait_until_gone(database: Any, timeout_s: float = 20) -> None:
    """Fail if a session still sleeps in the database after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while found := _asleep(database):
        assert time.monotonic() < deadline, f"{found} sessions still read"
        _never.wait(0.05)
