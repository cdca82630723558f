"""The monitor: a process that evaluates the status at intervals, serves it as metrics, and sends alerts."""
