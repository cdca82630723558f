"""What every peer is given and returns. Standard library only, because it runs in the environment of each peer.

A tool is started once. Each line of its standard input names a table, and it answers each with a line of JSON, so the
same tool serves a measured copy of one table, several small tables, and repeated copies while writers are active.
Passwords and keys are in the environment, because a process list shows arguments.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MESSAGE_LENGTH = 200


@dataclass(frozen=True)
class Task:
    """Where rows come from and where objects go.

    ``cursor`` is the column of an incremental copy, or empty for a copy of the whole table. ``option`` distinguishes
    variants of one tool. ``folder`` keeps the state of the tool between its processes.
    """

    url: str
    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    prefix: str
    folder: Path
    cursor: str
    option: str

    @property
    def address(self) -> str:
        """The host and port of the S3 server."""
        return self.endpoint.split("://", 1)[1]

    def key(self, table: str) -> str:
        """Return a new object key in the table's folder."""
        return f"{self.prefix}/{table}/{table}_{time.time_ns()}.parquet"


class Cursor:
    """The hand-written ``column > last`` of tools without an incremental mode; the last value is kept in a file."""

    def __init__(self, task: Task, table: str) -> None:
        self._file = task.folder / f"{table}.cursor"
        self.column = task.cursor
        self.last = self._file.read_text(encoding="utf-8") if self.column and self._file.exists() else None

    def highest(self, table: str) -> str:
        """Return the query of the highest value, which is the upper end of the copy."""
        return f"select max({self.column})::text from {table}"

    def query(self, table: str, upper: str | None) -> str:
        """Return the query of the rows in ``(last, upper]``, or of the whole table without a cursor."""
        if not self.column:
            return f"select * from {table}"
        lower = f"{self.column} > '{self.last}' and " if self.last is not None else ""
        return f"select * from {table} where {lower}{self.column} <= '{upper}'"

    def advance(self, upper: str | None) -> None:
        """Record that all rows up to ``upper`` were copied."""
        if self.column and upper is not None:
            self._file.write_text(upper, encoding="utf-8")


def task() -> Task:
    """Return the task that the environment describes."""
    value = os.environ
    return Task(
        url=value["PEER_URL"],
        endpoint=value["PEER_ENDPOINT"],
        access_key=value["AWS_ACCESS_KEY_ID"],
        secret_key=value["AWS_SECRET_ACCESS_KEY"],
        bucket=value["PEER_BUCKET"],
        prefix=value["PEER_PREFIX"],
        folder=Path(value["PEER_FOLDER"]),
        cursor=value["PEER_CURSOR"],
        option=value["PEER_OPTION"],
    )


def serve(copy: Callable[[Task, str], None]) -> None:
    """Copy the tables that standard input names, and print for each the seconds, the CPU seconds and the error."""
    given = task()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    for line in sys.stdin:
        table = line.strip()
        started, before, error = time.monotonic(), os.times(), None
        try:
            copy(given, table)
        except BaseException as raised:  # noqa: BLE001  (a panic of Rust is no Exception)
            error = _explain(raised, given)
        after = os.times()
        cpu_s = sum(after[:4]) - sum(before[:4])
        answer = {"table": table, "seconds": time.monotonic() - started, "cpu_s": cpu_s, "error": error}
        print(json.dumps(answer), file=answers, flush=True)


def _explain(error: BaseException, given: Task) -> str:
    """Return one line about an error, without the URL."""
    text = " ".join(str(error).replace(given.url, "URL").split())
    return f"{type(error).__name__}: {text[:MESSAGE_LENGTH]}"
