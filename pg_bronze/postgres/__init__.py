"""PostgreSQL: the connection, the activity probe, the catalog, the readers and the control table.

Belongs here: every statement sent to a database, and the mapping of its errors. Does not belong here: what to read next
(``core.planning``) and where rows are written (``lake``). Rows leave as Polars frames, facts as plain values.
"""
