from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainables.data.files import leftovers
from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.data.images import prepared_images as prepared
from vistudy.trainables.data.images.prepared_images import Content, Prepared, Source, cache_root, prepare
from vistudy.trainables.random_streams import generator

IMAGES = generator(7, "test").integers(256, size=(20, 3, 4, 5)).astype(np.uint8)
LABELS = np.arange(20) % 4


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(f"content of {name}")
    return [folder / "a", folder / "b"]


def content(chunks: Callable[[], Iterator[np.ndarray]] | None = None, **changes: Any) -> Content:
    pieces = chunks() if chunks else iter(np.split(IMAGES, [7, 15]))
    facts: dict[str, Any] = {
        "shape": IMAGES.shape,
        "train": 16,
        "split": "16 of 20",
        "labels": LABELS,
        "chunks": pieces,
    }
    return Content(**(facts | changes))


def source(files: list[Path], read: Callable[[], Content] = content, **changes: Any) -> Source:
    facts: dict[str, Any] = {
        "name": "test",
        "base": files[0].parent,
        "files": files,
        "recipe": {"size": 4},
        "read": read,
    }
    return Source(**(facts | changes))


def never() -> Content:
    raise AssertionError("was read again")


def test_images_and_labels_come_back(files: list[Path]) -> None:
    got = prepare(source(files))
    assert np.array_equal(got.images, IMAGES)
    assert got.labels is not None
    assert np.array_equal(got.labels, LABELS)
    assert (got.train, got.split) == (16, "16 of 20")
    assert isinstance(got.images, np.memmap)


def test_the_second_time_nothing_is_read(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "SETTLED_S", 0.0)
    first = prepare(source(files))
    monkeypatch.setattr(prepared, "_file_sha256", lambda path: pytest.fail("hashed again"))
    again = prepare(source(files, never))
    assert again.fingerprint == first.fingerprint


def test_writing_to_the_images_changes_neither_the_file_nor_other_readers(files: list[Path]) -> None:
    got = prepare(source(files))
    got.images[:] = 0
    assert np.array_equal(prepare(source(files, never)).images, IMAGES)


def test_data_without_labels_have_none(files: list[Path]) -> None:
    got = prepare(source(files, lambda: content(labels=None)))
    assert got.labels is None
    assert got.fingerprint != prepare(source(files, recipe={"size": 5})).fingerprint


@pytest.mark.parametrize("where", ["content", "name", "recipe"])
def test_another_source_is_another_folder(files: list[Path], cache: Path, where: str) -> None:
    prepare(source(files))
    if where == "content":
        files[0].write_text("something else")
        prepare(source(files))
    elif where == "name":
        prepare(source([files[0].rename(files[0].with_name("c")), files[1]]))
    else:
        prepare(source(files, recipe={"size": 5}))
    assert len(leftovers(cache)) == 2


def test_files_that_only_moved_or_were_touched_are_the_same_content(files: list[Path], cache: Path) -> None:
    prepare(source(files))
    os.utime(files[0], ns=(1, 1))
    prepare(source(files, never))
    moved = files[0].parent.rename(files[0].parent.with_name("moved"))
    prepare(source([moved / "a", moved / "b"], never))
    assert len(leftovers(cache)) == 1


def test_a_content_changed_under_an_old_key_is_seen(files: list[Path]) -> None:
    first = prepare(source(files))
    files[0].write_text("CONTENT OF a")  # as long as before
    os.utime(files[0], ns=(5, 5))
    other = IMAGES[::-1].copy()
    got = prepare(source(files, lambda: content(lambda: iter([other]))))
    assert np.array_equal(got.images, other)
    assert got.fingerprint != first.fingerprint


def test_fingerprint_is_of_the_result(files: list[Path]) -> None:
    def of(read: Callable[[], Content], size: int) -> str:
        return prepare(source(files, read, recipe={"size": size})).fingerprint

    base = of(content, 1)
    assert of(lambda: content(lambda: iter(np.split(IMAGES, 4))), 2) == base  # other pieces, the same images
    relabelled, more = LABELS.copy(), IMAGES.copy()
    relabelled[3], more[3, 0, 0, 0] = 0, more[3, 0, 0, 0] ^ 1
    others = [
        of(lambda: content(labels=relabelled), 3),
        of(lambda: content(lambda: iter([more])), 4),
        of(lambda: content(train=15), 5),
        of(lambda: content(split="another 16 of 20"), 6),
        of(lambda: content(lambda: iter([IMAGES.reshape(20, 3, 5, 4)]), shape=(20, 3, 5, 4)), 7),
    ]
    assert len({base, *others}) == 6


def test_sidecar_says_what_it_was_made_of(files: list[Path], cache: Path) -> None:
    prepare(source(files))
    [folder] = leftovers(cache)
    facts = json.loads((cache / folder / "prepared.json").read_text())
    assert facts["recipe"] == {"size": 4}
    assert (facts["train"], facts["split"], facts["shape"]) == (16, "16 of 20", [20, 3, 4, 5])


def fail_in_the_middle() -> Iterator[np.ndarray]:
    yield IMAGES[:7]
    raise DataError("bad.jpg: cannot be decoded")


def test_an_error_in_the_middle_leaves_nothing_and_the_next_attempt_works(files: list[Path], cache: Path) -> None:
    with pytest.raises(DataError, match=r"bad\.jpg"):
        prepare(source(files, lambda: content(fail_in_the_middle)))
    assert leftovers(cache) == []
    assert np.array_equal(prepare(source(files)).images, IMAGES)


def test_an_interrupt_leaves_nothing(files: list[Path], cache: Path) -> None:
    def interrupted() -> Iterator[np.ndarray]:
        yield IMAGES[:7]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source(files, lambda: content(interrupted)))
    assert leftovers(cache) == []


def test_a_full_disk_leaves_nothing_and_is_named(
    files: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        DataError, match=rf"{cache}: prepared images cannot be written there \(No space left.*make room"
    ):
        prepare(source(files))
    assert leftovers(cache) == []


def test_a_killed_writer_is_no_obstacle(files: list[Path], cache: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tests.trainables.data.images import test_prepared_images as t\n"
        "def die():\n"
        "    yield t.IMAGES[:7]\n"
        "    os._exit(9)\n"
        "files = [Path(p) for p in sys.argv[1:]]\n"
        "t.prepare(t.source(files, lambda: t.content(die)))\n"
    )
    here = Path(__file__).resolve().parents[4]
    ran = subprocess.run([sys.executable, "-c", code, *map(str, files)], cwd=here, capture_output=True, text=True)
    assert ran.returncode == 9, ran.stderr
    assert [name.startswith(".test-") for name in leftovers(cache)] == [True]  # what it had begun is no prepared data
    assert np.array_equal(prepare(source(files)).images, IMAGES)
    assert len(leftovers(cache)) == 1


def test_of_many_writers_one_writes(files: list[Path]) -> None:
    reads, together = [], threading.Barrier(8)

    def read() -> Content:
        reads.append(threading.get_ident())
        return content()

    def work(_: int) -> Prepared:
        together.wait()
        return prepare(source(files, read))

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert len(reads) == 1
    assert len({result.fingerprint for result in results}) == 1
    assert all(np.array_equal(result.images, IMAGES) for result in results)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "prepared.json"])
@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_damage_in_the_cache_is_seen(files: list[Path], cache: Path, name: str, damage: str) -> None:
    prepare(source(files))
    [folder] = leftovers(cache)
    path = cache / folder / name
    raw = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        raw[-8] ^= 1
        path.write_bytes(raw if damage == "bit" else raw[:-8])
    with pytest.raises(DataError, match=rf"{cache / folder}: the prepared images were changed .*delete this folder"):
        prepare(source(files))
    shutil.rmtree(cache / folder)
    assert np.array_equal(prepare(source(files)).images, IMAGES)


def test_a_cache_that_cannot_be_written_is_named(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VISTUDY_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"cannot be written there .*set VISTUDY_CACHE to a folder that can be written"):
        prepare(source(files))


def test_a_missing_file_is_named(files: list[Path], cache: Path) -> None:
    files[1].unlink()
    with pytest.raises(DataError, match=rf"{files[1]}: cannot be read \(No such file"):
        prepare(source(files))
    assert leftovers(cache) == []


def test_files_that_change_while_they_are_read_are_refused(
    files: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hash_and_change(path: Path) -> str:
        path.write_text(path.read_text() + "!")
        return "0" * 64

    monkeypatch.setattr(prepared, "_file_sha256", hash_and_change)
    with pytest.raises(DataError, match="changed while they were read"):
        prepare(source(files))
    assert leftovers(cache) == []


@pytest.mark.parametrize("train", [0, 20])
def test_nothing_to_learn_or_to_compare_with_is_refused(files: list[Path], cache: Path, train: int) -> None:
    with pytest.raises(DataError, match=f"20 images of data 'test', {train} of them to learn"):
        prepare(source(files, lambda: content(train=train)))
    assert leftovers(cache) == []


def test_the_cache_is_the_environments_or_the_homes(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_root() == cache
    monkeypatch.delenv("VISTUDY_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "vistudy"
