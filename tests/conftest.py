"""What a machine cannot run is skipped, with the reason; what is prepared once is prepared in a folder of the tests."""

from __future__ import annotations

import os
import tempfile

import pytest
import torch

CACHE = tempfile.TemporaryDirectory(prefix="vistudy-tests-")
os.environ["VISTUDY_CACHE"] = CACHE.name  # before anything is imported, and for subprocesses, too


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu need a CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
