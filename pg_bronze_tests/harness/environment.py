"""Changes of the environment that other threads of the process survive.

glibc's ``setenv`` moves the list of variables and frees the former one, which another thread may be reading: gRPC,
Polars and the resolver do, in threads of their own. The process then ends with SIGSEGV. Tests set variables all the
time, so here every change makes a new list, and no list is ever freed.
"""

import ctypes
import os
import sys

# All lists so far, with their texts: about 1 kB for each change.
_lists: list[object] = []


def install() -> None:
    """Let ``os.environ`` change the environment in this way. Child processes inherit it as before."""
    if sys.platform == "linux":
        os.putenv, os.unsetenv = _put, _unset


def _put(name: bytes, value: bytes) -> None:
    _replace([*_others(name), name + b"=" + value])


def _unset(name: bytes) -> None:
    _replace(_others(name))


def _others(name: bytes) -> list[bytes]:
    found = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    entries: list[bytes] = []
    while found and (entry := found[len(entries)]) is not None:
        entries.append(entry)
    return [entry for entry in entries if not entry.startswith(name + b"=")]


def _replace(entries: list[bytes]) -> None:
    made = (ctypes.c_char_p * (len(entries) + 1))(*entries, None)
    _lists.append(made)
    ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ").value = ctypes.addressof(made)
