"""Runs one command, and prints as the last line what it and its children needed.

Standard library only, and a process of its own: Linux counts the memory of the process that starts a program as
memory of that program, so that process has to be small.
"""

import json
import os
import subprocess
import sys
import time


def main() -> None:
    """Run the arguments as a command with the same standard streams."""
    started = time.monotonic()
    process = subprocess.Popen(sys.argv[1:])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    found = {"seconds": time.monotonic() - started, "cpu_s": usage.ru_utime + usage.ru_stime}
    found |= {"peak_mb": usage.ru_maxrss / 1024, "status": process.returncode}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
