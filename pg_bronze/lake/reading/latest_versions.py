"""The newest version of each row, in memory that is bounded by the keys and one part of the objects.

A sort or join of the whole table needs memory for every version: with 7.6 million versions of 500,000 rows a sort took
2.4 GB, the join of Polars 2.0 GB. This module reads the keys first, and then the matching rows of one part at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pg_bronze.core.key_identity import KeyIdentity
from pg_bronze.errors import DataError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class _Keys:
    """The key columns, and the columns in which their values have the form that is compared.

    ``compared`` maps each key column to such a column, or to itself if its values are compared as they are.
    """

    identities: Mapping[str, KeyIdentity]
    compared: Mapping[str, str]
    xid: str
    label: str

    @property
    def by(self) -> list[str]:
        return list(self.compared.values())

    def forms(self) -> "list[pl.Expr]":
        """Return the columns in which values were brought into one form."""
        import polars as pl

        forms = [(name, self.identities[name].form) for name in self.compared]
        return [form(pl.col(name)).alias(self.compared[name]) for name, form in forms if form is not None]

    def check(self, keys: "pl.DataFrame") -> None:
        """Check that no two keys are different only in letters whose lower case depends on the server."""
        import polars as pl

        widest = {self.compared[name]: item.widest for name, item in self.identities.items() if item.widest is not None}
        if not widest:
            return
        folded = keys.select(widest[name](pl.col(name)).alias(name) if name in widest else name for name in self.by)
        if folded.is_duplicated().any():
            names = ", ".join(repr(name) for name, item in self.identities.items() if item.widest is not None)
            raise DataError(
                f"{self.label}: several values of column {names} (citext) are different only in letters beyond ASCII, "
                "and only the database can tell whether it treats them as equal. Read all versions and compare them as "
                "the data requires."
            )


def newest_versions(
    parts: "Sequence[pl.LazyFrame]",
    schema: "pl.Schema",
    identities: Mapping[str, KeyIdentity],
    xid_column: str,
    label: str,
) -> "pl.LazyFrame":
    """Return the row with the highest transaction id for each key, in no particular order.

    A filter on key columns alone is applied before rows are compared, if their values are compared as they are. Columns
    that are not selected are not read.

    Args:
        parts: The row versions, read one part after the other.
        schema: The columns of every part.
        identities: How the values of each key column are compared.
        xid_column: The column with the transaction id.
        label: The name of the table, for messages.
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
        named = {plain[name]: identity for name, identity in identities.items()}
        return newest_versions(renamed, inner, named, plain[xid_column], label).select(shown)

    keys = _keys(identities, schema, xid_column, label)
    unchanged = {name for name, compared in keys.compared.items() if name == compared}

    def rows(
        with_columns: list[str] | None, predicate: "pl.Expr | None", n_rows: int | None, _batch_size: int | None
    ) -> "Iterator[pl.DataFrame]":
        wanted = list(schema) if with_columns is None else with_columns
        early = predicate is not None and set(predicate.meta.root_names()) <= unchanged
        filtered = [part.filter(predicate) for part in parts] if early and predicate is not None else parts
        left = n_rows
        for frame in _newest(filtered, wanted, keys):
            if predicate is not None and not early:
                frame = frame.filter(predicate)
            if left is not None:
                frame = frame.head(left)
                left -= frame.height
            yield frame
            if left == 0:
                return

    return register_io_source(rows, schema=schema, is_pure=True, explain_name="newest versions")


def _keys(identities: Mapping[str, KeyIdentity], schema: "pl.Schema", xid_column: str, label: str) -> _Keys:
    taken = list(schema)
    compared = {}
    for name, identity in identities.items():
        compared[name] = name if identity.form is None else _free(f"{name}_compared", taken)
        taken.append(compared[name])
    return _Keys(identities, compared, xid_column, label)


def _newest(parts: "Sequence[pl.LazyFrame]", wanted: Sequence[str], keys: _Keys) -> "Iterator[pl.DataFrame]":
    import polars as pl

    xid = keys.xid
    needed = list(dict.fromkeys([*wanted, *keys.compared, xid]))
    compared = [part.select(needed).with_columns(keys.forms()) for part in parts]
    if len(parts) == 1:  # read once, because the requests take most of the time with many small objects
        rows = compared[0].collect(engine="streaming")
        found = rows.group_by(keys.by).agg(pl.col(xid).max())
        keys.check(found)
        yield _matching(rows.lazy(), found, keys, wanted)
        return
    part = _free("part", [*needed, *keys.by])
    numbered = [
        frame.select(*keys.by, xid, pl.lit(number, dtype=pl.UInt32).alias(part))
        for number, frame in enumerate(compared)
    ]
    found = (
        pl.concat(numbered)
        .group_by(keys.by)
        .agg(pl.col(xid).max(), pl.col(part).max_by(xid))
        .collect(engine="streaming")
    )
    keys.check(found)
    of_part = found.partition_by(part, as_dict=True, include_key=False)
    del found
    for number, frame in enumerate(compared):
        if (number,) in of_part:
            yield _matching(frame, of_part.pop((number,)), keys, wanted)


def _matching(frame: "pl.LazyFrame", found: "pl.DataFrame", keys: _Keys, wanted: Sequence[str]) -> "pl.DataFrame":
    # Several rows can have the highest id if the columns are not a key of the table; one of them is returned.
    return (
        frame.join(found.lazy(), on=[*keys.by, keys.xid], how="semi", nulls_equal=True)
        .unique(keys.by, keep="any")
        .select(wanted)
        .collect(engine="streaming")
    )


def _free(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name = f"{name}_"
    return name
