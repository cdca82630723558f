"""Scheduling: which tables are due, and when a failing table is retried. Pure functions.

Belongs here: every decision about *when* a table is copied. Does not belong here: I/O, clocks, Dagster. The sensor and
the command line collect the facts, call these functions, and act on the result.
"""
