"""Faults for `tests.chaos.harness`: each begins a run, breaks something in the middle of it, and waits for its end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.clusters.four_nodes import Nodes, RayNode, four_nodes
from tests.clusters.namespaces import possible, switched
from tests.clusters.postgres import Postgres
from vistudy.analysis.ledger.ledger import Ledger

VISTUDY = [sys.executable, "-W", "ignore", "-c", "from vistudy.study.cli.main import main; main()"]
CHECKPOINT_EVERY_S = 0.3
CHECKPOINTS = "packs/*/attempt-*/checkpoint-*"
HEARTBEAT_TIMEOUT_S = 15.0
DRIVER_TIMEOUT_S = 240.0
TERM_BOUND_S = 25.0
"""SIGTERM is to be answered within that."""
CLOCK = """
import os, time
shift, jump = float(os.environ["CHAOS_CLOCK_S"]), os.environ["CHAOS_CLOCK_FILE"]
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + (shift if os.path.exists(jump) else 0.0)
time.time_ns = lambda: real_ns() + (int(shift * 1e9) if os.path.exists(jump) else 0)
"""
"""A driver's `sitecustomize`: its clock is right until the file is there."""


class SkippedFault(Exception):
    """This machine cannot do it; the message says why."""


@dataclass(slots=True)
class Server:
    """An MLflow server on loopback that can be killed, frozen and started again."""

    folder: Path
    port: int
    database: str = ""
    """Its URI; empty: a file in the folder."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """For `--tracking-uri`."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [
            sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
            "--backend-store-uri", self.database or f"sqlite:///{self.folder}/server.db",
            "--artifacts-destination", str(self.folder / "artifacts"), "--workers", "1",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            time.sleep(0.3)
        raise RuntimeError("the MLflow server does not start")

    def send(self, which: signal.Signals) -> None:
        """Send a signal to all its processes."""
        assert self.process is not None
        os.killpg(self.process.pid, which)
        if which == signal.SIGKILL:
            self.process.wait()

    def kill(self) -> None:
        """SIGKILL."""
        self.send(signal.SIGKILL)

    def stop(self) -> None:
        """End it."""
        if self.process is not None and self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGKILL)


@dataclass(slots=True)
class Scene:
    """One study in one store on the cluster, and what may be broken around it."""

    nodes: Nodes
    file: Path
    store: Path
    rng: random.Random
    uri: str | None = None
    server: Server | None = None
    postgres: Postgres | None = None
    """Behind the server."""
    broken_at: float = 0.0
    """When the fault was injected (monotonic seconds)."""
    codes: list[int] = field(default_factory=list)
    """Exit code of every run so far."""
    note: str = ""
    prefix: Sequence[str] = ()
    """What starts a command where the driver is to be."""

    def start(self, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start `vistudy run`; its output is kept beside the store."""
        command = [
            *self.prefix, *VISTUDY, "run", str(self.file), "--store", str(self.store), "--cluster", self.nodes.address,
            "--checkpoint-every", str(CHECKPOINT_EVERY_S), "--heartbeat-timeout", str(HEARTBEAT_TIMEOUT_S),
        ]  # fmt: skip
        command += ["--tracking-uri", self.uri] if self.uri else []
        with self.store.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(
                command, env=os.environ | self.nodes.env | (env or {}), stdout=log, stderr=subprocess.STDOUT
            )

    def end(self, driver: subprocess.Popen[bytes]) -> int:
        """Wait for the end of a run."""
        try:
            code = driver.wait(DRIVER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
            code = -1
            self.note += f"a run did not end within {DRIVER_TIMEOUT_S:.0f} s; "
        self.codes.append(code)
        return code

    def in_training(self, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start, and wait until some pack has trained a random part of its evaluations."""
        driver, some = self.start(env), self.rng.randint(1, 6)
        deadline = time.monotonic() + DRIVER_TIMEOUT_S
        while driver.poll() is None and time.monotonic() < deadline:
            if self.store.joinpath("packs").exists() and max(Ledger(self.store).progress().values(), default=0) >= some:
                break
            time.sleep(0.05)
        self.broken_at = time.monotonic()
        return driver

    def working(self) -> list[int]:
        """Process ids of the workers that train a pack now, one of their trials not having ended."""
        ledger = Ledger(self.store)
        done, found = ledger.finished_trials(), []
        for name, pack in ledger.packs().items():
            beat = ledger.heartbeat(name)
            if beat and not done.issuperset(pack["trial_ids"]):
                found.append(int(beat["pid"]))
        return [pid for pid in found if Path(f"/proc/{pid}").exists()]

    def worker(self) -> int:
        """One of them. Raises SkippedFault if training has ended already."""
        pids = self.working()
        if not pids:
            raise SkippedFault("the study had ended before the fault")
        return self.rng.choice(sorted(pids))

    def busy_node(self) -> RayNode:
        """A node, not the head, with such a worker; the head may be the first to train, and others follow."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            pids = set(self.working())
            if busy := [node for node in self.nodes.workers if pids & set(node.pids)]:
                return self.rng.choice(busy)
            time.sleep(0.05)
        raise SkippedFault("no node but the head was training")


Fault = Callable[[Scene], None]


def undisturbed(scene: Scene) -> None:
    """Nothing breaks."""
    scene.broken_at = time.monotonic()
    scene.end(scene.start())


def _on_worker(which: signal.Signals) -> Fault:
    def fault(scene: Scene) -> None:
        with _ending(scene, scene.in_training()):
            os.kill(scene.worker(), which)

    return fault


@contextlib.contextmanager
def _ending(scene: Scene, driver: subprocess.Popen[bytes]) -> Iterator[None]:
    """Wait for the run in any case: none is left behind."""
    try:
        yield
    finally:
        scene.end(driver)


def raylet(scene: Scene) -> None:
    """SIGKILL of the daemon of a node that trains. The node comes back when the study has ended."""
    with _ending(scene, scene.in_training()):
        node = scene.busy_node()
        scene.nodes.kill_raylet(node)
    scene.nodes.kill(node)
    scene.nodes.all.remove(node)
    scene.nodes.add()


def _freeze(seconds: float) -> Fault:
    def fault(scene: Scene) -> None:
        driver = scene.in_training()
        with _ending(scene, driver):
            node = scene.busy_node()
            scene.nodes.freeze(node)
            try:
                deadline = time.monotonic() + seconds
                while driver.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.1)
            finally:
                scene.nodes.thaw(node)
        try:
            node.process.wait(5.0 if seconds > 30 else 0.1)  # a node that was declared dead ends when it wakes up
        except subprocess.TimeoutExpired:
            return
        scene.nodes.kill(node)
        scene.nodes.all.remove(node)
        scene.nodes.add()

    return fault


def link_cut(scene: Scene) -> None:
    """On hosts with addresses of their own, a cluster made for it: one that trains loses its link, for 3 or 40 s.

    It has as many slots as the usual one: else packs would be others, and so the last bits of records.
    """
    if not possible():
        raise SkippedFault("network namespaces need root and the command ip")
    usual = scene.nodes
    size = len(usual.all)
    try:
        with switched(size) as lan, four_nodes(nodes=size, hosts=lan.hosts) as nodes:
            scene.nodes, scene.prefix = nodes, lan.inside(0)
            driver = scene.in_training()
            with _ending(scene, driver):
                host = nodes.all.index(scene.busy_node())
                lan.cut(host)
                try:
                    deadline = time.monotonic() + scene.rng.choice((3.0, 40.0))
                    while driver.poll() is None and time.monotonic() < deadline:
                        time.sleep(0.1)
                finally:
                    lan.heal(host)
    finally:
        scene.nodes, scene.prefix = usual, ()


def head(scene: Scene) -> None:
    """SIGKILL of the head's GCS server: the cluster is lost. A new one is started, and the study goes on there."""
    driver = scene.in_training()
    os.kill(scene.nodes.head.gcs, signal.SIGKILL)
    scene.end(driver)


def _driver(which: signal.Signals) -> Fault:
    def fault(scene: Scene) -> None:
        driver = scene.in_training()
        driver.send_signal(which)
        code = scene.end(driver)
        took = time.monotonic() - scene.broken_at
        if which == signal.SIGTERM:
            scene.note = f"exit code {code} after {took:.1f} s"
            if code not in (0, 75) or took > TERM_BOUND_S:
                raise AssertionError(f"SIGTERM was answered by exit code {code} after {took:.1f} s")

    return fault


def mlflow_killed(scene: Scene) -> None:
    """SIGKILL of the MLflow server; it is back when the run has ended."""
    assert scene.server is not None
    with _ending(scene, scene.in_training()):
        scene.server.send(signal.SIGKILL)
    scene.server.start()


def mlflow_frozen(scene: Scene) -> None:
    """The MLflow server takes connections and does not answer."""
    assert scene.server is not None
    try:
        with _ending(scene, scene.in_training()):
            scene.server.send(signal.SIGSTOP)
    finally:
        scene.server.send(signal.SIGCONT)


def disk_full(scene: Scene) -> None:
    """The store's filesystem, a tmpfs of 400 MB, is full in the middle of training; then room is made."""
    scene.store.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(scene.store)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        raise SkippedFault("a tmpfs cannot be mounted here (needs root)")
    filler = scene.store / "filler"
    driver = scene.in_training()
    try:
        with filler.open("wb", buffering=0) as file:
            for chunk in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(chunk))
        code = scene.end(driver)
    finally:
        filler.unlink()
    if code == 0 and len(Ledger(scene.store).finished_trials()) < len(
        Ledger(scene.store).read_plan(scene.file.stem)["trials"]
    ):
        raise AssertionError("a full disk ended in success")


def _damaged_checkpoint(damage: Callable[[bytes, random.Random], bytes]) -> Fault:
    def fault(scene: Scene) -> None:
        driver = scene.in_training()
        while not list(scene.store.glob(CHECKPOINTS)) and driver.poll() is None:
            time.sleep(0.05)
        driver.kill()
        scene.end(driver)
        newest = {path.parent: path for path in sorted(scene.store.glob(CHECKPOINTS))}
        if not newest:
            raise SkippedFault("the study had ended before its first checkpoint")
        for path in newest.values():
            path.write_bytes(damage(path.read_bytes(), scene.rng))

    return fault


def _truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _flipped(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def torn_segment(scene: Scene) -> None:
    """The driver is killed, and a record segment is cut: the store is damaged. `doctor --repair` moves it away."""
    driver = scene.in_training()
    driver.kill()
    scene.end(driver)
    while scene.working():  # its workers end, and write no more
        time.sleep(0.1)
    segments = sorted(scene.store.glob("packs/*/attempt-*/records-*"))
    segment = scene.rng.choice(segments)
    data = segment.read_bytes()
    segment.write_bytes(data[: scene.rng.randrange(len(data) - 2)])
    if scene.end(scene.start()) != 2:
        raise AssertionError("a torn segment was not refused")
    doctor = [*VISTUDY, "doctor", scene.file.stem, "--store", str(scene.store), "--repair"]
    subprocess.run(doctor, check=True, capture_output=True)


def clock_jump(scene: Scene) -> None:
    """The driver's clock jumps by an hour, ahead or back; every second time it is killed soon after."""
    site = scene.store.with_suffix(".site")
    site.mkdir()
    (site / "sitecustomize.py").write_text(CLOCK)
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    shift, jump = scene.rng.choice((-3600, 3600)), site / "jump"
    env = {"PYTHONPATH": path, "CHAOS_CLOCK_S": str(shift), "CHAOS_CLOCK_FILE": str(jump)}
    driver = scene.in_training(env)
    with _ending(scene, driver):
        jump.touch()
        if scene.rng.random() < 0.5:
            time.sleep(scene.rng.uniform(0.0, 3.0))
            driver.kill()


def two_drivers(scene: Scene) -> None:
    """A second run of the same study, while the first one trains, is refused."""
    with _ending(scene, scene.in_training()):
        second = scene.start()
        code = second.wait(DRIVER_TIMEOUT_S)
        if code != 2 and scene.working():
            raise AssertionError(f"a second run of a running study ended with {code}")


def postgres_killed(scene: Scene) -> None:
    """SIGKILL of the database behind the MLflow server, which goes on without it; it is back some seconds later."""
    if scene.postgres is None:
        raise SkippedFault("no PostgreSQL on this machine (Debian: apt-get install postgresql)")
    with _ending(scene, scene.in_training()):
        scene.postgres.kill()
        time.sleep(scene.rng.uniform(0.0, 8.0))
        scene.postgres.start()


FAULTS: dict[str, Fault] = {
    "worker_killed": _on_worker(signal.SIGKILL),
    "worker_frozen": _on_worker(signal.SIGSTOP),
    "raylet_killed": raylet,
    "node_frozen_5s": _freeze(5.0),
    "node_frozen_80s": _freeze(80.0),
    "head_killed": head,
    "link_cut": link_cut,
    "driver_killed": _driver(signal.SIGKILL),
    "driver_sigterm": _driver(signal.SIGTERM),
    "driver_sigint": _driver(signal.SIGINT),
    "mlflow_killed": mlflow_killed,
    "mlflow_frozen": mlflow_frozen,
    "postgres_killed": postgres_killed,
    "disk_full": disk_full,
    "checkpoint_truncated": _damaged_checkpoint(_truncated),
    "checkpoint_bit_flipped": _damaged_checkpoint(_flipped),
    "segment_torn": torn_segment,
    "clock_jump": clock_jump,
    "two_drivers": two_drivers,
}
SLOW = ("node_frozen_80s", "head_killed", "link_cut")
"""These cost a minute or two each: every fourth round has them."""


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
