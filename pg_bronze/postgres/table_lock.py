"""The lock of a table: the advisory lock that a run holds while it copies a table. ``connection.Source`` takes it."""

# First of its two 32-bit keys: the letters "pgbr". The slots of runs have another one.
_SPACE = 0x70676272
WAIT = "select pg_advisory_lock(%(space)s, %(oid)s)"


def key(table_oid: int) -> dict[str, int]:
    """Return the parameters of a statement that takes or releases the lock of a table."""
    # Both keys are signed, and an oid is not.
    return {"space": _SPACE, "oid": table_oid - 2**32 if table_oid >= 2**31 else table_oid}
