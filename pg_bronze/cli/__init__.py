"""The command line ``pg-bronze``: one batch, repeated batches, the demo, and operations on a table's watermark.

Belongs here: arguments, terminal output, exit codes, interrupts. Does not belong here: a second way to copy a table
or to decide what is due; commands call ``defs`` and ``scheduling`` as the sensor does.
"""
