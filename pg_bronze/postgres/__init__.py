"""PostgreSQL: the connection, the catalog, the activity probe, the readers and the control table.

Belongs here: every statement sent to the source database, and the translation of its errors. Does not belong here:
what to read next (``core.planning``) and where rows go (``lake``). Rows leave as Polars frames, facts as plain
values.
"""
