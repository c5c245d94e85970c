"""New stores; an empty MLflow, and a small study to mirror into it."""

from __future__ import annotations

import itertools
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.study.mlflow_study import finish, new_ledger, records
from tests.study.s3 import S3Server, s3
from vistudy.analysis.ledger.ledger import Attempt, Ledger
from vistudy.study.tracking import mirror as tracking


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server of S3's protocol on loopback."""
    with s3() as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a new bucket; this process and those that it starts reach it."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return s3_server.bucket()


@pytest.fixture(params=["disk", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    """A new store on the disk, one on an fsspec filesystem, and one on a server of S3's protocol."""
    if request.param == "s3":
        ledger = Ledger(f"s3://{request.getfixturevalue('bucket')}/store")
    else:
        ledger = Ledger(tmp_path / "store" if request.param == "disk" else f"memory://{uuid.uuid4().hex}/store")
    ledger.create()
    return ledger


@pytest.fixture
def disk(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "store")
    ledger.create()
    return ledger


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without experiments: making one takes seconds, a copy takes none."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    tracking.connect(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(params=["bulk", "client"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How rows are written: by us, into MLflow's tables, or by MLflow's client."""
    if request.param == "client":
        monkeypatch.setattr(tracking, "writable", lambda client: False)
    return str(request.param)


@pytest.fixture
def new_uri(empty_database: Path, tmp_path: Path, way: str) -> Callable[[], str]:
    """Each call: the URI of another empty database."""
    numbers = itertools.count()

    def make() -> str:
        folder = tmp_path / f"mlflow-{next(numbers)}"
        folder.mkdir()
        shutil.copy(empty_database, folder / "mlflow.db")
        return f"sqlite:///{folder}/mlflow.db"

    return make


@pytest.fixture
def uri(new_uri: Callable[[], str]) -> str:
    return new_uri()


@pytest.fixture
def study(tmp_path: Path) -> tuple[Ledger, Attempt]:
    """Four trials: a complete, b failed with records, c unfinished, d not begun."""
    ledger, attempt = new_ledger(tmp_path / "store")
    for evaluation in range(4):
        attempt.append(records(evaluation, "abc" if evaluation < 3 else "ac"), unix_ms=2000 + evaluation)
    points = np.random.default_rng(0).standard_normal((64, 2))
    attempt.samples(3, {"t1-a": points.astype(np.float16)})
    finish(ledger, "a")
    finish(ledger, "b", "failed")
    return ledger, attempt
