"""Files of studies in the ledger: study file, plan and registrations. Part of `analysis.ledger.ledger.Ledger`."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, cast

from vistudy.analysis.ledger.atomic_files import FileStore
from vistudy.analysis.ledger.documents import Registration, StoredPlan
from vistudy.analysis.ledger.errors import StoreError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@-]{0,199}")
_REGISTRATION = re.compile(r"registration(-\d{3,})?\.json")


class StudyFiles(ABC):
    """Files under `studies/` of a store."""

    uri: str
    _files: FileStore

    @abstractmethod
    def _open_store(self) -> FileStore:
        """Files of the store. Raises StoreError if there is none."""

    def write_study(self, name: str, text: str, plan: dict[str, Any], meta: dict[str, Any]) -> None:
        """Store a study file (each version is kept in `history/`), its plan and its provenance.

        A stored plan whose trials have other data is kept as a study of its own, see `earlier_name`.
        """
        files, folder, data = self._open_store(), f"studies/{check_name(name, 'study')}", text.encode()
        if earlier := self.earlier_name(name, meta.get("data", {})):
            names = ["study.yaml", "meta.json", *self._registration_files(name), "plan.json"]
            for file in names:
                files.write(f"studies/{earlier}/{file}", files.read(f"{folder}/{file}"), durable=True)
        files.write(f"{folder}/history/{hashlib.sha256(data).hexdigest()[:12]}.yaml", data)
        files.write(f"{folder}/study.yaml", data)
        files.write(f"{folder}/meta.json", to_json_bytes(meta))
        files.write(f"{folder}/plan.json", to_json_bytes(plan), durable=True)

    def earlier_name(self, name: str, data: Mapping[str, Any]) -> str | None:
        """Name under which a stored plan is kept when its study is run on `data`; None if the data are equal.

        It is `<name>@<first 8 digits of the earlier fingerprint>`, or `<name>@data-not-recorded`.

        Args:
            name: the study.
            data: as `data` of its `meta.json`.
        """
        if not self._open_store().exists(f"studies/{check_name(name, 'study')}/plan.json"):
            return None
        before = self.read_meta(name).get("data")
        if before is None:
            return f"{name}@data-not-recorded" if data else None
        changed = [of for of in before.keys() & data.keys() if before[of]["fingerprint"] != data[of]["fingerprint"]]
        return f"{name}@{before[min(changed)]['fingerprint'][:8]}" if changed else None

    def study_names(self) -> list[str]:
        """Names of the studies in the store, sorted."""
        files = self._open_store()
        return [name for name in files.list("studies") if files.exists(f"studies/{name}/plan.json")]

    def read_plan(self, name: str) -> StoredPlan:
        """Read the plan of a study."""
        return cast("StoredPlan", self._read_study_json(name, "plan.json"))

    def read_meta(self, name: str) -> dict[str, Any]:
        """Read the provenance of a study: git state, versions, timestamps and data."""
        return self._read_study_json(name, "meta.json")

    def read_study_text(self, name: str) -> str:
        """Read the study file as last run."""
        return self._read_study_file(name, "study.yaml").decode()

    def _read_study_json(self, name: str, file: str) -> dict[str, Any]:
        return self._files.parse(f"studies/{name}/{file}", self._read_study_file(name, file))

    def _read_study_file(self, name: str, file: str) -> bytes:
        files = self._open_store()
        try:
            return files.read(f"studies/{check_name(name, 'study')}/{file}")
        except FileNotFoundError:
            names = self.study_names()
            near = difflib.get_close_matches(name, names, n=1)
            raise StoreError(
                f"study {name!r} is not in the store {self.uri} (no {file})."
                + (f" Did you mean {near[0]!r}?" if near and near[0] != name else "")
                + f" Studies there: {', '.join(names) or 'none'}."
            ) from None

    def read_outcome_cache(self, name: str) -> bytes | None:
        """Read a study's cached outcomes (`vistudy.analysis.outcomes.outcome_cache`); None if there are none."""
        try:
            return self._open_store().read(f"studies/{check_name(name, 'study')}/outcome-cache.json")
        except FileNotFoundError:
            return None

    def write_outcome_cache(self, name: str, data: bytes) -> None:
        """Replace a study's cached outcomes. They follow from records and may be deleted at any time."""
        self._open_store().write(f"studies/{check_name(name, 'study')}/outcome-cache.json", data)

    def registrations(self, name: str) -> list[Registration]:
        """Read what `vistudy register` froze of a study: the first registration, then its amendments."""
        files, folder = self._open_store(), f"studies/{check_name(name, 'study')}"
        return [files.read_json(f"{folder}/{file}") for file in self._registration_files(name)]

    def _registration_files(self, name: str) -> list[str]:
        names = self._open_store().list(f"studies/{check_name(name, 'study')}")
        return sorted(filter(_REGISTRATION.fullmatch, names), key=_number)

    def write_registration(self, name: str, registration: Mapping[str, Any]) -> None:
        """Append a registration; none is ever overwritten.

        Raises:
            StoreError: another process has just written one.
        """
        files, number = self._open_store(), max(map(_number, self._registration_files(name)), default=0) + 1
        file = "registration.json" if number == 1 else f"registration-{number:03d}.json"
        path = f"studies/{check_name(name, 'study')}/{file}"
        if not files.write(path, to_json_bytes(registration), durable=True, exclusive=True):
            raise StoreError(
                f"{files.full_path(path)} has just been written by another process; look at it, and try again."
            )


def _number(file: str) -> int:
    """Number of a registration: registration.json is 1, registration-002.json is 2."""
    return int("".join(filter(str.isdigit, file)) or 1)


def check_name(name: str, what: str) -> str:
    """Return a name if it is a safe folder name. Raises StoreError, for example for `../x`."""
    if not _NAME.fullmatch(name):
        raise StoreError(f"{what} name {name!r}: use letters, digits and . _ + = @ - (a letter or digit first).")
    return name


_encode = json.JSONEncoder(allow_nan=False).encode


def to_json_bytes(content: Mapping[str, Any]) -> bytes:
    """Encode a document of the store: one line per key, and one per item of a list of objects.

    The json module's `indent` is pure Python and takes seconds for a plan of 10,000 trials.
    """
    lines = []
    for key, value in content.items():
        items = isinstance(value, list) and value and isinstance(value[0], dict)
        text = "[\n  " + ",\n  ".join(map(_encode, value)) + "\n ]" if items else _encode(value)
        lines.append(f" {_encode(key)}: {text}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()
