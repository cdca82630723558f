"""A writer that keeps the sample database alive: a few rows every couple of seconds, some of them committed late.

It outlives restarts of the server. What it writes is as invented as the sample.
"""

import contextlib
import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pg_bronze.demo import sample

if TYPE_CHECKING:
    from pg_bronze.demo.sample import Connection

# Every so many beats a transaction opens and stays open while the beats after it commit.
_LATE_EVERY, _LATE_FOR = 8, 2


class Writer:
    """A thread that inserts and updates rows until it is stopped.

    ``connect`` opens a connection to ``cine``; ``pause_s`` is the time between two beats, in seconds.
    ``beat_count`` counts the beats that were committed, ``failure`` says why the last one was not.
    """

    def __init__(self, connect: "Callable[[], Connection]", *, pause_s: float = 2.0, seed: int | None = None) -> None:
        self.beat_count = 0
        self.failure: str | None = None
        self._connect = connect
        self._pause_s = pause_s
        self._dice = random.Random(seed)  # noqa: S311  (which film is voted for is no secret)
        self._stopping = threading.Event()
        # A daemon: a statement that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="sample writer", daemon=True)

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Stop after the beat in hand; False if that takes longer than ``timeout_s`` seconds."""
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
                # The server is gone or restarting; the next attempt will tell.
                self.failure = type(error).__name__
                self._stopping.wait(self._pause_s)

    def _write(self, steady: "Connection", late: "Connection") -> None:
        beat = 0
        while not self._stopping.is_set():
            beat += 1
            if beat % _LATE_EVERY == 1:
                self._add_screening(late)
            if beat % _LATE_EVERY == 1 + _LATE_FOR:
                late.commit()
            with steady.transaction():
                self._beat(steady)
            self.beat_count += 1
            self.failure = None
            self._stopping.wait(self._pause_s)
        late.commit()

    def _beat(self, connection: "Connection") -> None:
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
