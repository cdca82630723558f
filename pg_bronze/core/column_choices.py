"""Column choices: which columns of a table are copied, and which of them are masked.

Belongs here: applying the options of a table to its definition, and refusing options that would uncover a value or
that the table does not have. Does not belong here: the SQL of a mask (``column_types``). What an excluded or masked
column contains is not read by any query, so it is neither the cursor column nor the order of bands.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from pg_bronze.core import column_types, masks
from pg_bronze.core.drift import Description
from pg_bronze.core.table import Column, SourceTable, quote, shell_argument
from pg_bronze.errors import SettingsError
from pg_bronze.settings.choices import Mask

_WHERE = "in pg_bronze.toml or PG_BRONZE_TABLES"
_TEXT_LITERAL = re.compile(r"'(?:[^']|'')*'")


@dataclass(frozen=True)
class ColumnChoices:
    """What the options of a table say about its columns.

    Attributes:
        include: The columns to copy; None for all.
        exclude: The columns not to copy.
        masks: What is stored instead of the values of a column.
        named: The columns that are named for this table alone, and not by a pattern; they must exist.
    """

    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    masks: Mapping[str, Mask] = field(default_factory=lambda: MappingProxyType({}))
    named: frozenset[str] = frozenset()

    def apply(self, table: SourceTable) -> SourceTable:
        """Return the table with the columns that are copied, as they are masked. Raises nothing; see ``check``."""
        if self.include is None and not self.exclude and not self.masks:
            return table
        copied = tuple(self._as_masked(column) for column in table.columns if self._is_copied(column.name))
        left = {column.name for column in copied}
        excluded = tuple((column.attnum, column.name) for column in table.columns if column.name not in left)
        key = table.primary_key if set(table.primary_key) <= left else ()
        return replace(table, columns=copied, excluded=excluded, primary_key=key)

    def check(self, table: SourceTable) -> None:
        """Check the choices against the definition of a table, as the catalog has it.

        Raises:
            SettingsError: A named column does not exist, the primary key would be lost, a value would be uncovered by
                a generated column, or a fixed value does not have the type of its column.
        """
        for problem in (*self._unknown(table), *self._of_key(table), *self._uncovered(table)):
            raise SettingsError(f"{table.label}: {problem}. It is retried after the fix.")

    def check_values(self, table: SourceTable) -> None:
        """Check the fixed values of the masks of a table that the choices and its policies were applied to.

        Raises:
            SettingsError: A value does not have the type that its column is stored as.
        """
        for column in table.columns:
            if column.mask is None:
                continue
            try:
                masks.fixed_value(column.mask, column_types.rule(column).stored)
            except ValueError as error:
                raise SettingsError(
                    f"{table.label}: the mask of column {column.name!r} ({column.declared}) is not valid: {error}. "
                    f"Correct it {_WHERE}, or set it to null or sha256. It is retried after the fix."
                ) from error

    def _is_copied(self, name: str) -> bool:
        return name not in self.exclude and (self.include is None or name in self.include)

    def _as_masked(self, column: Column) -> Column:
        mask = self.masks.get(column.name)
        if mask is None:
            return column
        # A default and a label are values of the column. NULL may be stored whatever the column allows.
        not_null = column.not_null and mask.kind != "null"
        return replace(column, mask=mask, missing=None, labels=None, not_null=not_null)

    def _unknown(self, table: SourceTable) -> Iterator[str]:
        names = [column.name for column in table.columns]
        for name in sorted(self.named.difference(names)):
            similar = difflib.get_close_matches(name, names, n=1)
            remedy = f"Did you mean {similar[0]!r}?" if similar else f"Its columns are {', '.join(map(repr, names))}."
            yield (
                f"column {name!r}, which is named {_WHERE}, does not exist. {remedy} After a rename, write "
                "the new name there, because the values would be copied otherwise"
            )

    def _of_key(self, table: SourceTable) -> Iterator[str]:
        for name in table.primary_key:
            if not self._is_copied(name):
                yield (
                    f"column {name!r} is excluded and belongs to the primary key, without which the versions of a row "
                    f"cannot be told apart. Copy it, or mask it with sha256, {_WHERE}"
                )
            elif (mask := self.masks.get(name)) and mask.kind != "sha256":
                yield (
                    f"column {name!r} belongs to the primary key, and its mask stores the same for different rows. "
                    f"Use sha256 {_WHERE}, which keeps different values different"
                )

    def _uncovered(self, table: SourceTable) -> Iterator[str]:
        """Yield a problem for each generated column that is copied as it is and computed from one that is not."""
        hidden = [item.name for item in table.columns if item.name in self.masks or not self._is_copied(item.name)]
        for column in table.columns:
            if column.generated_as is None or column.name in hidden:
                continue
            for name in hidden:
                if _mentions(column.generated_as, name):
                    yield (
                        f"column {column.name!r} is computed from column {name!r}, which is excluded or masked. "
                        f"Exclude or mask it too {_WHERE}"
                    )


def uncovered_by_rename(before: Description, table: SourceTable) -> str | None:
    """Return why a table is not copied that has a renamed column, as a sentence; None if it is copied.

    A column that was excluded or masked under its former name, by a pattern of table names for example, would be copied
    as it is under the new one.

    Args:
        before: The columns of the last object.
        table: The table with the choices applied.
    """
    masked = {column.attnum: column.name for column in before.source_columns if column.mask}
    former = {**before.excluded, **masked}
    for column in table.columns:
        name = former.get(column.attnum, column.name)
        if name != column.name and column.mask is None:
            return (
                f"{table.label}: column {name!r}, which was excluded or masked, is called {column.name!r} now and "
                f"would be copied as it is. Write the new name {_WHERE}. To copy the values, run `pg-bronze reset "
                f"{shell_argument(table.label)}`. It is retried after the fix."
            )
    return None


def hidden(table: SourceTable) -> dict[int, str]:
    """Return the names of the columns that are excluded or masked, by attnum."""
    masked = {column.attnum: column.name for column in table.columns if column.mask}
    return {**dict(table.excluded), **masked}


def uncovers(former: Description, table: SourceTable) -> bool:
    """Return whether the columns of an object have values that are excluded or masked in another way now."""
    masks_now = {column.attnum: column.mask for column in table.columns}
    excluded = {attnum for attnum, _ in table.excluded}
    return any(
        column.attnum in excluded or masks_now.get(column.attnum, column.mask) not in (None, column.mask)
        for column in former.source_columns
    )


def _mentions(expression: str, name: str) -> bool:
    """Return whether an expression, as PostgreSQL prints it, uses a column; a function of that name does not count."""
    code = _TEXT_LITERAL.sub("''", expression)
    if quote(name) in code:
        return True
    return bool(re.search(rf'(?<![\w"$:.]){re.escape(name)}(?![\w"$]|\s*\()', code))
