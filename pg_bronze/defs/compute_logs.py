"""Dagster's compute logs on the local disk, without four extra processes for each run.

Dagster starts two ``tail`` processes, and two of Python that watch them, to show what a run prints also where the run
worker's output goes. Here a thread does that, once a second. The files are the same.

This module is loaded by the web server and the daemon, so it imports nothing of pg_bronze.
"""

import os
import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

from dagster._core.execution.compute_logs import redirect_to_file
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION, LocalComputeLogManager
from dagster._serdes import ConfigurableClassData
from dagster._utils import ensure_file, touch_file

_COPY_EVERY_S = 1.0
_PART_BYTES = 2**20


class MirroringComputeLogManager(LocalComputeLogManager):
    """Dagster's local compute logs. Output goes to a file, and about a second later also to the original stream."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "MirroringComputeLogManager":
        """Return the manager that ``dagster.yaml`` configures."""
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext, None, None]:
        """Write what this process prints to the files of a key."""
        files = [
            self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind])
            for kind in (ComputeIOType.STDOUT, ComputeIOType.STDERR)
        ]
        with _mirrored(sys.stdout, files[0]), _mirrored(sys.stderr, files[1]):
            yield CapturedLogContext(log_key)
        # The artifact that says that the capture is complete.
        touch_file(self.complete_artifact_path(log_key))  # type: ignore[no-untyped-call]  # Dagster has no type there


@contextmanager
def _mirrored(stream: IO[str], file: str) -> Iterator[None]:
    """Redirect a stream into a file, which is copied to the original stream."""
    ensure_file(file)
    try:
        original = os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):  # a test or a notebook has replaced it by an object without a file
        yield
        return
    ended = threading.Event()
    copying = threading.Thread(target=_copy, args=(file, original, ended), name="compute log", daemon=True)
    copying.start()
    try:
        with redirect_to_file(stream, file):
            yield
    finally:
        ended.set()
        copying.join()
        os.close(original)


def _copy(file: str, target: int, ended: threading.Event) -> None:
    """Copy what is appended to a file until ``ended``. A target that is closed gets nothing more."""
    with open(file, "rb") as source:
        last = False
        while not last:
            last = ended.wait(_COPY_EVERY_S)
            while part := source.read(_PART_BYTES):
                try:
                    os.write(target, part)
                except OSError:
                    return
