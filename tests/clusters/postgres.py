"""A PostgreSQL server of its own on loopback, for tests and benchmarks, where Debian's package postgresql is."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.clusters.four_nodes import free_port

PASSWORD = "a-password-of-this-test"


def programs() -> Path | None:
    """Folder of PostgreSQL's programs."""
    found = shutil.which("initdb")
    folders = [*([Path(found).parent] if found else []), *sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    return folders[-1] if folders else None


def available() -> bool:
    """Whether a server can be started, and spoken to."""
    return programs() is not None and importlib.util.find_spec("psycopg2") is not None


class Postgres:
    """A server, its data in a new temporary folder. It can be killed and started again."""

    def __init__(self) -> None:
        """Make the data folder. Raises RuntimeError where PostgreSQL or psycopg2 is missing."""
        if not available():
            raise RuntimeError("needs PostgreSQL (Debian: apt-get install postgresql) and psycopg2")
        self._folder, self._port = Path(tempfile.mkdtemp(prefix="vistudy-postgres-")), free_port()
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(self._folder, "postgres", "postgres")
            self._as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        command = [self._program("initdb"), "-D", self._folder / "data", "-U", "mlflow"]
        command += [f"--pwfile={secret}", "-A", "scram-sha-256"]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self._as_user)
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def _program(name: str) -> Path:
        folder = programs()
        assert folder is not None
        return folder / name

    def uri(self, database: str) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg2://mlflow:{PASSWORD}@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers. Raises RuntimeError after a minute."""
        command = [self._program("postgres"), "-D", self._folder / "data", "-p", str(self._port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self._folder}"]
        ready = [self._program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if (
                self._process is None or self._process.poll() is not None
            ):  # processes of a killed one may still be there
                self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd="/", **self._as_user)
            time.sleep(0.2)
            if self._process.poll() is None and subprocess.run(ready, check=False).returncode == 0:
                return
        raise RuntimeError("PostgreSQL does not start")

    def create(self, database: str) -> str:
        """Make an empty database; returns its URI."""
        command = [self._program("createdb"), "-h", "127.0.0.1", "-p", str(self._port), "-U", "mlflow", database]
        subprocess.run(command, env={"PGPASSWORD": PASSWORD}, check=True, capture_output=True)
        return self.uri(database)

    def kill(self) -> None:
        """SIGKILL of the server; its other processes notice, and end."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it, and remove its data."""
        self._end(signal.SIGINT)
        shutil.rmtree(self._folder)

    def _end(self, which: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(which)
            self._process.wait(60)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A running server."""
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.stop()
