"""Measurements and long proofs; run one with ``python -m benchmarks.NAME`` in the project folder."""
