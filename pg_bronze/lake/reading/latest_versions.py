"""The newest version of each row, in memory that is bounded by the keys and one part of the objects.

A sort or join of the whole table needs memory for every version: with 7.6 million versions of 500,000 rows a sort took
2.4 GB, the join of Polars 2.0 GB. This module reads the keys first, and then the matching rows of one part at a time.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def newest_versions(
    parts: "Sequence[pl.LazyFrame]", schema: "pl.Schema", by: Sequence[str], xid_column: str
) -> "pl.LazyFrame":
    """Return the row with the highest transaction id for each key, in no particular order.

    A filter on key columns alone is applied before rows are compared. Columns that are not selected are not read.

    Args:
        parts: The row versions, read one part after the other.
        schema: The columns of every part.
        by: The key columns.
        xid_column: The column with the transaction id.
    """
    import polars as pl
    from polars.io.plugins import register_io_source
    from polars.selectors import by_name

    if any(name.startswith(("*", "^")) for name in schema):
        # Polars interprets such names as patterns, also in the filters that it passes, so they are replaced.
        plain = {name: f"column_{number}" for number, name in enumerate(schema)}
        renamed = [part.select(by_name(name).alias(plain[name]) for name in schema) for part in parts]
        shown = [pl.col(plain[name]).alias(name) for name in schema]
        inner = pl.Schema((plain[name], dtype) for name, dtype in schema.items())
        return newest_versions(renamed, inner, [plain[name] for name in by], plain[xid_column]).select(shown)

    def rows(
        with_columns: list[str] | None, predicate: "pl.Expr | None", n_rows: int | None, _batch_size: int | None
    ) -> "Iterator[pl.DataFrame]":
        wanted = list(schema) if with_columns is None else with_columns
        early = predicate is not None and set(predicate.meta.root_names()) <= set(by)
        filtered = [part.filter(predicate) for part in parts] if early and predicate is not None else parts
        left = n_rows
        for frame in _newest(filtered, wanted, by, xid_column):
            if predicate is not None and not early:
                frame = frame.filter(predicate)
            if left is not None:
                frame = frame.head(left)
                left -= frame.height
            yield frame
            if left == 0:
                return

    return register_io_source(rows, schema=schema, is_pure=True, explain_name="newest versions")


def _newest(
    parts: "Sequence[pl.LazyFrame]", wanted: Sequence[str], by: Sequence[str], xid_column: str
) -> "Iterator[pl.DataFrame]":
    import polars as pl

    needed = list(dict.fromkeys([*wanted, *by, xid_column]))
    if len(parts) == 1:  # read once, because the requests take most of the time with many small objects
        rows = parts[0].select(needed).collect(engine="streaming")
        keys = rows.group_by(by).agg(pl.col(xid_column).max())
        yield _matching(rows.lazy(), keys, by, xid_column, wanted)
        return
    part = _free("part", needed)
    numbered = [
        frame.select(*by, xid_column, pl.lit(number, dtype=pl.UInt32).alias(part)) for number, frame in enumerate(parts)
    ]
    keys = (
        pl.concat(numbered)
        .group_by(by)
        .agg(pl.col(xid_column).max(), pl.col(part).max_by(xid_column))
        .collect(engine="streaming")
    )
    of_part = keys.partition_by(part, as_dict=True, include_key=False)
    del keys
    for number, frame in enumerate(parts):
        if (number,) in of_part:
            yield _matching(frame.select(needed), of_part.pop((number,)), by, xid_column, wanted)


def _matching(
    frame: "pl.LazyFrame", keys: "pl.DataFrame", by: Sequence[str], xid_column: str, wanted: Sequence[str]
) -> "pl.DataFrame":
    # Several rows can have the highest id if the columns are not a key of the table; one of them is returned.
    return (
        frame.join(keys.lazy(), on=[*by, xid_column], how="semi", nulls_equal=True)
        .unique(by, keep="any")
        .select(wanted)
        .collect(engine="streaming")
    )


def _free(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name = f"{name}_"
    return name
