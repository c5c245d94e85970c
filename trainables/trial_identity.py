"""How the id of a trial is made: a content hash of its resolved configuration, the same in every study."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SCHEMA = 2
"""Version of the resolved configuration. Raise it when the same fields come to mean a different training run."""

NOT_RECORDED = ""
"""Data fingerprint of trials of schema 1, which were identified by the name of their data set alone."""

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
"""Canonical JSON: equal values give equal text. One shared encoder, since a plan hashes up to 10,000 trials."""


def make_trial_id(resolved: Mapping[str, Any]) -> str:
    """Return `t<schema>-<12 hex digits>` for a resolved configuration as plain JSON values.

    A configuration without `data_fingerprint` is of schema 1.
    """
    schema = SCHEMA if "data_fingerprint" in resolved else 1
    return f"t{schema}-{hashlib.sha256(_canonical(resolved).encode()).hexdigest()[:12]}"
