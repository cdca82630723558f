"""Sensors: which tables are due, whether the catalog changed, and which silver assets are stale."""
