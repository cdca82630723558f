"""The core: decisions about tables, columns, windows and watermarks, as values in and values out.

Belongs here: what a table looks like, how each column is stored, which rows a slice holds, what to read next. Does
not belong here: I/O, clocks, Dagster, psycopg. Polars is imported only inside the functions that touch data. Data
comes from ``postgres`` and ``lake`` as plain values; every other package imports this one.
"""
