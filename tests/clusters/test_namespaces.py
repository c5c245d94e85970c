"""Three hosts with addresses of their own and a shared folder; one of them loses its link in the middle of a study."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any

import pytest

from tests.clusters.four_nodes import four_nodes
from tests.clusters.namespaces import possible, switched
from tests.study.runs import ENVIRONMENT, VISTUDY, records, vistudy, write
from vistudy.analysis.ledger.ledger import Ledger

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not possible(), reason="network namespaces need root and the command ip"),
]

STUDY: dict[str, Any] = {
    "study": "hosts",
    "model": "gan",
    "data": "ring8",
    "seeds": [0, 1],
    "budget": {"d_updates": 4000, "evaluations": 40},
    "factors": {"batch_norm": [True, False], "lr": [1e-3], "ratio": ["1:2", "2:1"]},
    "fixed": {"batch_size": 16},
}


def test_a_host_that_loses_its_link_costs_time_and_nothing_else(tmp_path):
    """What it still writes belongs to an older attempt, also when it is back."""
    file, store = write(tmp_path / "study.yaml", STUDY), tmp_path / "store"
    with switched(3) as lan, four_nodes(nodes=3, hosts=lan.hosts) as nodes:
        command = [
            *lan.inside(0), *VISTUDY, "run", str(file), "--store", str(store), "--cluster", nodes.address,
            "--checkpoint-every", "1",
        ]  # fmt: skip
        with open(tmp_path / "log", "wb") as log:
            driver = subprocess.Popen(command, env=ENVIRONMENT | nodes.env, stdout=log, stderr=subprocess.STDOUT)
            away = nodes.workers[-1]
            while not _trains_on(away.pids):
                assert driver.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.2)
            lan.cut(2)
            assert driver.wait(400) == 0, (tmp_path / "log").read_text()
            lan.heal(2)
            time.sleep(5)
    vistudy("run", file, "--store", tmp_path / "here", "--cluster", "debug")
    assert records(store) == records(tmp_path / "here")
    assert len(Ledger(str(store)).finished_trials()) == 8


def _trains_on(pids: dict[int, str]) -> bool:
    """Whether one of these processes is a Tune actor at work."""
    return any("ImplicitFunc" in line for line in pids.values())


def test_nodes_of_several_hosts_are_reached_by_their_addresses(tmp_path):
    with switched(2) as lan, four_nodes(nodes=2, hosts=lan.hosts) as nodes:
        output = vistudy(
            "cluster", "check", nodes.address, "--store", tmp_path / "store", env=nodes.env, prefix=lan.inside(0)
        )
        assert "10.77.0.1" in output
        assert "10.77.0.2" in output
    assert not [name for name in os.listdir("/run/netns") if name.startswith(f"vs{os.getpid()}")]
