"""What the ledger keeps of studies: their files, plans and registrations. Part of `analysis.ledger.ledger.Ledger`."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from vistudy.analysis.ledger.atomic_files import FileStore
from vistudy.analysis.ledger.errors import StoreError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@-]{0,199}")
_REGISTRATION = re.compile(r"registration(-\d{3,})?\.json")


class StudyFiles(ABC):
    """Files under `studies/` of a store."""

    uri: str
    _disk: FileStore

    @abstractmethod
    def _open_store(self) -> FileStore:
        """The storage; StoreError if there is no store."""

    def write_study(self, name: str, text: str, plan: dict[str, Any], meta: dict[str, Any]) -> None:
        """Store a study's file (every version is kept in its history), its plan and where it ran.

        A plan of trials on other data is kept as a study of its own, see `earlier_name`.
        """
        disk, folder, data = self._open_store(), f"studies/{check_name(name, 'study')}", text.encode()
        if earlier := self.earlier_name(name, meta.get("data", {})):
            files = ["study.yaml", "meta.json", *self._registration_files(name), "plan.json"]
            for file in files:
                disk.write(f"studies/{earlier}/{file}", disk.read(f"{folder}/{file}"), durable=True)
        disk.write(f"{folder}/history/{hashlib.sha256(data).hexdigest()[:12]}.yaml", data)
        disk.write(f"{folder}/study.yaml", data)
        disk.write(f"{folder}/meta.json", to_json_bytes(meta))
        disk.write(f"{folder}/plan.json", to_json_bytes(plan), durable=True)

    def earlier_name(self, name: str, data: Mapping[str, Any]) -> str | None:
        """Under which name the stored plan of a study is kept when it is run on `data`; None if they are the same data.

        It is `<name>@<beginning of the earlier fingerprint>`, or `<name>@data-not-recorded`.

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
        disk = self._open_store()
        return [name for name in disk.list("studies") if disk.exists(f"studies/{name}/plan.json")]

    def read_plan(self, name: str) -> dict[str, Any]:
        """The plan of a study: its factors and trials."""
        return self._disk.parse(f"studies/{name}/plan.json", self._of_study(name, "plan.json"))

    def read_meta(self, name: str) -> dict[str, Any]:
        """Git state, versions and timestamps of a study."""
        return self._disk.parse(f"studies/{name}/meta.json", self._of_study(name, "meta.json"))

    def read_study_text(self, name: str) -> str:
        """The study file as last run."""
        return self._of_study(name, "study.yaml").decode()

    def _of_study(self, name: str, file: str) -> bytes:
        disk = self._open_store()
        try:
            return disk.read(f"studies/{check_name(name, 'study')}/{file}")
        except FileNotFoundError:
            known = self.study_names()
            near = difflib.get_close_matches(name, known, n=1)
            raise StoreError(
                f"study {name!r} is not in the store {self.uri} (no {file})."
                + (f" Did you mean {near[0]!r}?" if near and near[0] != name else "")
                + f" Studies there: {', '.join(known) or 'none'}."
            ) from None

    def read_judged(self, name: str) -> bytes | None:
        """What was noted of a study's outcomes (`vistudy.analysis.outcomes.label_study`); None if nothing was."""
        try:
            return self._open_store().read(f"studies/{check_name(name, 'study')}/judged.json")
        except FileNotFoundError:
            return None

    def write_judged(self, name: str, data: bytes) -> None:
        """Replace it. Derived from records and outcomes: it may be deleted at any time."""
        self._open_store().write(f"studies/{check_name(name, 'study')}/judged.json", data)

    def registrations(self, name: str) -> list[dict[str, Any]]:
        """What `vistudy register` has frozen of a study, oldest first: the first one, then its amendments."""
        disk, folder = self._open_store(), f"studies/{check_name(name, 'study')}"
        return [disk.read_json(f"{folder}/{file}") for file in self._registration_files(name)]

    def _registration_files(self, name: str) -> list[str]:
        files = self._open_store().list(f"studies/{check_name(name, 'study')}")
        return sorted(filter(_REGISTRATION.fullmatch, files), key=_number)

    def write_registration(self, name: str, registration: dict[str, Any]) -> None:
        """Add a registration after those that are there; none is ever overwritten.

        Raises:
            StoreError: another process has just written one.
        """
        disk, number = self._open_store(), max(map(_number, self._registration_files(name)), default=0) + 1
        file = "registration.json" if number == 1 else f"registration-{number:03d}.json"
        path = f"studies/{check_name(name, 'study')}/{file}"
        if not disk.write(path, to_json_bytes(registration), durable=True, exclusive=True):
            raise StoreError(f"{disk.name(path)} has just been written by another process; look at it, and try again.")


def _number(file: str) -> int:
    """registration.json is the first one, registration-002.json the second."""
    return int("".join(filter(str.isdigit, file)) or 1)


def check_name(name: str, what: str) -> str:
    """Names become folders: nothing that could climb out of the store."""
    if not _NAME.fullmatch(name):
        raise StoreError(f"{what} name {name!r}: use letters, digits and . _ + = @ - (a letter or digit first).")
    return name


_encode = json.JSONEncoder(allow_nan=False).encode


def to_json_bytes(content: dict[str, Any]) -> bytes:
    """JSON of a file of the store: a line for each key, and one for each item of a list of objects.

    (`indent` of the json module is written in Python, and takes seconds for the plan of 10,000 trials.)
    """
    lines = []
    for key, value in content.items():
        items = isinstance(value, list) and value and isinstance(value[0], dict)
        text = "[\n  " + ",\n  ".join(map(_encode, value)) + "\n ]" if items else _encode(value)
        lines.append(f" {_encode(key)}: {text}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()
