"""Files of MLflow runs: the study's own, and pictures of a trial's samples. Equal input gives equal files."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vistudy.analysis.figures.sample_images import drawable, encode, render
from vistudy.analysis.ledger.attempt import to_npz
from vistudy.analysis.ledger.documents import Record, StoredPlan
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger

Files = dict[str, bytes]
"""Path below a run's artifacts -> content."""

MAX_PICTURES = 6
"""Evaluations per trial with a picture; each costs two files."""


class SampleFiles:
    """Files of a trial: pictures of its samples, named for MLflow's image view, and its weights if kept."""

    def __init__(self, ledger: Ledger, modes: Mapping[str, Any]) -> None:
        self._ledger, self._modes = ledger, modes

    def of(self, trial_id: str, data: str, records: Sequence[Record]) -> Files:
        """Pictures at the first and the last evaluation with samples and some in between; and `weights.npz`."""
        by_evaluation = {record["evaluation"]: record for record in records}
        stored = self._ledger.samples(trial_id)
        samples = {e: a for e, a in stored.items() if e in by_evaluation and drawable(a.shape)}
        files: Files = {}
        for evaluation in _spread(sorted(samples), MAX_PICTURES):
            record, array = by_evaluation[evaluation], samples[evaluation]
            image = render(array, modes=self._modes.get(data))
            # Derived from the trial rather than random: after an interruption a sync overwrites the file.
            name = uuid.uuid5(uuid.NAMESPACE_OID, f"{trial_id}/{evaluation}")
            stem = f"images/samples+step+{record['step']}+timestamp+{record['unix_ms']}+{name}"
            # MLflow's pages show the compressed file and open the other one; both may be PNG.
            files[f"{stem}.png"] = files[f"{stem}+compressed.png"] = encode(image)
        if weights := self._ledger.weights(trial_id):
            files["weights.npz"] = to_npz(weights)
        return files


def count_pictures(files: Files) -> int:
    """Number of pictures; each has two files."""
    return sum("+step+" in name and "+compressed" not in name for name in files)


def _spread(items: list[int], most: int) -> list[int]:
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def study_files(text: str, plan: StoredPlan, meta: Mapping[str, Any], extra: Sequence[Path]) -> Files:
    """Files of the parent run: study file, plan, environment, git state, and extra files such as heatmaps."""
    files = {
        "study.yaml": text.encode(),
        "plan.json": json.dumps(plan, indent=1).encode(),
        "meta.json": json.dumps(meta, indent=1).encode(),
        "environment.txt": environment().encode(),
    }
    if "git" in meta:
        files["git.json"] = json.dumps(meta["git"], indent=1).encode()
    for path in extra:
        if not path.is_file():
            raise StudyError(f"artifact {path}: there is no such file to store with the study")
        files[f"figures/{path.name}"] = path.read_bytes()
    return files


@functools.cache
def environment() -> str:
    """Installed distributions, one `name==version` per line, sorted."""
    pins = {_pin(distribution) for distribution in importlib.metadata.distributions()}
    return "\n".join(sorted(pins, key=str.lower)) + "\n"


def _pin(distribution: importlib.metadata.Distribution) -> str:
    # importlib's parser reads the whole description as an e-mail: half a second for 200 distributions.
    head = (distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or "").partition("\n\n")[0]
    name, version = (re.search(rf"^{field}: *(\S+)\s*$", head, re.MULTILINE) for field in ("Name", "Version"))
    if name and version:
        return f"{name[1]}=={version[1]}"
    return f"{distribution.metadata['Name']}=={distribution.version}"


def fingerprint(files: Files) -> str:
    """Hash of names and contents; `none` if there are no files."""
    if not files:
        return "none"
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return digest.hexdigest()[:16]
