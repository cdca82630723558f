"""Planted faults of pg_bronze.lake; see ``pg_bronze_tests.planting``."""

from pg_bronze_tests.planting import Fault

FAULTS: tuple[Fault, ...] = (
    Fault(
        "no second listing after a claim was created",
        "lake/commit.py",
        "if self.ledger.newer(claim.before.key):",
        "if False:",
        "sync/test_two_writers.py::test_a_writer_that_pauses_while_another_copies_the_same_rows_doubles_nothing",
    ),
    Fault(
        "any claim that exists counts as our own",
        "lake/commit.py",
        "if existing is None or Claim.from_text(existing, claim_key).nonce != claim.nonce:",
        "if existing is None:",
        "sync/test_two_writers.py::test_a_slice_is_dropped_if_another_writer_has_claimed_its_number",
    ),
)
