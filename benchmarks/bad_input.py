"""What is said to requests that cannot be carried out, and after how many seconds: `python -m benchmarks.bad_input`.

Real refusals: a Ray cluster on loopback with token authentication, one of its nodes with another torch and one without
the store; disks that are full or read-only; a server of S3's protocol; a tracking server that refuses the password. Of
each command: seconds of the whole process, exit code, how many messages, and the message. Target: one, within 20 s.
Prints a table, and writes benchmarks/results/bad-input-<date>.json. Linux; what needs root is left out without it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.chaos_faults import VISTUDY, free_port
from benchmarks.machine import machine
from benchmarks.overhead import RESULTS
from benchmarks.tracker_away import answering
from tests.clusters.four_nodes import Nodes, four_nodes
from tests.s3 import s3
from vistudy.study.execution.provenance import git_state, versions

WITHIN_S = 20.0
STUDY: dict[str, Any] = {
    "study": "refused",
    "model": "gan",
    "data": "ring8",
    "seeds": [0],
    "budget": {"d_updates": 20, "evaluations": 10},
    "factors": {"lr": [1e-3]},
    "fixed": {"batch_size": 16},
}
Case = tuple[str, list[str], dict[str, str]]
"""What is wrong; arguments of `vistudy`; what is added to its environment."""


def clusters(nodes: Nodes, folder: Path) -> Iterator[Case]:
    """Clusters that cannot be reached or used."""
    run = ["run", str(folder / "study.yaml"), "--cluster"]
    yield "an address where nothing listens", [*run, f"127.0.0.1:{free_port()}"], {}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield "a port that is no Ray head", [*run, f"127.0.0.1:{silent.getsockname()[1]}"], {}
    yield "a wrong token", [*run, nodes.address], nodes.env | {"RAY_AUTH_TOKEN": "wrong"}
    yield "no token", [*run, nodes.address], {}
    yield "a cluster without GPUs", [*run, nodes.address, "--gpus", "4"], nodes.env
    fake = folder / "fake" / "torch-2.0.1.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.0.1\n")
    other = nodes.add(PYTHONPATH=os.pathsep.join(filter(None, [str(fake.parent), os.environ.get("PYTHONPATH")])))
    yield "another torch on a node", [*run, nodes.address], nodes.env
    nodes.kill(other)
    if os.geteuid() == 0:
        store = folder / "shared"
        store.mkdir()
        hide = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {store} && exec "$@"', "sh"]
        alone = nodes.add(prefix=hide)
        yield "a node without the store", [*run, nodes.address, "--store", str(store)], nodes.env
        nodes.kill(alone)


def places(folder: Path) -> Iterator[Case]:
    """Stores and trackers that cannot be used."""
    run = ["run", str(folder / "study.yaml"), "--store"]
    if os.geteuid() == 0:
        disk = folder / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
        try:
            (disk / "junk").write_bytes(bytes(2**20 - 8192))
            yield "a full disk", [*run, f"{disk}/store"], {}
            (disk / "junk").unlink()
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            yield "a read-only disk", [*run, f"{disk}/store"], {}
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
    run = ["run", str(folder / "study.yaml"), "--tracking-uri", f"sqlite:///{folder}/mlflow.db", "--store"]
    with s3() as server:
        yield "a bucket that does not exist", [*run, "s3://no-such-bucket/store"], server.env
        env = server.env | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
        yield "an S3 endpoint where nothing listens", [*run, "s3://bucket/store"], env
    with s3(INITIAL_NO_AUTH_ACTION_COUNT="1") as server:
        yield "wrong credentials for S3", [*run, f"s3://{server.bucket()}/store"], server.env
    store = ["--store", str(folder / "local")]
    subprocess.run([*VISTUDY, *run, store[1], "--cluster", "debug"], check=True, capture_output=True)
    with answering(401) as uri:
        yield "a tracking server that refuses the password", ["sync", "refused", *store, "--tracking-uri", uri], {}
    uri = f"http://127.0.0.1:{free_port()}"
    yield "a tracking server that is not there", ["sync", "refused", *store, "--tracking-uri", uri], {}
    bad = folder / "bad.yaml"
    bad.write_text(json.dumps(STUDY | {"factors": {"lr": [1e-3], "batchnorm": [True]}}))
    yield "a factor that does not exist", ["run", str(bad), *store], {}


def cases() -> Iterator[Case]:
    """All of them, each while what it needs is there."""
    with tempfile.TemporaryDirectory(prefix="vistudy-bad-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "study.yaml").write_text(json.dumps(STUDY))
        stack.enter_context(contextlib.chdir(folder))
        yield from places(folder)
        yield from clusters(stack.enter_context(four_nodes(2)), folder)


def ask(arguments: list[str], env: dict[str, str]) -> dict[str, Any]:
    """Give the command."""
    began = time.monotonic()
    done = subprocess.run(
        [*VISTUDY, *arguments],
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "120"} | env,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return {
        "seconds": round(time.monotonic() - began, 1),
        "exit_code": done.returncode,
        "messages": len(lines),
        "tracebacks": (done.stdout + done.stderr).count("Traceback"),
        "said": lines[0] if lines else done.stderr[-500:],
    }


def main() -> None:
    """Command line."""
    rows = []
    for what, arguments, env in cases():
        row = {"what": what, "command": arguments[0], **ask(arguments, env)}
        row["held"] = (
            row["seconds"] < WITHIN_S and row["exit_code"] == 2 and row["messages"] == 1 and not row["tracebacks"]
        )
        rows.append(row)
        print(f"{row['seconds']:5.1f} s  exit code {row['exit_code']}  {'' if row['held'] else 'NOT HELD: '}{what}")
        print(f"         {row['said']}", flush=True)
    found = {
        "command": "python -m benchmarks.bad_input",
        "target_s": WITHIN_S,
        "machine": machine(),
        "versions": versions(),
        "git": git_state(),
        "rows": rows,
    }
    out = RESULTS / f"bad-input-{datetime.date.today().isoformat()}.json"
    out.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(not all(row["held"] for row in rows))


if __name__ == "__main__":
    main()
