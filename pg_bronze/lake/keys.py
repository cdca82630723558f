"""Keys: the names of all objects in the bucket. They are built and parsed only here.

    movie/movie_20260102000010.parquet                  a bronze object (flat)
    movie/date=2026-01-02/movie_20260102000010.parquet  the same with date folders
    sales.movie/…                                       a table outside the schema public
    _pg_bronze/claims/movie/0000000012.json             a claim
    _pg_bronze/claims/movie/stop.json                   the table is stopped
    _pg_bronze/old/movie/gen=0/…                        objects of an earlier generation
    _pg_bronze/latest/movie.parquet                     the newest row versions, if an asset maintains them
    _pg_bronze/catalog.json                             the last known catalog
    _pg_bronze/create_only.json                         the last successful create-only probe

All below an optional prefix. No connection, no clock, no Dagster.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Literal, TypeAlias
from urllib.parse import unquote

from pg_bronze.core import table
from pg_bronze.core.watermark import Watermark

STAMP = "%Y%m%d%H%M%S"
OWN = "_pg_bronze"
_STYLES = ("flat", "date")  # in the order of ``Layout.listings``
# MinIO stores objects in files, whose names are limited to 255 bytes, including `_20260102000010.parquet`.
LONGEST_FOLDER_BYTES = 220
# Characters that are ambiguous in a folder: separators, the escape character, control characters, and two that an XML
# listing cannot contain. SeaweedFS replaces a backslash with a slash.
_UNSAFE = re.compile(r"[./%\\\x00-\x1f\x7f\ufffe\uffff]")


Style: TypeAlias = Literal["flat", "date"]


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match.group().encode())


def _part(name: str) -> str:
    escaped = _UNSAFE.sub(_escape, name)
    if escaped.startswith("date="):  # otherwise a flat key would be listed a second time as one in a date folder
        escaped = f"date%3D{escaped[5:]}"
    return f"%5F{escaped[1:]}" if escaped.startswith(OWN) else escaped


@cache
def _key_pattern(folder: str, stem: str) -> re.Pattern[str]:
    stamp = r"([0-9]{4})" + r"([0-9]{2})" * 5
    return re.compile(rf"{re.escape(folder)}/(?:date=\d{{4}}-\d\d-\d\d/)?{re.escape(stem)}_{stamp}\.parquet")


@cache
def folder(schema: str, name: str) -> str:
    """Return the folder of a table; no two tables share one.

    An unescaped dot always separates a schema from a name. The schema ``public`` is omitted.
    """
    return _within(_part(name) if schema == "public" else f"{_part(schema)}.{_part(name)}")


def _within(text: str) -> str:
    """Return the text, or its beginning and a digest if a file name would become too long.

    Only a long schema and name with many escapes reach the limit. No escape produces ``%~``.
    """
    whole = text.encode()
    if len(whole) <= LONGEST_FOLDER_BYTES:
        return text
    return f"{whole[:120].decode(errors='ignore')}%~{hashlib.sha256(whole).hexdigest()[:32]}"


def table_of(folder_name: str) -> tuple[str, str]:
    """Return ``(schema, name)`` of a folder: the inverse of ``folder``, except for names that end in a digest."""
    schema, dot, name = folder_name.partition(".")
    return (unquote(schema), unquote(name)) if dot else ("public", unquote(schema))


@dataclass(frozen=True)
class Layout:
    """The keys of one table in one bucket.

    The time in a key is UTC, to the second, and identifies the object within its table.

    Attributes:
        prefix: The prefix of all keys, without a slash at either end.
        schema: The table's schema.
        name: The table's name.
        style: ``date`` writes new objects to ``date=YYYY-MM-DD/`` folders. Objects of both styles are always found.
    """

    prefix: str
    schema: str
    name: str
    style: Style = "flat"

    @property
    def folder(self) -> str:
        """The table's folder with the prefix, without a slash at the end."""
        return self._below(folder(self.schema, self.name))

    @property
    def label(self) -> str:
        """The name of the table in messages."""
        return table.label(self.schema, self.name)

    @property
    def stem(self) -> str:
        """The beginning of object names."""
        return folder(self.schema, self.name)

    def key(self, at: datetime, style: Style | None = None) -> str:
        """Return the key of an object written at this time (aware UTC, truncated to the second)."""
        day = f"date={at:%Y-%m-%d}/" if (style or self.style) == "date" else ""
        return f"{self.folder}/{day}{self.stem}_{at:{STAMP}}.parquet"

    def style_of(self, key: str) -> Style:
        """Return the style of a key of this table."""
        return "date" if key.startswith(f"{self.folder}/date=") else "flat"

    def next_style(self, last: Watermark) -> Style:
        """Return the style of the object after a watermark: that of the last one, or one that it announced."""
        if not last.seq or last.next_layout == self.style:
            return self.style
        return self.style_of(last.key)

    def listings_after(self, last: Watermark) -> tuple[tuple[str, str], ...]:
        """Return the ``(prefix, start_after)`` pairs that list the last object of a watermark and the next one.

        Usually one: whatever layout a writer is set to, the next object has the style of the last one or one that the
        last one announced; see ``next_style``.
        """
        pairs = dict(zip(_STYLES, self.listings(self.time(last.key)), strict=True))
        if not last.seq:
            return tuple(pairs.values())
        own = self.style_of(last.key)
        return tuple(pairs[style] for style in _STYLES if style in {own, last.next_layout})

    def time(self, key: str) -> datetime | None:
        """Return the time in a key of this table, of either style; None for any other key."""
        match = _key_pattern(self.folder, self.stem).fullmatch(key)
        if match is None:
            return None
        year, month, day, hour, minute, second = map(int, match.groups())
        try:
            # strptime took as long as all requests with thousands of keys in a listing.
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            return None

    def day(self, key: str) -> date | None:
        """Return the UTC day of an object, which is its partition."""
        time = self.time(key)
        return time.date() if time else None

    def listings(self, after: datetime | None) -> tuple[tuple[str, str], ...]:
        """Return ``(prefix, start_after)`` pairs that together list every object at or after a time, of both styles.

        ``start_after`` is a key just before the first wanted one, because a listing excludes it; ``""`` lists all.
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
        """Return the key of the claim for object number ``seq``."""
        return f"{self.claims}{seq:010}.json"

    def claim_seq(self, key: str) -> int | None:
        """Return the number in a claim's key; None for any other key."""
        match = re.fullmatch(re.escape(self.claims) + r"(\d{10})\.json", key)
        return int(match.group(1)) if match else None

    @property
    def stop(self) -> str:
        """The key of the object that stops the table; see ``lake.stop``. It is listed after all claims."""
        return f"{self.claims}stop.json"

    def old(self, key: str, generation: int) -> str:
        """Return the key that an object of an earlier generation is moved to."""
        return self._below(f"{OWN}/old/{self.stem}/gen={generation}/{key.removeprefix(self.folder + '/')}")

    @property
    def latest(self) -> str:
        """The key of the newest row versions as one object. It is in no table's folder."""
        return self._below(f"{OWN}/latest/{self.stem}.parquet")

    def _below(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key


def place(bucket: str, prefix: str) -> str:
    """Return ``bucket/prefix``, as watermarks contain it."""
    return f"{bucket}/{prefix}" if prefix else bucket


def own_key(prefix: str, name: str) -> str:
    """Return the key of an object that belongs to no table, such as ``catalog.json``."""
    return f"{prefix}/{OWN}/{name}" if prefix else f"{OWN}/{name}"


def next_time(now: datetime, last: datetime | None) -> datetime:
    """Return the time for the next key: now, or one second after the last object if that is later."""
    now = now.astimezone(UTC).replace(microsecond=0)
    return now if last is None else max(now, last + timedelta(seconds=1))


def search_starts(now: datetime) -> tuple[datetime | None, ...]:
    """Return start times for the search for a table's newest object, nearest first; None means the beginning."""
    return (*(now - timedelta(days=days) for days in (1, 32, 1024)), None)
