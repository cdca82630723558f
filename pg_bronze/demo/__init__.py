"""The demo: PostgreSQL, an S3 server, a sample database with a writer, and ``dagster dev``, all on this machine.

Belongs here: starting and stopping programs, and the sample data. Does not belong here: anything that copies tables.
The servers are also used by the tests and the benchmarks. Dagster runs as a program and is not imported.
"""
