"""One trial takes its process, its pack or its memory down, on real Ray: it alone fails, and no other loses a bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.study.faulty import environment
from tests.study.runs import mlflow_runs, records, vistudy, write
from vistudy.analysis.ledger.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

STUDY: dict[str, Any] = {
    "study": "faulty",
    "model": "gan",
    "seeds": [0, 1, 2, 3, 4, 5, 6, 7],
    "blocks": [
        {
            "data": "ring8",
            "budget": {"d_updates": 200, "evaluations": 5},
            "factors": {"lr": [4e-4]},
            "fixed": {"batch_size": 16},
        }
    ],
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Any, Any]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    file = write(folder / "faulty.yaml", STUDY)
    vistudy("run", file, "--store", folder / "store")
    return file, records(folder / "store")


def guilty_of(store: Path) -> dict[str, str]:
    """Failed trial -> error; there may be that of seed 5 only."""
    failed = {i: o["error"] for i, o in Ledger(store).read_outcomes().items() if o["state"] == "failed"}
    seeds = {t["trial_id"]: t["config"]["seed"] for t in Ledger(store).read_plan("faulty")["trials"]}
    assert [seeds[trial_id] for trial_id in failed] == [5]
    return failed


@pytest.mark.parametrize(
    ("do", "options", "known"),
    [
        ("exit", [], "died 3 times without progress"),
        ("segfault", [], "Segmentation fault"),
        ("raise", [], "ZeroDivisionError: seed 5 divides by zero"),
        ("hang", ["--heartbeat-timeout", "3"], "it sent no heartbeat for"),
    ],
)
def test_the_guilty_trial_fails_and_the_others_keep_their_bits(undisturbed, tmp_path, do, options, known):
    file, whole = undisturbed
    store = tmp_path / "store"
    env = environment(tmp_path / "site", do=do, seed=5, at=90)
    vistudy("run", file, "--store", store, *options, code=1, env=env)
    failed = guilty_of(store)
    assert known in failed.popitem()[1]
    guilty = {i for i, o in Ledger(store).read_outcomes().items() if o["state"] == "failed"}
    others = {key: bits for key, bits in records(store).items() if key[0] not in guilty}
    expected = {key: bits for key, bits in whole.items() if key[0] not in guilty}
    if do == "exit":  # perhaps killed for its memory: smaller packs, which may differ in the last bits (decision 002)
        assert {key: step for key, (step, _) in others.items()} == {key: step for key, (step, _) in expected.items()}
    else:
        assert others == expected
    assert sorted(run.info.status for run in mlflow_runs(store, "faulty")) == ["FAILED"] + 7 * ["FINISHED"]


def test_a_pack_that_does_not_fit_the_memory_is_halved_until_it_does(undisturbed, tmp_path):
    file, whole = undisturbed
    store = tmp_path / "store"
    vistudy("run", file, "--store", store, env=environment(tmp_path / "site", do="memory", seed=5, at=0, fits=2))
    assert records(store).keys() == whole.keys()
    assert {outcome["state"] for outcome in Ledger(store).read_outcomes().values()} == {"complete"}
    sizes = [len(pack["trials"]) for pack in Ledger(store).packs().values()]
    assert sorted(sizes) == [2, 2, 4, 4]
