"""A run coordinator whose queue is read every half second, and whose daemon evaluates sensors every two seconds.

Dagster reads the queue once a second at most, and evaluates sensors every five seconds: a tick of two seconds would
come after five. The daemon also gets its console. The web server and the daemon import this module.
"""

from dagster._core.run_coordinator import QueuedRunCoordinator

from pg_bronze.defs import daemon_console

# The daemon waits in steps of half a second, so this means half a second.
_DEQUEUE_INTERVAL_S = 0.4
# Two seconds fit into ten: a sensor with an interval of 9 s is evaluated every 10 s, as with Dagster's five seconds.
_SENSOR_INTERVAL_S = 2


class PromptRunCoordinator(QueuedRunCoordinator):
    """Dagster's run coordinator; in its daemon the queue is looked at every 0.5 s, and sensors every 2 s."""

    @property
    def dequeue_interval_seconds(self) -> float:  # type: ignore[override]  # the daemon accepts fractions
        """Seconds between two looks at the queue. The daemon asks for it once, when it starts."""
        from dagster._daemon import sensor

        daemon_console.install()
        sensor.MIN_INTERVAL_LOOP_TIME = _SENSOR_INTERVAL_S
        return _DEQUEUE_INTERVAL_S
