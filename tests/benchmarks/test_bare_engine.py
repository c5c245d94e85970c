from __future__ import annotations

import queue

from benchmarks.bare_engine import work
from tests.trainables.configs import gan


def test_a_process_trains_packs_until_the_queue_says_so() -> None:
    packs: queue.Queue[list[dict[str, object]] | None] = queue.Queue()
    results: queue.Queue[dict[str, float]] = queue.Queue()
    for trials in ([gan(seed=0), gan(seed=1)], [gan(seed=2)]):
        packs.put([c.to_dict() for c in trials])
    packs.put(None)
    work(packs, results)
    report = results.get_nowait()
    assert report["trials"] == 3
    assert report["records"] == 3 * 3  # evaluations 0, 1 and 2
    assert report["ready_unix"] < report["end_unix"]
    assert results.empty()
