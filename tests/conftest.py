"""What a machine cannot run is skipped, with the reason; what is prepared once is prepared in a folder of the tests."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

CACHE = tempfile.TemporaryDirectory(prefix="vistudy-tests-")
os.environ["VISTUDY_CACHE"] = CACHE.name  # before anything is imported, and for subprocesses, too

from tests.s3 import S3Server, s3  # noqa: E402
from vistudy.analysis.ledger.ledger import Ledger  # noqa: E402

hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu need a CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


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
