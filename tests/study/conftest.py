"""New stores; an empty MLflow, and a small study to mirror into it."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.study.mlflow_study import finish, new_ledger, records
from vistudy.analysis.ledger.ledger import Attempt, Ledger
from vistudy.study.tracking import mirror


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without experiments: making one takes seconds, a copy takes none."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mirror.connect(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(params=["bulk", "client"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How rows are written: by us, into MLflow's tables, or by MLflow's client."""
    if request.param == "client":
        monkeypatch.setattr(mirror, "writable", lambda client: False)
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
