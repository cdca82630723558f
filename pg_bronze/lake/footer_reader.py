"""Reading the footers of objects: the end of each object in one request, two for very wide tables."""

import io
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from pg_bronze.lake.footer import ENTRY, Footer
from pg_bronze.lake.object_store import Store

if TYPE_CHECKING:
    import polars as pl


# Contains the footer of a few hundred columns; a larger one costs a second request.
TAIL_BYTES = 65536
_MAGIC = b"PAR1"
# Half of the client's connections.
READERS = 8
AHEAD = 32


def read(store: Store, key: str) -> Footer | None:
    """Return the footer of an object, or None if the object is missing or was not written by pg_bronze."""
    import polars as pl

    tail = _tail(store, key)
    try:
        text = pl.read_parquet_metadata(tail).get(ENTRY) if tail else None
    except pl.exceptions.PolarsError:
        return None
    return Footer.from_text(text, key) if text is not None else None


def read_many(store: Store, keys: Iterable[str]) -> Iterator[tuple[str, Footer | None]]:
    """Read the footers of objects, several at a time; yield them in the order of the keys.

    At most ``AHEAD`` footers are in memory, however many keys there are.
    """
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="footers")
    reading: deque[tuple[str, Future[Footer | None]]] = deque()
    try:
        for key in keys:
            reading.append((key, pool.submit(read, store, key)))
            if len(reading) == AHEAD:
                first, footer = reading.popleft()
                yield first, footer.result()
        for key, footer in reading:
            yield key, footer.result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_with_schema(store: Store, key: str) -> "tuple[Footer, pl.Schema] | None":
    """Return the footer of an object and its Parquet columns, or None as ``read`` does."""
    import polars as pl

    tail = _tail(store, key)
    try:
        text = pl.read_parquet_metadata(tail).get(ENTRY) if tail else None
        if tail is None or text is None:
            return None
        return Footer.from_text(text, key), pl.Schema(pl.read_parquet_schema(tail))
    except pl.exceptions.PolarsError:
        return None


def _tail(store: Store, key: str) -> io.BytesIO | None:
    """Return the end of an object with its whole Parquet footer; None if it is missing or not Parquet."""
    tail = store.tail(key, TAIL_BYTES)
    if tail is None or len(tail) < 12 or tail[-4:] != _MAGIC:
        return None
    size_bytes = int.from_bytes(tail[-8:-4], "little") + 8
    if size_bytes > len(tail):
        tail = store.tail(key, size_bytes) or b""
    return io.BytesIO(tail)
