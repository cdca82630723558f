"""Changes of the environment during the tests."""

import ctypes
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the list of variables has another name there")


def _variables(address: int) -> list[bytes]:
    found = ctypes.cast(address, ctypes.POINTER(ctypes.c_char_p))
    entries: list[bytes] = []
    while (entry := found[len(entries)]) is not None:
        entries.append(entry)
    return entries


def _address() -> int:
    return ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ").value or 0


def test_a_change_leaves_the_list_that_another_thread_may_be_reading(monkeypatch: pytest.MonkeyPatch):
    """glibc would free it, and the process would sometimes end with SIGSEGV."""
    address, before = _address(), _variables(_address())
    monkeypatch.setenv("PG_BRONZE_TEST_ADDED", "one")
    monkeypatch.delenv("PG_BRONZE_TEST_ADDED")

    assert _address() != address
    assert _variables(address) == before


def test_a_child_process_has_the_changed_variables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PG_BRONZE_TEST_ADDED", "one")
    monkeypatch.setenv("PG_BRONZE_TEST_ADDED", "two")
    monkeypatch.delenv("HOME", raising=False)

    printed = subprocess.run(["env"], capture_output=True, check=True, text=True).stdout.splitlines()

    changed = [line for line in printed if line.startswith(("PG_BRONZE_TEST_ADDED=", "HOME="))]
    assert changed == ["PG_BRONZE_TEST_ADDED=two"]
    assert os.environ["PG_BRONZE_TEST_ADDED"] == "two"
