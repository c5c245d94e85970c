"""A running Ray cluster, started as a user starts one, and what is said when there is none."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.study.runs import ENVIRONMENT, vistudy, write
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.tables.trials import load_frame
from vistudy.clusters import Cluster, ClusterError
from vistudy.clusters.base import Node
from vistudy.clusters.existing import existing

STUDY = {
    "study": "on-a-cluster",
    "model": "gan",
    "data": "ring8",
    "seeds": [0, 1],
    "budget": {"d_updates": 20, "evaluations": 10},
    "factors": {"lr": [1e-3], "ratio": ["1:2", "2:1"]},
    "fixed": {"batch_size": 16},
}

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-secret-of-this-test"}
"""Ray 2.60 authenticates new clusters; every node and driver must be told the mode and the token."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def head(request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of a Ray head with two CPUs on loopback, and with GPUs, in name only, if a test says how many."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="vs-", dir="/tmp") as folder:
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--node-ip-address", "127.0.0.1",
            "--port", str(port), "--num-cpus", "2",
            "--num-gpus", str(getattr(request, "param", 0)), "--include-dashboard", "false", "--temp-dir", folder,
            "--object-store-memory", "100000000", "--disable-usage-stats",
        ]  # fmt: skip
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT | TOKEN
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.2)
        yield f"127.0.0.1:{port}"
        process.terminate()
        process.wait(30)


@pytest.mark.cluster
def test_the_same_command_runs_on_a_cluster(head, tmp_path):
    file, store = write(tmp_path / "study.yaml", STUDY), tmp_path / "store"
    output = vistudy("run", file, "--store", store, "--cluster", head, env=TOKEN)
    assert f"on 2 CPU slots of {head}" in output
    assert load_frame(store, "on-a-cluster")["state"].tolist() == ["complete"] * 4


@pytest.mark.cluster
@pytest.mark.parametrize("head", [1], indirect=True)
@pytest.mark.parametrize("packs_per_gpu", [1, 2])
def test_packs_share_a_gpu(head, packs_per_gpu, tmp_path):
    """Which is one in name only: they train on CPUs, but Ray places them."""
    file, store = write(tmp_path / "study.yaml", STUDY | {"budget": {"d_updates": 5000, "evaluations": 10}}), tmp_path
    args = ("--store", store, "--cluster", head, "--packs-per-gpu", str(packs_per_gpu))
    output = vistudy("run", file, *args, env=TOKEN)
    assert f"in 2 packs on {packs_per_gpu} GPU slots of {head}" in output
    times: dict[str, list[int]] = {}
    for record in Ledger(store).records():
        times.setdefault(record["trial_id"], []).append(record["unix_ms"])
    last_start, first_end = max(map(min, times.values())), min(map(max, times.values()))
    assert (last_start < first_end) is (packs_per_gpu == 2)


def cluster(*nodes: tuple[int, int], packs_per_gpu: int = 1) -> Cluster:
    found = tuple(Node(name=f"n{i}", cpus=c, gpus=g) for i, (c, g) in enumerate(nodes))
    return Cluster(name="c", nodes=found, local=False, packs_per_gpu=packs_per_gpu)


def test_slots_are_gpus_where_there_are_any():
    assert cluster((4, 0), (2, 0)).slots == 6
    assert cluster((4, 2), (8, 1)).slots == 3
    assert cluster((4, 0)).resources == {"cpu": 1}
    assert cluster((4, 2)).resources == {"cpu": 2, "gpu": 1}  # metrics are computed on CPUs
    uneven = cluster((7, 2), (16, 1), (64, 0))
    assert (uneven.resources["cpu"], uneven.slots) == (3, 3)  # what every node with a GPU has for each pack
    assert cluster((16, 1), packs_per_gpu=4).resources == {"cpu": 4, "gpu": 0.25}
    assert cluster((4, 2), (8, 1), (64, 0), packs_per_gpu=3).slots == 4 + 3  # a pack needs a CPU, too
    assert cluster((4, 0), packs_per_gpu=3).slots == 4


@pytest.mark.parametrize("packs", range(1, 40))
def test_as_many_shares_fit_a_gpu_as_were_asked_for(packs):
    """Ray counts in ten-thousandths, and rounds."""
    share = cluster((64, 1), packs_per_gpu=packs).resources["gpu"]
    assert packs * round(share * 1e4) <= 1e4 < (packs + 1) * round(share * 1e4)


def test_a_cluster_that_cannot_hold_a_pack_is_refused():
    cluster((1, 0)).check()
    with pytest.raises(ClusterError, match=r"needs 1 CPU on one node. Nodes: n0: 0 CPU, 0 GPU"):
        cluster((0, 0)).check()
    with pytest.raises(ClusterError, match=r"needs 1 CPU, 1 GPU on one node"):
        cluster((0, 1), (8, 0)).check()
    replace(cluster((8, 1), (8, 2)), min_gpus=3).check()
    with pytest.raises(ClusterError, match="c has 3 GPUs; --gpus asks for 4"):
        replace(cluster((8, 1), (8, 2)), min_gpus=4).check()


@pytest.mark.parametrize("where", ["nowhere", "host:x", "host:99999", ":6379"])
def test_what_is_no_address(where):
    with pytest.raises(ClusterError, match="HOST:PORT"), existing(where):
        pass


def test_a_study_that_needs_gpus_is_refused_where_there_are_none(tmp_path):
    """Before anything is trained or written; CPUs would take months."""
    file = write(tmp_path / "study.yaml", STUDY)
    for verb in ("plan", "run"):
        output = vistudy(verb, file, "--store", tmp_path / "store", "--gpus", "4096", code=2)
        assert "cluster local has" in output
        assert "--gpus asks for 4096. Add nodes with GPUs" in output
    assert not (tmp_path / "store" / "packs").exists()


def test_a_node_is_asked_without_torch():
    """Which takes seconds to import, on every node before every run, and more on a network disk."""
    asks = (
        "import sys; from vistudy.study.execution.preflight import collect_node_info;"
        "collect_node_info(None, 'n', None); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True).stdout == "False\n"


def test_what_is_no_ray_head(monkeypatch):
    """Ray itself would wait for most of a minute."""
    monkeypatch.setattr("vistudy.clusters.existing.ANSWER_TIMEOUT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ClusterError, match="does not answer as a Ray head within 1 s"), existing(where):
            pass
