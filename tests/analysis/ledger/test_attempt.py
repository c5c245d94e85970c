"""The ledger met with damage, strangers and bad places: named, never skipped, never taken for an empty store."""

from __future__ import annotations

import contextlib
import json
import math
import random
from pathlib import Path

import pytest

from tests.study.stored import outcome, pack, record
from vistudy.analysis.ledger.errors import StoreError, StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.tables.trials import load_frame


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
    disk._files.write(path, content)
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
    assert disk.finished_trials() == set()


def test_other_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text(json.dumps({"format": 99}))
    for act in (Ledger(tmp_path).create, Ledger(tmp_path).finished_trials):
        with pytest.raises(StoreError, match=r"format 99.*reads 1"):
            act()


def test_missing_store_is_not_an_empty_one(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "nothing")
    assert not ledger.exists()
    with pytest.raises(StoreError, match=r"no vistudy store.*--store"):
        ledger.finished_trials()
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


# -- nothing that was torn or changed is taken for good, or for nothing --------------------------------------------


def test_checkpoint_cut_or_flipped_anywhere_gives_the_one_before(
    disk: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    disk.write_pack(pack())
    attempt, rng = disk.open_attempt("p1"), random.Random(0)
    attempt.checkpoint(1, b"the one before")
    attempt.checkpoint(2, rng.randbytes(400))
    path = Path(disk.uri) / "packs/p1/attempt-001/checkpoint-00002.pt"
    good = path.read_bytes()
    assert disk.latest_checkpoint("p1") == (2, good.partition(b"\n")[2])
    for place in range(len(good)):
        flipped = bytearray(good)
        flipped[place] ^= 1 << rng.randrange(8)
        for bad in (good[:place], bytes(flipped)):
            path.write_bytes(bad)
            caplog.clear()
            assert disk.latest_checkpoint("p1") == (1, b"the one before")
            assert "checkpoint-00002.pt" in caplog.text


def test_no_good_checkpoint_is_left(disk: Ledger) -> None:
    disk.write_pack(pack())
    disk.open_attempt("p1").checkpoint(1, b"payload")
    (Path(disk.uri) / "packs/p1/attempt-001/checkpoint-00001.pt").write_bytes(b"")
    assert disk.latest_checkpoint("p1") is None


def test_segment_with_a_changed_byte_is_named_or_changes_a_value_only(disk: Ledger) -> None:
    """JSON has no checksum: a digit may become another. What it must not do is vanish, or become another trial's."""
    disk.write_pack(pack())
    disk.open_attempt("p1").append([record(0, "a", d=1.5), record(0, "b", d=math.nan)], 9)
    path, rng = Path(disk.uri) / "packs/p1/attempt-001/records-00000.jsonl", random.Random(1)
    good = path.read_bytes()
    for place in range(len(good)):
        changed = bytearray(good)
        changed[place] = rng.randrange(256)
        path.write_bytes(bytes(changed))
        with contextlib.suppress(_Named):
            assert len(list(_records(disk))) == 2


class _Named(Exception):
    """A StoreError that names the segment."""


def _records(disk: Ledger) -> list[dict[str, object]]:
    try:
        return list(Ledger(disk.uri).records())
    except StoreError as error:
        if "records-00000.jsonl" not in str(error):
            raise
        raise _Named from error


def test_a_segment_cut_between_two_lines_is_a_gap_that_is_named(disk: Ledger) -> None:
    disk.write_pack(pack())
    attempt = disk.open_attempt("p1")
    for evaluation in range(3):
        attempt.append([record(evaluation, "a"), record(evaluation, "b")], 9)
    trials = [{"trial_id": i, "block": 0, "cell": {}, "config": {"evaluations": 2}} for i in "ab"]
    disk.write_study("s", "study: s\n", {"study": "s", "trials": trials}, {"created_ms": 1})
    path = Path(disk.uri) / "packs/p1/attempt-001/records-00001.jsonl"
    path.write_bytes(path.read_bytes().partition(b"\n")[0] + b"\n")
    with pytest.raises(StudyError, match=r"trial b has a record of evaluation 2 but none of 1.*vistudy doctor"):
        load_frame(disk, "s")


@pytest.mark.parametrize(
    "path", ["trials/a.json", "packs/p1/pack.json", "studies/s/plan.json", "studies/s/meta.json", "ledger.json"]
)
def test_state_file_cut_anywhere_is_named(disk: Ledger, path: str) -> None:
    disk.write_pack(pack())
    disk.open_attempt("p1").append([record(0, "a")], 1)
    disk.finish_trial(outcome("a"))
    disk.write_study("s", "study: s\n", {"study": "s", "trials": [{"trial_id": "a"}]}, {"created_ms": 1})
    file = Path(disk.uri) / path
    good = file.read_bytes()
    for place in range(len(good) - 1):  # without the last line break it is whole
        file.write_bytes(good[:place])
        if good[:place].rstrip().endswith(b"}") and place >= len(good.rstrip()):
            continue
        fresh = Ledger(disk.uri)
        with pytest.raises(StoreError, match=path.replace(".", r"\.")):  # noqa: PT012 (whichever reader meets it first)
            fresh.exists()
            fresh.read_plan("s")
            fresh.read_meta("s")
            fresh.packs()
            fresh.read_outcomes()
        if path == "trials/a.json":
            assert fresh.finished_trials() == {"a"}  # it ended, and how cannot be read: that is not "planned"
