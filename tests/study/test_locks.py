"""Two processes at one study, or at trials that two studies share: refused, or at least never wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from study.doctor import doctor
from study.errors import StudyBusyError
from study.ledger import Ledger
from tests.study.test_doctor import bits, trained

HOLD = (
    "import sys, time\n"
    "from study.ledger import Ledger\n"
    "with Ledger(sys.argv[1]).lock('small', 'run'):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)
TRAIN = (
    "import sys\n"
    "from study.ledger import Ledger\n"
    "from trainables.tune import train_pack\n"
    "print('ready', flush=True)\n"
    "sys.stdin.readline()\n"
    "print(train_pack({'pack_id': 'p-1'}, journal=lambda: Ledger(sys.argv[1]), checkpoint_every_s=0)['end'])\n"
)


def python(code: str, store: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_lock_ends_with_its_holder_even_by_sigkill(disk: Ledger) -> None:
    holder = python(HOLD, Path(disk.uri))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(StudyBusyError, match=rf"run is being done by process {holder.pid} on .*Wait for it, or stop it"),
        disk.lock("small", "run"),
    ):
        pass
    holder.kill()
    holder.communicate()
    with disk.lock("small", "run"):  # the file with the holder's name is still there, and means nothing
        pass


def test_a_pack_that_two_runs_train_at_once_is_never_wrong(tmp_path: Path) -> None:
    """Two studies share its trials: each run opens an attempt of its own, and the higher one counts."""
    whole = bits(trained(tmp_path / "whole"))
    both = trained(tmp_path / "both")
    for path in (*(tmp_path / "both/trials").iterdir(), *(tmp_path / "both/packs/p-1/attempt-001").iterdir()):
        path.unlink()
    runs = [python(TRAIN, tmp_path / "both") for _ in range(2)]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    ends = []
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    for run in runs:
        ends.append(run.communicate(timeout=120)[0])
    assert ends == ["complete\n", "complete\n"]
    assert Ledger(both.uri).attempts("p-1") == [1, 2, 3]
    assert bits(both) == whole
    assert doctor("small", Ledger(both.uri), None, repair=False, stamp="t") == ([], None)
