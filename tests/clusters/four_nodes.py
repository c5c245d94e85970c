"""A real Ray cluster on loopback: each node processes of its own, with its own address, folder and token. Linux.

    with four_nodes() as nodes:
        vistudy("run", file, "--store", store, "--cluster", nodes.address, env=nodes.env)
        nodes.kill(nodes.workers[0])

What belongs to a node is known by a mark in its environment, which every process that Ray starts inherits, and by its
session, since Ray's agents overwrite their environment with their title: so a node is ended whole, by process ids,
whatever became of its parents. Nothing else on the machine is touched.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

RAY = [sys.executable, "-W", "ignore", "-m", "ray.scripts.scripts"]
MARK = "TEST_RAY_NODE"
START_TIMEOUT_S = 120.0
Host = tuple[str, list[str]]
"""An address, and the command that starts another one there."""


@dataclass(frozen=True, slots=True)
class RayNode:
    """One node: `ray start --block`, and all that it started."""

    mark: str
    host: str
    """Its address: 127.0.0.2 for the head, then 127.0.0.3 and so on. Ray would replace 127.0.0.1 by another."""
    folder: Path
    """Ray's temporary folder, with its logs."""
    process: subprocess.Popen[bytes]
    """`ray start --block`: ends when one of its daemons does."""

    @property
    def pids(self) -> dict[int, str]:
        """Living processes -> command line, raylet, GCS server and workers among them."""
        return {
            pid: line
            for pid, line in _processes().items()
            if _mark_of(pid) == self.mark or _session_of(pid) == self.process.pid
        }

    @property
    def raylet(self) -> int:
        """Process id of the raylet, the daemon that makes a machine a node. Raises LookupError if it is gone."""
        return self._one("/raylet/raylet ")

    @property
    def gcs(self) -> int:
        """Process id of the head's GCS server. Raises LookupError if it is gone."""
        return self._one("/gcs/gcs_server ")

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers, those that train now (`ray::...`) and those that wait (`ray::IDLE`)."""
        return [pid for pid, line in self.pids.items() if line.startswith("ray::")]

    def _one(self, program: str) -> int:
        for pid, line in self.pids.items():
            if program in line:
                return pid
        raise LookupError(f"{self.host}: no process {program.strip()} is alive")


@dataclass(slots=True)
class Nodes:
    """A running cluster."""

    port: int
    env: dict[str, str]
    """What drivers need in their environment: the token."""
    cpus: int
    folder: Path
    dashboard: int = 0
    """Port of the head's dashboard on 127.0.0.1, which takes jobs; 0: it has none."""
    hosts: Iterator[Host] = field(default_factory=lambda: ((f"127.0.0.{i}", []) for i in itertools.count(2)))
    """Where the next nodes are started."""
    all: list[RayNode] = field(default_factory=list)
    """Every node that was ever started, the head first."""

    @property
    def address(self) -> str:
        """For `--cluster`."""
        return f"{self.head.host}:{self.port}"

    @property
    def head(self) -> RayNode:
        """The node with the GCS."""
        return self.all[0]

    @property
    def workers(self) -> list[RayNode]:
        """The others."""
        return self.all[1:]

    def add(self, prefix: Sequence[str] = (), **env: str) -> RayNode:
        """Start one more node and return when it has joined. `env` is added to its environment."""
        node = self.start(prefix, **env)
        self.wait(node)
        return node

    def start(self, prefix: Sequence[str] = (), **env: str) -> RayNode:
        """Start one more node by `prefix` and return at once.

        Its folder is short: Unix sockets have paths of 107 bytes.
        """
        (host, inside), mark = next(self.hosts), uuid.uuid4().hex
        folder = self.folder / str(len(self.all))
        shown = ["true", "--dashboard-port", str(self.dashboard)] if self.dashboard else ["false"]
        head = ["--head", "--port", str(self.port), "--include-dashboard", *shown]
        role = ["--address", self.address] if self.all else head
        command = [
            *inside, *prefix, *RAY, "start", *role, "--block", "--node-ip-address", host, "--num-cpus", str(self.cpus),
            "--num-gpus", "0", "--temp-dir", str(folder),
            "--object-store-memory", "80000000", "--disable-usage-stats",
            "--dashboard-agent-listen-port", str(free_port()),  # the usual one may still be taken by another node's
        ]  # fmt: skip
        with open(self.folder / f"{len(self.all)}.log", "wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | self.env | {MARK: mark, "OMP_NUM_THREADS": "1"} | env,
                start_new_session=True,
            )
        node = RayNode(mark, host, folder, process)
        self.all.append(node)
        return node

    def wait(self, node: RayNode) -> None:
        """Until a node has joined; raises RuntimeError with its output if it ends instead."""
        log, deadline = self.folder / f"{self.all.index(node)}.log", time.monotonic() + START_TIMEOUT_S
        while "Ray runtime started." not in log.read_text():
            if node.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{node.host} did not start:\n{log.read_text()}")
            time.sleep(0.1)

    def kill(self, node: RayNode) -> None:
        """SIGKILL every process of a node at once: a machine without power."""
        while pids := node.pids:
            _signal(pids, signal.SIGKILL)
            time.sleep(0.05)
        node.process.wait()

    def kill_raylet(self, node: RayNode) -> None:
        """SIGKILL the raylet alone; its workers find out by themselves."""
        os.kill(node.raylet, signal.SIGKILL)

    def freeze(self, node: RayNode) -> None:
        """SIGSTOP every process of a node: a machine that hangs, or whose network is cut."""
        _signal(node.pids, signal.SIGSTOP)

    def thaw(self, node: RayNode) -> None:
        """SIGCONT what was frozen."""
        _signal(node.pids, signal.SIGCONT)

    def stop(self) -> None:
        """End all nodes, and leave nothing behind."""
        for node in reversed(self.all):
            self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def four_nodes(
    nodes: int = 4, cpus: int = 1, *, dashboard: bool = False, hosts: Sequence[Host] = (), **env: str
) -> Iterator[Nodes]:
    """A cluster of a head and `nodes - 1` workers with `cpus` logical CPUs each, token authentication on.

    `hosts`: where they are; loopback by default. `dashboard`: the head takes jobs, for which it needs ray[default].
    `env` is added to the environment of every node.
    """
    cluster = Nodes(
        port=free_port(),
        env={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex},
        cpus=cpus,
        folder=Path(tempfile.mkdtemp(prefix="vs-", dir="/tmp")),
        dashboard=free_port() if dashboard else 0,
    )
    if hosts:
        cluster.hosts = iter(hosts)
    try:
        cluster.add(**env)
        others = [cluster.start(**env) for _ in range(nodes - 1)]
        for node in others:
            cluster.wait(node)
        yield cluster
    finally:
        cluster.stop()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _processes() -> dict[int, str]:
    """Process id -> command line of every process that is no zombie."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if line:
                    found[int(name)] = line
    return found


def _mark_of(pid: int) -> str | None:
    with contextlib.suppress(OSError):
        for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if item.startswith(f"{MARK}=".encode()):
                return item.decode().partition("=")[2]
    return None


def _session_of(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.getsid(pid)
    return None


def _signal(pids: dict[int, str], which: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, which)
