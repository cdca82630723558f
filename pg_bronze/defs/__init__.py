"""Dagster definitions: assets, IO managers, resources, sensors and metadata. A thin layer over ``sync``.

Belongs here: everything that imports Dagster. Does not belong here: decisions that a test should reach without Dagster.
Sensor, run, asset, IO manager, metadata, control table: data moves in this direction only.
"""
