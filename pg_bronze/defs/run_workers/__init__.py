"""Run workers that stay: processes that have imported everything and execute one run after another.

Starting a process and importing this project takes most of the CPU time of a short run. ``dagster.yaml`` selects the
launcher, which gives runs to such workers. Without a free worker, a run is launched as Dagster does it.

Belongs here: the launcher, its workers, and what they tell each other. Does not belong here: anything about tables.
The web server and the daemon import the launcher, so only ``worker`` imports the rest of pg_bronze.
"""
