"""Readers: two ways to run one query and return one frame, connectorx and binary COPY.

Both use the same session settings in a read-only snapshot of their own and return identical frames.
"""
