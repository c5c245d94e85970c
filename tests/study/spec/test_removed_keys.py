"""Keys of earlier versions are refused with the reason and what to write instead."""

from __future__ import annotations

import pytest

from vistudy.analysis.ledger.errors import StudyError
from vistudy.study.spec.parser import parse_study

STUDY = """study: s
model: gan
seeds: [0]
budget: {d_updates: 4, evaluations: 2}
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: ring8\nexplore: {grace: 2}\n", "study.yaml:6: explore: 'explore' was removed: .*; leave it out"),
        ("first_there: [{data: digits}]\n", "study.yaml:5: first_there: 'first_there' was removed: .*; write 'data'"),
        ("blocks: [{first_there: []}]\n", r"study.yaml:5: block 1: first_there: 'first_there' was removed"),
    ],
)
def test_removed_keys_are_refused_with_a_remedy(text: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        parse_study(STUDY + text)
