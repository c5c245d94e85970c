"""The ledger met with damage, strangers and bad places: named, never skipped, never taken for an empty store."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from study.errors import StoreError
from study.ledger import Ledger
from tests.study.stored import pack, record


def test_segment_cut_or_changed_anywhere_is_named(disk: Ledger) -> None:
    disk.write_pack(pack())
    disk.open_attempt("p1").append([record(0, "a", d=1.5), record(0, "b", d=math.nan)], 9)
    path = Path(disk.uri) / "packs/p1/attempt-001/records-00000.jsonl"
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place])
        if good[:place].endswith(b"}\n"):
            continue  # a cut between two lines leaves whole records; the missing one is for the frame to notice
        with pytest.raises(StoreError, match=r"damaged file.*records-00000\.jsonl"):
            list(disk.records())


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("trials/a.json", b'{"trial_id": "a", "sta'),
        ("trials/a.json", b'{"trial_id": "b", "state": "complete"}'),
        ("packs/p1/pack.json", b"[]"),
        ("packs/p1/attempt-001/records-00000.jsonl.orig", b""),
        ("packs/p1/attempt-001/samples-00000.npz", b"PK"),
    ],
)
def test_damaged_and_foreign_files_are_named(disk: Ledger, path: str, content: bytes) -> None:
    disk.write_pack(pack())
    disk.open_attempt("p1").append([record(0)], 0)
    disk._disk.write(path, content)
    with pytest.raises(StoreError, match=path.replace(".", r"\.")):  # noqa: PT012 (whichever reader meets it first)
        fresh = Ledger(disk.uri)
        fresh.read_outcomes()
        list(fresh.records())
        fresh.samples("a")


def test_temporary_files_of_a_killed_writer_are_ignored(disk: Ledger) -> None:
    disk.write_pack(pack())
    disk.open_attempt("p1").append([record(0)], 0)
    for folder in ("packs/p1/attempt-001", "trials", "packs"):
        (Path(disk.uri) / folder).mkdir(exist_ok=True)
        (Path(disk.uri) / folder / ".0123abcd.tmp").write_bytes(b"half a rec")
    assert len(list(disk.records())) == 1
    assert disk.done() == set()


def test_other_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text(json.dumps({"format": 99}))
    for act in (Ledger(tmp_path).create, Ledger(tmp_path).done):
        with pytest.raises(StoreError, match=r"format 99.*reads 1"):
            act()


def test_missing_store_is_not_an_empty_one(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "nothing")
    assert not ledger.exists()
    with pytest.raises(StoreError, match=r"no vistudy store.*--store"):
        ledger.done()
    assert not (tmp_path / "nothing").exists()


def test_store_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/no-such-store")):
        with pytest.raises(StoreError, match=r"cannot be written to.*--store"):
            Ledger(place).create()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "empty"),
        ("s4://bucket/x", r"unknown scheme 's4'.*Did you mean s3://"),
        ("sqlite:///x.db", "unknown scheme 'sqlite'"),
        ("s3:/bucket", "two slashes"),
    ],
)
def test_bad_uris(uri: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        Ledger(uri)


def test_read_only_filesystem_is_refused() -> None:
    with pytest.raises(StoreError, match="cannot be written to"):
        Ledger("data://nothing").create()


def test_same_uri_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Ledger("here").uri == Ledger(f"file://{tmp_path}/here").uri == str(tmp_path / "here")
