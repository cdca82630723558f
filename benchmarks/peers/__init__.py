"""The comparison with peers: other programs that copy PostgreSQL tables into Parquet, on the same servers.

``docs/performance.md`` is the report; ``__main__`` has the command line. The programs themselves are in ``tools``.
"""
