"""A slow link: a TCP proxy in a process of its own that delays what it forwards and limits the rate of a connection.

    .venv/bin/python -m benchmarks.slow_link HOST PORT [--delay-ms 10] [--rate-mb 0]

Prints the port on which it listens, and ends with its standard input. The delay is that of one direction: a question
and its answer take twice as long.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHUNK = 2**18
# What a connection has under way. Its rate is at most this in each delay, as with the window of TCP.
WINDOW = 2**22


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float, rate: float) -> None:
    """Forward one direction of a connection until it ends."""
    loop, chunks = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]](WINDOW // CHUNK)

    async def write() -> None:
        while True:
            due, chunk = await chunks.get()
            await asyncio.sleep(due - loop.time())
            if not chunk:
                break
            writer.write(chunk)
            await writer.drain()
        writer.close()

    writing, sent = asyncio.create_task(write()), 0.0
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(CHUNK):
            sent = max(sent, loop.time()) + (len(chunk) / rate if rate else 0.0)
            await chunks.put((sent + delay_s, chunk))
    await chunks.put((max(sent, loop.time()) + delay_s, b""))
    with contextlib.suppress(ConnectionError):
        await writing


async def serve(host: str, port: int, delay_s: float, rate: float) -> None:
    """Forward connections until the standard input ends."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * delay_s)  # the handshake
        there, back = await asyncio.open_connection(host, port)
        await asyncio.gather(forward(reader, back, delay_s, rate), forward(there, writer, delay_s, rate))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=CHUNK)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


@contextlib.contextmanager
def slow_link(host: str, port: int, delay_ms: float, rate_mb: float) -> Iterator[int]:
    """Yield the port of a link to a server; that of the server if the link has no delay and no limit."""
    if not delay_ms and not rate_mb:
        yield port
        return
    command = [sys.executable, "-m", "benchmarks.slow_link", host, str(port)]
    command += ["--delay-ms", str(delay_ms), "--rate-mb", str(rate_mb)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as link:
        assert link.stdout is not None
        assert link.stdin is not None
        try:
            yield int(link.stdout.readline())
        finally:
            link.stdin.close()


def main() -> None:
    """Run the link."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--delay-ms", type=float, default=10.0)
    parser.add_argument("--rate-mb", type=float, default=0.0, help="MB in a second of each connection; 0 for no limit")
    given = parser.parse_args()
    asyncio.run(serve(given.host, given.port, given.delay_ms / 1000, given.rate_mb * 2**20))


if __name__ == "__main__":
    main()
