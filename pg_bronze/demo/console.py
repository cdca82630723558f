"""What the demo prints, and the signals that stop it."""

import contextlib
import signal
import time
from types import FrameType, TracebackType
from typing import Self, TextIO


class Console:
    """Prints lines for the user, who may have closed the terminal, and counts the seconds since the start."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._started = time.monotonic()

    def print(self, text: str) -> None:
        """Print one line."""
        with contextlib.suppress(OSError, ValueError):
            print(text, file=self._out, flush=True)

    @property
    def elapsed_s(self) -> float:
        """The seconds since the start."""
        return time.monotonic() - self._started


class StopSignals:
    """While entered, turns the first SIGINT, SIGTERM or SIGHUP into KeyboardInterrupt, and counts all of them.

    ``requested`` is set as well, because Python discards a KeyboardInterrupt that is raised in a finalizer.
    """

    def __init__(self) -> None:
        self.count = 0
        self.requested = False
        self._handlers: list[tuple[int, object]] = []

    def __enter__(self) -> Self:
        caught = [signal.SIGINT, signal.SIGTERM]
        # nohup ignores SIGHUP, and that must remain so.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            caught.append(signal.SIGHUP)
        self._handlers = [(number, signal.signal(number, self._handle)) for number in caught]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers:
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (the signature of a handler)
        self.count += 1
        if not self.requested:
            self.requested = True
            raise KeyboardInterrupt

    def only_count(self) -> None:
        """Raise no KeyboardInterrupt from now on, so that nothing interrupts an orderly stop."""
        self.requested = True
