"""Layout: where things lie in the bucket. Every key is made and taken apart here.

    movie/movie_20260102000010.parquet                  a bronze object (flat)
    movie/date=2026-01-02/movie_20260102000010.parquet  the same with date folders
    sales.movie/…                                       a table outside the schema public
    _pg_bronze/claims/movie/0000000012.json             a claim
    _pg_bronze/old/movie/gen=0/…                        objects of an earlier generation
    _pg_bronze/latest/movie.parquet                     the newest row versions, where an asset keeps them
    _pg_bronze/catalog.json                             the last known catalog

All below an optional prefix. No connection, no clock, no Dagster.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Literal
from urllib.parse import unquote

from pg_bronze.core import table

STAMP = "%Y%m%d%H%M%S"
OWN = "_pg_bronze"
# MinIO keeps objects in files, whose names have at most 255 bytes: `_20260102000010.parquet` comes on top.
LONGEST_FOLDER_BYTES = 220
# What a folder cannot hold without ambiguity: the separators, the escape itself, control characters, and two that no
# listing in XML can show. SeaweedFS makes a slash of a backslash.
_UNSAFE = re.compile(r"[./%\\\x00-\x1f\x7f\ufffe\uffff]")


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match.group().encode())


def _part(name: str) -> str:
    escaped = _UNSAFE.sub(_escape, name)
    if escaped.startswith("date="):  # or a flat key would look like one in a date folder, and be listed twice
        escaped = f"date%3D{escaped[5:]}"
    return f"%5F{escaped[1:]}" if escaped.startswith(OWN) else escaped


@cache
def _key_pattern(folder: str, stem: str) -> re.Pattern[str]:
    stamp = r"([0-9]{4})" + r"([0-9]{2})" * 5
    return re.compile(rf"{re.escape(folder)}/(?:date=\d{{4}}-\d\d-\d\d/)?{re.escape(stem)}_{stamp}\.parquet")


@cache
def folder(schema: str, name: str) -> str:
    """The folder of a table; no two tables share one.

    An unescaped dot only ever separates a schema from a name, and ``public`` is never written.
    """
    return _within(_part(name) if schema == "public" else f"{_part(schema)}.{_part(name)}")


def _within(text: str) -> str:
    """The text, or its beginning and a digest where an object's name would be longer than a file's may be.

    Only a schema and a name full of escapes come to that. ``%~`` comes from no escape.
    """
    whole = text.encode()
    if len(whole) <= LONGEST_FOLDER_BYTES:
        return text
    return f"{whole[:120].decode(errors='ignore')}%~{hashlib.sha256(whole).hexdigest()[:32]}"


def table_of(folder_name: str) -> tuple[str, str]:
    """``(schema, name)`` of a folder: the inverse of ``folder``, but for the few that end in a digest."""
    schema, dot, name = folder_name.partition(".")
    return (unquote(schema), unquote(name)) if dot else ("public", unquote(schema))


@dataclass(frozen=True)
class Layout:
    """The keys of one table in one bucket.

    ``prefix`` has no slash at either end. ``dated`` puts new objects into ``date=YYYY-MM-DD/`` folders; objects of
    both layouts are found either way. A key's time is UTC, to the second, and is the object's identity in the table.
    """

    prefix: str
    schema: str
    name: str
    style: Literal["flat", "date"] = "flat"

    @property
    def folder(self) -> str:
        """The table's folder with the prefix, without a slash at the end."""
        return self._below(folder(self.schema, self.name))

    @property
    def label(self) -> str:
        """The table as messages name it."""
        return table.label(self.schema, self.name)

    @property
    def stem(self) -> str:
        """What object names start with."""
        return folder(self.schema, self.name)

    def key(self, at: datetime) -> str:
        """The key of the object written at a second (aware UTC)."""
        day = f"date={at:%Y-%m-%d}/" if self.style == "date" else ""
        return f"{self.folder}/{day}{self.stem}_{at:{STAMP}}.parquet"

    def time(self, key: str) -> datetime | None:
        """The second in a key of this table, whatever its layout; None for any other key."""
        match = _key_pattern(self.folder, self.stem).fullmatch(key)
        if match is None:
            return None
        year, month, day, hour, minute, second = map(int, match.groups())
        try:
            # Not strptime: with thousands of keys in a listing it took as long as all requests.
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            return None

    def day(self, key: str) -> date | None:
        """The UTC day an object belongs to: its partition."""
        time = self.time(key)
        return time.date() if time else None

    def listings(self, after: datetime | None) -> tuple[tuple[str, str], ...]:
        """``(prefix, start_after)`` pairs that together list every object at or after a second, of both layouts.

        ``start_after`` excludes itself, so it is a key just before the wanted one; "" lists from the beginning.
        """
        flat, dated = f"{self.folder}/{self.stem}_", f"{self.folder}/date="
        if after is None:
            return (flat, ""), (dated, "")
        return (
            (flat, f"{flat}{after:{STAMP}}.parque"),
            (dated, f"{dated}{after:%Y-%m-%d}/{self.stem}_{after:{STAMP}}.parque"),
        )

    @property
    def claims(self) -> str:
        """The folder of the table's claims, with a slash at the end."""
        return self._below(f"{OWN}/claims/{self.stem}/")

    def claim(self, seq: int) -> str:
        """The key of the claim for object number ``seq``."""
        return f"{self.claims}{seq:010}.json"

    def claim_seq(self, key: str) -> int | None:
        """The number in a claim's key; None for any other key."""
        match = re.fullmatch(re.escape(self.claims) + r"(\d{10})\.json", key)
        return int(match.group(1)) if match else None

    def old(self, key: str, generation: int) -> str:
        """Where an object of an earlier generation is moved to."""
        return self._below(f"{OWN}/old/{self.stem}/gen={generation}/{key.removeprefix(self.folder + '/')}")

    @property
    def latest(self) -> str:
        """Where the newest row versions are kept as one object; no table's folder can be there."""
        return self._below(f"{OWN}/latest/{self.stem}.parquet")

    def _below(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key


def own_key(prefix: str, name: str) -> str:
    """The key of something of pg_bronze's own, such as ``catalog.json``."""
    return f"{prefix}/{OWN}/{name}" if prefix else f"{OWN}/{name}"


def next_time(now: datetime, last: datetime | None) -> datetime:
    """The second the next object is named by: now, or one second after the last object where that is later."""
    now = now.astimezone(UTC).replace(microsecond=0)
    return now if last is None else max(now, last + timedelta(seconds=1))


def search_starts(now: datetime) -> tuple[datetime | None, ...]:
    """Where to start looking for a table's newest object, nearest first; None is "from the beginning"."""
    return (*(now - timedelta(days=days) for days in (1, 32, 1024)), None)
