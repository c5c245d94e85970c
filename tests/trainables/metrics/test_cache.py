from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.metrics import cache
from vistudy.trainables.metrics.cache import cached


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISTUDY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_is_made_once_and_then_read(folder: Path) -> None:
    made: list[int] = []

    def make() -> bytes:
        made.append(1)
        return b"first\nsecond"

    assert cached("a/b.npz", make) == cached("a/b.npz", make) == b"first\nsecond"
    assert made == [1]
    assert (folder / "a/b.npz").read_bytes().endswith(b"\nfirst\nsecond")


def test_who_comes_while_it_is_made_waits_for_it(folder: Path) -> None:
    made: list[str] = []
    started, go_on = threading.Event(), threading.Event()

    def make() -> bytes:
        made.append("made")
        started.set()
        assert go_on.wait(10)
        return b"content"

    threads = [threading.Thread(target=cached, args=("x", make)) for _ in range(2)]
    threads[0].start()
    assert started.wait(10)
    threads[1].start()
    threads[1].join(0.2)  # it has not started making its own
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert made == ["made"]


def test_a_damaged_file_is_refused_by_its_path(folder: Path) -> None:
    cached("weights", lambda: b"0123456789")
    path = folder / "weights"
    path.write_bytes(path.read_bytes()[:-1] + b"8")
    with pytest.raises(DataError, match=f"{path}: damaged or foreign: SHA-256 .* delete the file"):
        cached("weights", lambda: b"anew")
    path.write_bytes(b"\xff\xfe no checksum at all")
    with pytest.raises(DataError, match=str(path)):
        cached("weights", lambda: b"anew")


def test_what_fails_while_it_is_made_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("x", broken)
    monkeypatch.setattr(cache.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DataError, match=f"{folder / 'x'}: cannot be kept there .No space left.* VISTUDY_CACHE"):
        cached("x", lambda: b"content")
    assert {path.name for path in folder.iterdir()} <= {"x.lock"}


def test_a_folder_that_cannot_be_is_named(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(DataError, match=f"{folder / 'a/x'}: cannot be kept there"):
        cached("a/x", lambda: b"content")
