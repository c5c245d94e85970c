"""Stores that cannot be used: each is refused at once, with one message that says what to do. And one that can: S3."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3 import s3
from tests.study.runs import ENVIRONMENT, records, vistudy, write
from tests.study.stored import outcome
from vistudy.analysis.ledger.atomic_files import FileStore
from vistudy.analysis.ledger.errors import StoreError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.ledger.object_stores import describe_error

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")

STUDY = {
    "study": "somewhere",
    "model": "gan",
    "data": "ring8",
    "seeds": [0],
    "budget": {"d_updates": 20, "evaluations": 10},
    "factors": {"lr": [1e-3], "ratio": ["1:2", "2:1"]},
    "fixed": {"batch_size": 16},
}


def refused(tmp_path: Path, store: str, env: dict[str, str] | None = None) -> str:
    """The error of a run with that store. Nothing else may be said, and no traceback."""
    file = write(tmp_path / "study.yaml", STUDY)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    began = time.monotonic()
    output = vistudy("run", file, "--store", store, "--tracking-uri", uri, "--cluster", "debug", env=env, code=2)
    assert time.monotonic() - began < 60, "20 s on a quiet machine"
    assert output.count("error:") == 1
    assert "Traceback" not in output
    return output


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@root
def test_a_full_disk(small, tmp_path):
    (small / "junk").write_bytes(bytes(2**20 - 8192))
    output = refused(tmp_path, f"{small}/store")
    assert "No space left on device" in output
    assert "Give another place with --store" in output


@root
def test_a_read_only_disk(small, tmp_path):
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    assert "Read-only file system" in refused(tmp_path, f"{small}/store")


def test_a_bucket_that_is_not_there(s3_server, tmp_path):
    output = refused(tmp_path, "s3://no-such-bucket/store", s3_server.env)
    assert "there is no 'no-such-bucket'" in output
    assert "Make the bucket, or correct --store" in output


def test_wrong_credentials(tmp_path):
    with s3(INITIAL_NO_AUTH_ACTION_COUNT="1") as server:
        bucket = server.bucket()
        output = refused(tmp_path, f"s3://{bucket}/store", server.env)
    assert "access is denied" in output
    assert "AWS_ACCESS_KEY_ID" in output
    assert "testing" not in output, "no credential is printed"


def test_no_credentials(s3_server, tmp_path, monkeypatch):
    env = {name: value for name, value in s3_server.env.items() if "KEY" not in name}
    monkeypatch.setitem(ENVIRONMENT, "HOME", str(tmp_path))
    output = refused(tmp_path, "s3://bucket/store", env)
    assert "No usable credentials were found in the environment" in output


def test_a_server_that_is_not_there(s3_server, tmp_path):
    output = refused(tmp_path, "s3://bucket/store", s3_server.env | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    assert "nothing answers" in output


def test_explanations_hold_no_secret():
    said = describe_error(OSError("AWS_SECRET_ACCESS_KEY=hunter2, X-Amz-Signature=hunter3&x=1"), "s3://bucket/store")
    assert "hunter" not in said


def test_a_study_on_s3_makes_the_same_records(bucket, s3_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # heatmaps of a store that is no folder go here
    file, uri = write(tmp_path / "study.yaml", STUDY), f"sqlite:///{tmp_path}/mlflow.db"
    store = f"s3://{bucket}/store"
    run = ["run", file, "--store", store, "--tracking-uri", uri, "--cluster", "debug"]
    vistudy(*run, env=s3_server.env)
    vistudy("run", file, "--store", tmp_path / "disk", "--tracking-uri", uri, "--cluster", "debug")
    far = records(store)
    assert len(far) == 2 * 11
    assert far == records(tmp_path / "disk")
    assert "nothing left to run" in vistudy(*run, env=s3_server.env)


def test_of_many_writers_one_is_first(bucket):
    """S3 has no rename and no lock: an exclusive put is what makes an outcome the only one."""
    disks = [FileStore(f"s3://{bucket}/store") for _ in range(8)]
    for attempt in range(5):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda i, n=attempt: disks[i].write(f"t/{n}", b"%d" % i, exclusive=True), range(8)))
        assert sum(won) == 1
        assert disks[0].read(f"t/{attempt}") == b"%d" % won.index(True)


def test_a_server_without_conditional_puts_is_refused(bucket, monkeypatch):
    ledger = Ledger(f"s3://{bucket}/store")
    fs = ledger._files._fs
    monkeypatch.setattr(fs, "pipe_file", lambda path, data, mode="", put=fs.pipe_file: put(path, data))
    with pytest.raises(StoreError, match="replaces files although it was asked not to"):
        ledger.create()


def test_on_s3_too_the_highest_attempt_wins_whoever_comes_last(bucket):
    ledger, zombie = Ledger(f"s3://{bucket}/store"), Ledger(f"s3://{bucket}/store")
    ledger.create()
    ledger.finish_trial(outcome("t1", attempt=2))
    zombie.finish_trial(outcome("t1", attempt=1))
    assert ledger.read_outcomes(["t1"])["t1"]["attempt"] == 2
