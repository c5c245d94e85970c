"""`vistudy run --detach`: a study as a job of a real head, followed and stopped from outside."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters.four_nodes import Nodes, four_nodes
from tests.study.runs import records, vistudy, write
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.clusters import jobs

STUDY: dict[str, Any] = {
    "study": "detached",
    "model": "gan",
    "data": "ring8",
    "seeds": [0, 1],
    "budget": {"d_updates": 20, "evaluations": 10},
    "factors": {"lr": [1e-3, 1e-4]},
    "fixed": {"batch_size": 16, "ratio": "1:2"},
}


@pytest.fixture(scope="module")
def head() -> Iterator[Nodes]:
    pytest.importorskip("aiohttp_cors", reason="ray[default] is not installed: heads here take no jobs")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # as in an activated environment
    with four_nodes(nodes=1, cpus=2, dashboard=True, PATH=path) as nodes:
        yield nodes


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_detached_study_makes_the_same_records_and_can_be_followed(head, tmp_path):
    at = ("--cluster", f"http://127.0.0.1:{head.dashboard}")
    file = write(tmp_path / "study.yaml", STUDY)
    output = vistudy("run", file, "--detach", *at, "--store", tmp_path / "job", env=head.env)
    assert "vistudy job logs detached" in output
    output = vistudy("job", "logs", "detached", *at, "--follow", env=head.env)
    assert "4 of 4 trials to run" in output
    assert "SUCCEEDED" in output
    assert "detached" in vistudy("jobs", *at, env=head.env)
    vistudy("run", file, "--store", tmp_path / "here", "--cluster", "debug")
    assert records(tmp_path / "job") == records(tmp_path / "here")


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_second_one_is_refused_and_stop_ends_it_resumably(head, tmp_path):
    at, store = ("--cluster", f"http://127.0.0.1:{head.dashboard}"), tmp_path / "store"
    long = STUDY | {"study": "long", "budget": {"d_updates": 200_000, "evaluations": 20_000}}
    file = write(tmp_path / "study.yaml", long)
    vistudy("run", file, "--detach", *at, "--store", store, env=head.env)
    deadline = time.monotonic() + 120
    while not (store.exists() and next(iter(Ledger(str(store)).records()), None)):
        assert time.monotonic() < deadline, vistudy("job", "logs", "long", *at, env=head.env)
        time.sleep(1)
    assert "already" in vistudy("run", file, "--detach", *at, "--store", store, env=head.env, code=2)
    output = vistudy("job", "stop", "long", *at, env=head.env)
    assert "STOPPED" in output
    assert "stopping: writing checkpoints" in output
    assert "stopped by SIGTERM; 0 of 4 trials ended in this run, 0 before it, 4 are left: 4 with a checkpoint" in output
    assert "the same command resumes the run" in output
    assert Ledger(str(store)).finished_trials() == set()
    assert json.loads(vistudy("status", "long", "--store", store, "--json"))["states"] == {"interrupted": 4}
    assert "it had already ended" in vistudy("job", "stop", "long", *at, env=head.env)


def test_what_no_job_can_be_made_of(tmp_path):
    file = write(tmp_path / "study.yaml", STUDY)
    assert "absolute path" in vistudy("run", file, "--detach", "--cluster", "http://127.0.0.1:9", code=2)
    store = ("--store", tmp_path / "store")
    output = vistudy("run", file, "--detach", "--cluster", "127.0.0.1:6379", *store, code=2)
    assert "http://10.0.0.5:8265" in output
    output = vistudy("run", file, "--detach", "--cluster", "http://127.0.0.1:9", *store, code=2, timeout_s=60)
    assert "Check that it is the address" in output
    assert not (tmp_path / "store").exists()


def test_a_head_that_has_just_started_is_waited_for(monkeypatch):
    answers = ["Request failed with status code 500: No available agent to submit job", "raysubmit_1"]

    class Client:
        def submit_job(self, **job: Any) -> str:
            answer = answers.pop(0)
            if answer.startswith("Request failed"):
                raise RuntimeError(answer)
            return answer

    monkeypatch.setattr(jobs, "_POLL_INTERVAL_S", 0.0)
    head = object.__new__(jobs.Jobs)
    head._client = Client()
    assert head._submit(entrypoint="true") == "raysubmit_1"
    answers.append("Request failed with status code 500: something else")
    with pytest.raises(RuntimeError, match="something else"):
        head._submit(entrypoint="true")
