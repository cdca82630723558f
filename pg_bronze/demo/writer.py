"""A writer that changes the sample database: a few rows every two seconds, some of them committed late.

It reconnects when the server was restarted.
"""

import contextlib
import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pg_bronze.demo import sample

if TYPE_CHECKING:
    from pg_bronze.demo.sample import Connection

# In rounds: how often a transaction begins that is committed late, and how many rounds it stays open. That is longer
# than the interval of the ticks, so that one of them copies rows that were inserted later and committed before.
_LATE_EVERY, _LATE_FOR = 20, 6


class SampleWriter:
    """A thread that inserts and updates rows until it is stopped.

    ``round_count`` is the number of committed rounds, ``failure`` the class of the last error, None after a commit.

    Args:
        connect: Opens a connection to ``cine``.
        pause_s: Seconds between two rounds.
        seed: Makes the choice of rows repeatable.
    """

    def __init__(self, connect: "Callable[[], Connection]", *, pause_s: float = 2.0, seed: int | None = None) -> None:
        self.round_count = 0
        self.failure: str | None = None
        self._connect = connect
        self._pause_s = pause_s
        self._dice = random.Random(seed)  # noqa: S311  (the choice of rows is no secret)
        self._stopping = threading.Event()
        # A daemon: a statement that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="sample writer", daemon=True)

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Stop after the current round; False if that takes longer than ``timeout_s`` seconds."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        import psycopg

        while not self._stopping.is_set():
            try:
                with contextlib.closing(self._connect()) as steady, contextlib.closing(self._connect()) as late:
                    steady.autocommit = True
                    self._write(steady, late)
            except psycopg.OperationalError as error:
                self.failure = type(error).__name__
                self._stopping.wait(self._pause_s)

    def _write(self, steady: "Connection", late: "Connection") -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            since = (number - 1) % _LATE_EVERY
            if since == _LATE_FOR:
                late.commit()
            if since <= _LATE_FOR:
                self._add_movie(steady)  # as others do before, meanwhile and after
            if since == 0:
                self._add_movie(late)
            with steady.transaction():
                self._change_rows(steady)
            self.round_count += 1
            self.failure = None
            self._stopping.wait(self._pause_s)
        late.commit()

    def _change_rows(self, connection: "Connection") -> None:
        match self._dice.randrange(6):
            case 0:
                self._add_movie(connection)
            case 1:
                self._add_screening(connection)
            case 2:
                connection.execute(
                    "update person set born = coalesce(born, date '1970-01-01') + 1 where person_id = %s",
                    [self._dice.randint(1, sample.PERSON_COUNT)],
                )
            case _:
                chosen = [self._dice.randint(1, sample.MOVIE_COUNT) for _ in range(self._dice.randint(1, 4))]
                connection.execute(
                    "update movie set vote_count = vote_count + 1, rating = least(10, rating + 0.1) "
                    "where movie_id = any(%s)",
                    [chosen],
                )

    def _add_movie(self, connection: "Connection") -> None:
        connection.execute(
            "with added as (insert into movie (title, released, runtime_min, rating) "
            "values (%s, current_date, %s, 5) returning movie_id) "
            "insert into movie_genre select movie_id, %s from added",
            [sample.title(self._dice), self._dice.randint(60, 210), self._dice.randint(1, 14)],
        )

    def _add_screening(self, connection: "Connection") -> None:
        connection.execute(
            "insert into screening (movie_id, room, fecha) values (%s, %s, now())",
            [self._dice.randint(1, sample.MOVIE_COUNT), f"room {self._dice.randint(1, 6)}"],
        )
