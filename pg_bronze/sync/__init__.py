"""Sync: copies one table. Recover, plan, read; the slices are yielded to whoever writes them.

Belongs here: the order of steps between ``postgres`` and ``lake`` for one table, and the operations on its watermark
(reset, continue, reconcile, verify a day). Does not belong here: Dagster, settings from the environment, decisions
about when. Slices go out, ``SyncReport`` comes back.
"""
