"""The core: decisions about tables, columns, windows and watermarks, as values in and values out.

Belongs here: the description of a table, how each column is stored, which rows a slice contains, and what is read
next. Does not belong here: I/O, clocks, Dagster, psycopg. Polars is imported only inside functions that touch data.
``postgres`` and ``lake`` pass data in as plain values.
"""
