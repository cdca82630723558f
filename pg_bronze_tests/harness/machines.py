"""Machines: namespaces of Linux that are joined by a bridge, each with its own network, folders, processes and name.

A machine lives as long as the input of its first process is open, and this process holds that. So nothing is left of it
when the test ends, however it ends: not its processes, its interface or its mounts.

A cut makes two machines address their packets to an interface that does not exist. Nothing is refused and nobody is
told, as with a broken cable. `tc netem` needs a kernel module that many machines lack, so a slow link is a token bucket
(`tbf`), which delays packets and loses those that its queue has no room for.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_PARENT, _PREFIX = Path("/var/tmp"), "pg_bronze-machines-"
_INTERFACE = "pg_bronze"
_NOBODY = "02:00:00:00:00:fe"
_NEEDED = (
    "This test joins machines that are network namespaces. It needs root, or the capabilities CAP_SYS_ADMIN and "
    "CAP_NET_ADMIN, and the programs unshare, nsenter, ip and tc (Debian: util-linux, iproute2)."
)
# What a machine sees of its own folder: as /mnt, and as its folders of temporary files.
_FIRST = """set -e
ip link set lo up
hostname {name}
mount --bind '{folder}' /mnt
mount --bind '{hosts}' /etc/hosts
mkdir -p /mnt/home /mnt/project /mnt/tmp
chmod 1777 /mnt/tmp
mount --bind /mnt/tmp /tmp
mount --bind /mnt/tmp /var/tmp
echo ready
exec cat
"""


def run(*command: str) -> str:
    """Run a command and return its output; AssertionError with what it needs, and what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise AssertionError(f"{_NEEDED} {command[0]} is not installed.") from error
    assert done.returncode == 0, f"{_NEEDED} `{' '.join(command)}` failed: {done.stderr.strip()}"
    return done.stdout


class _Namespaces:
    """Namespaces with a first process that ends when its input does."""

    def __init__(self, kinds: tuple[str, ...], script: str) -> None:
        command = ["unshare", *(f"--{kind}" for kind in kinds), "--fork", "--kill-child", "sh", "-c", script]
        try:
            self._parent = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except FileNotFoundError as error:
            raise AssertionError(f"{_NEEDED} unshare is not installed.") from error
        assert self._parent.stdout is not None
        if self._parent.stdout.readline() != "ready\n":
            raise AssertionError(f"{_NEEDED} unshare failed: {self._parent.communicate()[1].strip()}")
        (first,) = psutil.Process(self._parent.pid).children()
        self.pid = first.pid

    def run(self, *command: str) -> str:
        """Run a command in this network, with the files of the host."""
        return run("nsenter", f"--net=/proc/{self.pid}/ns/net", *command)

    def end(self) -> None:
        """Kill all processes, as a loss of power does."""
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(self.pid).kill()
        self._parent.communicate()


class Machine(_Namespaces):
    """A machine.

    Attributes:
        name: Its host name, which all machines resolve.
        address: Its address.
        folder: What it sees as ``/mnt``, as seen from outside.
        pid: Its first process.
    """

    def __init__(self, name: str, address: str, folder: Path, hosts: Path) -> None:
        self.name, self.address, self.folder = name, address, folder
        folder.mkdir(parents=True)
        kinds = ("net", "uts", "ipc", "mount", "pid", "mount-proc")
        super().__init__(kinds, _FIRST.format(name=name, folder=folder, hosts=hosts))

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Inside, this thread is in the network of the machine, and so is what it starts."""
        with open("/proc/thread-self/ns/net") as own, open(f"/proc/{self.pid}/ns/net") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(own.fileno())

    def slow(self, kilobits: int, queue_bytes: int = 30_000) -> None:
        """Limit what the machine sends; packets beyond the queue are lost."""
        self.run(
            *("tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", f"{kilobits}kbit", "burst", "16kb"),
            *("limit", str(queue_bytes)),
        )

    def fast(self) -> None:
        """End ``slow``."""
        self.run("tc", "qdisc", "del", "dev", "eth0", "root")


class Network:
    """The network of the machines, and this process at its first address.

    Args:
        folder: A new folder; each machine gets one in it.
        names: The names of the machines, which are started.

    Attributes:
        interface: The interface of this process.
    """

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self._cuts: list[tuple[Machine, Machine]] = []
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self._switch = _Namespaces(
                ("net",), "ip link add name bridge type bridge && ip link set bridge up && echo ready && exec cat"
            )
            stack.callback(self._switch.end)
            number = self._join_host()
            self.interface = f"{_INTERFACE}{number}"
            addresses = {name: f"10.231.{number}.{last}" for last, name in enumerate(names, start=10)}
            hosts = folder / "hosts"
            lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
            hosts.write_text("\n".join(lines) + "\n")
            self.machines: dict[str, Machine] = {}
            for name, address in addresses.items():
                self.machines[name] = Machine(name, address, folder / name, hosts)
                stack.callback(self.machines[name].end)
                self._join(self.machines[name])
            self._stack = stack.pop_all()

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def cut(self, *pairs: tuple[str, str]) -> None:
        """Let each pair of machines lose all packets between them."""
        for first, second in pairs:
            self._cut_one_way(self.machines[first], self.machines[second])
            self._cut_one_way(self.machines[second], self.machines[first])

    def cut_answers(self, name: str, *others: str) -> None:
        """Let a machine lose what others send to it; what it sends arrives."""
        for other in others:
            self._cut_one_way(self.machines[other], self.machines[name])

    def cut_off(self, name: str, *others: str) -> None:
        """Cut a machine from all other ones, or from those."""
        self.cut(*((name, other) for other in others or self.machines if other != name))

    def heal(self) -> None:
        """End all cuts."""
        while self._cuts:
            sender, receiver = self._cuts.pop()
            sender.run("ip", "neigh", "del", receiver.address, "dev", "eth0")

    def lose(self, name: str) -> None:
        """Take a machine out of the network and kill it: no other machine is told of it."""
        self._switch.run("ip", "link", "set", name, "down")
        self.machines.pop(name).end()

    def _cut_one_way(self, sender: Machine, receiver: Machine) -> None:
        if (sender, receiver) not in self._cuts:
            self._cuts.append((sender, receiver))
            entry = ("lladdr", _NOBODY, "dev", "eth0", "nud", "permanent")
            sender.run("ip", "neigh", "replace", receiver.address, *entry)

    def _join_host(self) -> int:
        """Connect this process to the switch, and return the number of a network that no other test has."""
        for number in range(1, 255):
            pair = ("type", "veth", "peer", "name", "host", "netns", str(self._switch.pid))
            try:
                run("ip", "link", "add", f"{_INTERFACE}{number}", *pair)
            except AssertionError as error:
                if "File exists" not in str(error):
                    raise
                continue
            self._plug("host")
            run("ip", "address", "add", f"10.231.{number}.1/24", "dev", f"{_INTERFACE}{number}")
            run("ip", "link", "set", f"{_INTERFACE}{number}", "up")
            return number
        raise AssertionError("254 tests have networks of machines: look for those that hang.")

    def _join(self, machine: Machine) -> None:
        link = ("name", machine.name, "netns", str(self._switch.pid), "type", "veth")
        run("ip", "link", "add", *link, "peer", "name", "eth0", "netns", str(machine.pid))
        self._plug(machine.name)
        machine.run("ip", "address", "add", f"{machine.address}/24", "dev", "eth0")
        machine.run("ip", "link", "set", "eth0", "up")

    def _plug(self, name: str) -> None:
        self._switch.run("ip", "link", "set", name, "master", "bridge", "up")


def enter_all(pid: int) -> None:
    """Move this process, which has one thread, to all namespaces of a machine, and its children to its process ids."""
    opened = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in ("net", "uts", "ipc", "pid", "mnt")]
    for descriptor in opened:
        _enter(descriptor, 0)
        os.close(descriptor)


def _enter(descriptor: int, kind: int = _CLONE_NEWNET) -> None:
    if _LIBC.setns(descriptor, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


@contextlib.contextmanager
def joined(*names: str) -> Iterator[Network]:
    """Start machines in a temporary folder, and end them."""
    # Where the user of PostgreSQL may enter. Folders of tests that were killed are removed.
    for left in _PARENT.glob(f"{_PREFIX}*"):
        if not psutil.pid_exists(int(left.name.removeprefix(_PREFIX).partition("-")[0])):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", dir=_PARENT) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Network(folder, names) as network:
            yield network
