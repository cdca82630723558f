"""The exporter: metrics over HTTP, and as a file for the textfile collector of node_exporter."""

from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.registry import Collector

from pg_bronze.errors import SettingsError


class Exporter:
    """Where the metrics of one collector can be read.

    Scrapes are answered by threads, and ask nobody. So neither a slow scrape nor many of them hold up an evaluation.
    """

    def __init__(self, metrics: Collector) -> None:
        # Not the default registry, which has metrics of the Python process.
        self._registry = CollectorRegistry()
        self._registry.register(metrics)

    def serve(self, host: str, port: int) -> None:
        """Answer scrapes until the process ends.

        Raises:
            SettingsError: The address cannot be used.
        """
        try:
            start_http_server(port, addr=host, registry=self._registry)
        except OSError as error:
            raise SettingsError(
                f"The metrics cannot be served at {host}:{port} ({error.strerror or type(error).__name__}). Choose "
                "another address with --host and --port."
            ) from error

    def write(self, file: Path) -> str | None:
        """Replace a file by the current metrics, in one step. Return why that is not possible."""
        try:
            write_to_textfile(str(file), self._registry)
        except OSError as error:
            return f"{file} cannot be written ({error.strerror}). Its metrics are those of before."
        return None
