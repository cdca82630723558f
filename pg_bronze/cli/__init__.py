"""The command line ``pg-bronze``: batches, diagnosis, reading, the demo, and changes of a table's watermark.

Belongs here: arguments, terminal output, exit codes, interrupts. Does not belong here: a second way to copy a table or
to decide which tables are due. Commands call ``defs`` and ``scheduling`` as the sensor does.
"""
