"""A study on four real nodes makes the records that one process makes; nodes on which it would not are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.clusters.four_nodes import Nodes, four_nodes
from tests.study.runs import VISTUDY, records, vistudy, write
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.tables.trials import load_frame

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

STUDY = {
    "study": "four-nodes",
    "model": "gan",
    "data": "ring8",
    "seeds": [0, 1],
    "budget": {"d_updates": 20, "evaluations": 10},
    "factors": {"batch_norm": [True, False], "lr": [1e-3, 1e-4], "ratio": ["1:2", "2:1"]},
    "fixed": {"batch_size": 16},
}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with four_nodes() as running:
        yield running


def test_records_are_those_of_one_process(nodes, tmp_path):
    file = write(tmp_path / "study.yaml", STUDY)
    output = vistudy("run", file, "--store", tmp_path / "many", "--cluster", nodes.address, env=nodes.env)
    assert f"on 4 CPU slots of {nodes.address}" in output
    vistudy("run", file, "--store", tmp_path / "one", "--cluster", "debug")
    assert load_frame(tmp_path / "many", "four-nodes")["state"].tolist() == ["complete"] * 16
    many = records(tmp_path / "many")
    assert len(many) == 16 * 11
    assert many == records(tmp_path / "one")
    assert not [path.name for path in (tmp_path / "many").iterdir() if path.name.startswith(".preflight")]


def test_a_node_that_has_just_died_is_no_obstacle(nodes, tmp_path):
    """Ray lists it for ten seconds more: it is asked, does not answer, and the others train."""
    dead = nodes.add()
    nodes.kill(dead)
    file = write(tmp_path / "study.yaml", STUDY | {"study": "after-a-death"})
    output = vistudy("run", file, "--store", tmp_path / "store", "--cluster", nodes.address, env=nodes.env)
    assert f"{dead.host} has left the cluster; the study runs on the other nodes" in output
    assert f"on 4 CPU slots of {nodes.address}" in output
    assert load_frame(tmp_path / "store", "after-a-death")["state"].tolist() == ["complete"] * 16


def check(nodes: Nodes, *args: str | Path, code: int) -> str:
    return vistudy("cluster", "check", nodes.address, *args, env=nodes.env, code=code)


def test_check_says_what_a_cluster_has(nodes, tmp_path):
    output = check(nodes, "--store", tmp_path / "store", "--json", code=0)
    found = json.loads(output)
    assert (found["slots"], found["gpus"], found["problems"]) == (4, 0, [])
    assert {node["node"]["name"] for node in found["nodes"]} == {f"127.0.0.{i}" for i in (2, 3, 4, 5)}
    assert all(abs(node["skew_s"]) < 0.5 for node in found["nodes"])
    output = check(nodes, "--gpus", "1", "--tracking-uri", "http://127.0.0.1:9", code=2)
    assert f"{nodes.address} has 0 GPUs; 1 were asked for" in output
    assert output.count("does not reach the tracking server") == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount of its own needs root")
def test_a_node_without_the_store_is_refused(nodes, tmp_path):
    """Its store is an empty folder at the same path: what it wrote there would be lost."""
    store = tmp_path / "store"
    store.mkdir()
    hide = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {store} && exec "$@"', "sh"]
    alone = nodes.add(prefix=hide)
    try:
        file = write(tmp_path / "study.yaml", STUDY)
        output = vistudy("run", file, "--store", store, "--cluster", nodes.address, env=nodes.env, code=2)
        assert f"{alone.host} does not share the store {store}" in output
        assert output.count("does not share the store") == 1
        assert not (store / "packs").exists()
    finally:
        nodes.kill(alone)


def with_another_torch(folder: Path) -> str:
    """PYTHONPATH of a node that says so."""
    fake = folder / "fake" / "torch-2.0.1.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.0.1\n")
    return os.pathsep.join([str(fake.parent), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_a_node_that_joins_later_with_another_torch_trains_nothing(tmp_path):
    """As an autoscaler may add it, when the cluster has been looked at."""
    file = write(tmp_path / "study.yaml", STUDY | {"budget": {"d_updates": 6000, "evaluations": 20}})
    store = tmp_path / "store"
    command = [*VISTUDY, "run", str(file), "--store", str(store), "--cluster"]
    with four_nodes(nodes=1) as nodes, (tmp_path / "log").open("w") as log:
        env = os.environ | nodes.env
        first = subprocess.Popen([*command, nodes.address], env=env, stdout=log, stderr=log)
        while first.poll() is None and not list(store.glob("packs/*/attempt-*")):
            time.sleep(0.1)
        other = nodes.add(PYTHONPATH=with_another_torch(tmp_path))
        assert first.wait(240) in (0, 75)  # if it took pack after pack, while the head was busy with its own
        said = (tmp_path / "log").read_text()
        assert "a node cannot train it" in said
        assert "has torch 2.0.1 (the run: " in said
        nodes.kill(other)
        vistudy("run", file, "--store", store, "--cluster", nodes.address, env=nodes.env)
    outcomes = Ledger(store).read_outcomes()
    assert len(outcomes) == 16
    assert {(found["state"], found["versions"]["torch"]) for found in outcomes.values()} == {
        ("complete", version("torch"))
    }


def test_a_node_with_another_torch_is_refused(nodes, tmp_path):
    other = nodes.add(PYTHONPATH=with_another_torch(tmp_path))
    try:
        output = check(nodes, "--store", tmp_path / "store", code=2)
        assert f"{other.host} has other versions: torch 2.0.1 (here " in output
        assert output.count("has other versions") == 1
    finally:
        nodes.kill(other)


@pytest.mark.parametrize("env", [{"RAY_AUTH_TOKEN": "wrong"}, {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}])
def test_a_wrong_token_is_refused(nodes, env):
    """At once: Ray itself would go on trying, a line a second."""
    output = vistudy("cluster", "check", nodes.address, env=nodes.env | env, code=2, timeout_s=60)
    assert "it asks for another token than ours. Set RAY_AUTH_MODE=token" in output
    assert output.count("InvalidAuthToken") <= 1
    assert "Traceback" not in output


def test_nothing_is_left(nodes):
    """Nor Ray's agents, which outlive a killed raylet and overwrite the environment that marks them."""
    with four_nodes(nodes=1) as alone:
        assert sys.executable in next(iter(alone.head.pids.values()))
        deadline = time.monotonic() + 30
        while "ray::RuntimeEnvAgent" not in "".join(alone.head.pids.values()) and time.monotonic() < deadline:
            time.sleep(0.1)
        agents = [pid for pid, line in alone.head.pids.items() if "Agent" in line]
        alone.kill_raylet(alone.head)
    assert agents
    assert not [
        pid for pid in agents if Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert not alone.head.pids
    assert not alone.folder.exists()
    assert nodes.head.raylet
