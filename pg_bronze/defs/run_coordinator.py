"""A run coordinator whose queue is read as soon as a sensor has submitted a run, and every half second.

Dagster reads the queue once a second at most, and evaluates sensors every five seconds: a tick of two seconds would
come after five. The daemon also gets its console. The web server and the daemon import this module.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.storage.dagster_run import DagsterRun

from pg_bronze.defs import daemon_console

# After this time the queue is read anyway: for runs that another process has submitted, such as the web server, and
# for those that wait until another run has ended.
QUEUE_INTERVAL_S = 0.5
# The interval of Dagster's daemon. It is shorter, so the daemon does not wait again after an iteration that has waited.
_DEQUEUE_INTERVAL_S = 0.4
# Two seconds fit into ten: a sensor with an interval of 9 s is evaluated every 10 s, as with Dagster's five seconds.
_SENSOR_INTERVAL_S = 2


class PromptRunCoordinator(QueuedRunCoordinator):
    """Dagster's run coordinator; its daemon reads the queue when it submits a run, and evaluates sensors every 2 s."""

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        # Set if a run was submitted in this process, and the queue has not been read since then.
        self.submitted = threading.Event()

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Put a run into the queue, and let the daemon read it if this is its process."""
        run = super().submit_run(context)
        self.submitted.set()
        return run

    @property
    def dequeue_interval_seconds(self) -> float:  # type: ignore[override]  # the daemon accepts fractions
        """Seconds between two looks at the queue. The daemon asks for it once, when it starts."""
        from dagster._daemon import sensor
        from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon

        daemon_console.install()
        sensor.MIN_INTERVAL_LOOP_TIME = _SENSOR_INTERVAL_S
        reader: Any = QueuedRunCoordinatorDaemon
        if not hasattr(reader.run_iteration, "__wrapped__"):
            reader.run_iteration = reading_promptly(reader.run_iteration)
        return _DEQUEUE_INTERVAL_S


def reading_promptly(read_queue: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Return an iteration of the queue's daemon that reads the queue until nothing is submitted for half a second.

    Args:
        read_queue: Dagster's iteration, which reads the queue once and launches runs.
    """

    @functools.wraps(read_queue)
    def iterate(daemon: Any, context: Any, fixed_iteration_time: float | None = None) -> Iterator[Any]:
        coordinator = context.instance.run_coordinator
        if not isinstance(coordinator, PromptRunCoordinator):
            yield from read_queue(daemon, context, fixed_iteration_time)
            return
        # Before the queue is read: a run that is submitted meanwhile is read the next time.
        coordinator.submitted.clear()
        yield from read_queue(daemon, context, fixed_iteration_time)
        while coordinator.submitted.wait(QUEUE_INTERVAL_S):
            coordinator.submitted.clear()
            found = False
            for item in read_queue(daemon, context, fixed_iteration_time):
                found = True  # a run that can be launched
                yield item
            if not found:
                return  # a full queue is not read for each submission, but by the daemon half a second later

    return iterate
