"""Sync: copies one table. It recovers, plans, reads, and yields slices, which the caller writes.

Belongs here: the order of steps between ``postgres`` and ``lake`` for one table, and the operations on its watermark
(reset, continue, reconcile, verify a day). Does not belong here: Dagster, settings from the environment, decisions
about when. Slices go out to ``lake.commit.write_all``; a ``SyncReport`` is returned.
"""
