"""Readers: two ways to run one query and return one frame, connectorx and binary COPY.

Both open the same read-only transaction with the same session settings, and both return identical frames. ``reading``
has what they share, and runs a read in a thread of its own.
"""
