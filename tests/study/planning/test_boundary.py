"""Points near the boundary: chosen by what was told and nothing else, near the boundary, refused by claims."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import pytest

from vistudy.analysis.ledger.errors import StudyError
from vistudy.study.api.register import register
from vistudy.study.planning.boundary import BoundarySampler, Surrogate
from vistudy.study.planning.rounds import rounds
from vistudy.study.planning.sampling import sample_points
from vistudy.study.planning.trial_configs import block_cells, variants
from vistudy.study.spec.hyperparameters import Cell
from vistudy.study.spec.parser import parse_study

TEXT = """
study: edge
model: gan
data: ring8
seeds: [0, 1]
budget: {d_updates: 100, evaluations: 10}
sampling:
  method: boundary
  n: 40
  start: 12
  batch: 8
  seed: 1
  space: {lr: {low: 1e-4, high: 1e-1, log: true}, reg_weight: {low: 0, high: 10}}
"""
TWO_KINDS = TEXT.replace("reg_weight: {low: 0, high: 10}", "batch_norm: {choices: [true, false]}")


class Outcome(NamedTuple):
    label: str
    q_final: float | None


def design(text: str = TEXT, **options: Any) -> BoundarySampler:
    return BoundarySampler(parse_study(text).blocks[0], **options)


def stable(cell: Cell) -> float:
    """Stable below a slanted line through the box."""
    lr, weight = float(str(cell["lr"])), float(str(cell["reg_weight"]))
    return float(distance(lr, weight) > 0)


def distance(lr: float, weight: float) -> float:
    return 0.3 + 0.4 * weight / 10 - (math.log10(lr) + 4) / 3


def told(rounds: int, text: str = TEXT) -> BoundarySampler:
    made = design(text)
    for _ in range(rounds):
        for cell in made.next_cells(99):
            made.tell(cell, stable(cell))
    return made


def test_the_first_round_are_sobol_points() -> None:
    sobol = TEXT.replace("boundary", "sobol").replace("  start: 12\n  batch: 8\n", "")
    sample = parse_study(sobol).blocks[0].sample
    assert sample is not None
    made, points = design(), sample_points(sample)
    assert [(c["lr"], c["reg_weight"]) for c in made.next_cells(99)] == points[:12]


def test_rounds_have_the_sizes_of_the_sample_and_no_cell_twice() -> None:
    made, sizes = design(), []
    while new := made.next_cells(1):
        sizes.append(len(new))
        for cell in new:
            made.tell(cell, stable(cell))
    assert sizes == [12, 8, 8, 8, 4]
    assert len({str(cell) for cell in made.cells}) == 40


def test_later_points_are_nearer_to_the_boundary() -> None:
    made = told(5)
    far = [abs(distance(float(c["lr"]), float(c["reg_weight"]))) for c in made.cells]  # type: ignore[arg-type]
    assert np.median(far[20:]) < 0.4 * np.median(far[:12])


def test_they_are_spread_along_the_boundary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is chosen one after the other: equal points would teach no more than one."""

    def nearest(made: BoundarySampler) -> float:
        x = made.features(made.next_cells(99))
        apart = np.sqrt(((x[:, None] - x) ** 2).sum(-1))
        return float(np.mean((apart + 9 * np.eye(len(x))).min(0)))

    made, hasty = told(3), told(3)
    assert nearest(made) > 0.05
    monkeypatch.setattr(Surrogate, "conditioned", lambda self, cov, i: cov)
    assert nearest(hasty) < 0.05


def test_the_same_history_gives_the_same_cells() -> None:
    at_once, one_by_one = told(2), told(2)
    resumed = design(history=list(at_once.history))
    expected = at_once.ask(5)
    assert resumed.ask(5) == expected
    assert [one_by_one.ask(1)[0] for _ in range(5)] == expected


def test_other_outcomes_give_other_cells() -> None:
    a, b = told(1), design()
    for cell in b.next_cells(99):
        b.tell(cell, 1 - stable(cell) if float(str(cell["reg_weight"])) > 5 else stable(cell))
    assert a.cells == b.cells
    assert a.ask(8) != b.ask(8)


@pytest.mark.parametrize("value", [0.0, 1.0, math.nan])
def test_without_two_kinds_of_outcome_it_goes_on_with_sobol_points(value: float) -> None:
    made = design()
    for cell in made.next_cells(99):
        made.tell(cell, value)
    more = made.next_cells(99)
    assert made.cells == design().ask(20)
    assert len(more) == 8


def test_a_trial_without_an_outcome_teaches_nothing_and_is_not_asked_again() -> None:
    made, lost = told(2), told(2)
    lost.history[5] = (lost.history[5][0], math.nan)
    history = [pair for i, pair in enumerate(made.history) if i != 5]
    without = design(history=history)
    chosen = lost.ask(3)
    assert lost.history[5][0] not in chosen
    assert [c for c in without.ask(4) if c != lost.history[5][0]][:3] == chosen


def test_choices_and_conditions() -> None:
    made = design(TWO_KINDS)
    for _ in range(3):
        for cell in made.next_cells(99):
            limit = 1e-2 if cell["batch_norm"] else 1e-3
            made.tell(cell, float(float(str(cell["lr"])) < limit))
    late = made.cells[20:]
    off = [abs(math.log10(float(str(c["lr"])) / (1e-2 if c["batch_norm"] else 1e-3))) for c in late]
    assert {c["batch_norm"] for c in late} == {True, False}
    assert np.median(off) < 0.5
    some = TEXT.replace("reg_weight: {low: 0, high: 10}", "anchor: {choices: [lag, ema]}, "
                        "anchor_lag: {low: 1, high: 9, when: {anchor: lag}}")  # fmt: skip
    x = design(some).features([{"lr": 1e-4, "anchor": "lag", "anchor_lag": 9}, {"lr": 1e-1, "anchor": "ema"}])
    assert x.tolist() == [[0, 1, 0, 1], [1, 0, 1, 0.5]]


def test_what_a_cell_is_told() -> None:
    value = BoundarySampler.value
    converged, slow, undetermined = (Outcome(label, 0.5) for label in ("converged", "slow", "undetermined"))
    assert value([converged, slow]) == 0.5
    assert value([converged, None, undetermined]) == 1.0
    assert math.isnan(value([None, undetermined]))


def test_rounds_of_a_study() -> None:
    known: dict[str, Any] = {}

    def judge(ids: Collection[str]) -> dict[str, Outcome]:
        return {i: Outcome("converged" if stable(known[i].cell) else "slow", 0.5) for i in ids}

    seen: list[list[str]] = []
    for planned in rounds(parse_study(TEXT), judge):
        known |= {trial.trial_id: trial for trial in planned.trials}
        seen.append([trial.trial_id for trial in planned.trials])
    assert [len(ids) for ids in seen] == [24, 40, 56, 72, 80]
    assert all(set(a) < set(b) for a, b in itertools.pairwise(seen))
    assert [t.cell for t in planned.trials if t.seed == 0] == told(5).cells


def test_the_plan_before_any_outcome() -> None:
    block = parse_study(TEXT).blocks[0]
    assert list(block_cells(block, variants(block, {}))) == design().ask(40)


def test_posterior_by_hand() -> None:
    """One point seen: mean k (k + s)^-1 y, variance k - k (k + s)^-1 k."""
    from sklearn.gaussian_process.kernels import RBF

    model = Surrogate(kernel=RBF(1.0), noise=0.25, x=np.zeros((1, 1)), y=np.array([1.0]))
    mean, cov = model.predict(np.array([[0.0], [1.0]]))
    k = math.exp(-0.5)
    assert mean == pytest.approx([1 / 1.25, k / 1.25])
    assert cov == pytest.approx(np.array([[1 - 1 / 1.25, k - k / 1.25], [k - k / 1.25, 1 - k * k / 1.25]]))
    assert model.mean(np.array([[1.0]])) == pytest.approx([k / 1.25])
    both = Surrogate(kernel=RBF(1.0), noise=0.25, x=np.array([[0.0], [1.0]]), y=np.array([1.0, 0.0]))
    assert model.conditioned(cov, 1)[0, 0] == pytest.approx(both.predict(np.zeros((1, 1)))[1][0, 0])


CLAIMED = TEXT.replace("seeds: [0, 1]", "seeds: [0, 1]\nfixed: {ratio: '1:2'}").replace(
    ", reg_weight: {low: 0, high: 10}", "") + "arms: {A0: {reg_weight: 0}, A1: {reg_weight: 5}}\n"  # fmt: skip
CLAIM = "claim: {id: c, baseline: A0, treatment: A1}\n"


def test_a_claim_on_it_is_not_registered(tmp_path: Any) -> None:
    with pytest.raises(StudyError, match=r'method: a claim cannot be registered .* got "boundary"; allowed: sobol'):
        register(parse_study(CLAIMED + CLAIM), str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()
    (first, *_) = rounds(parse_study(CLAIMED + CLAIM), lambda ids: {})
    assert "gan-ring8: boundary places its trials by results, so this claim cannot be registered" in first.notes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("start: 12", "start: 41", r"sampling.start: more than n; got 41; allowed: 1 to 40"),
        ("n: 40", "n: 501", r"sampling.n: its model is refitted .* got 501; allowed: up to 500"),
        ("boundary", "sobol", r"sampling.start: 'start' is for method boundary; got 12; take it out"),
        ("batch: 8", "batch: 0", r"sampling.batch"),
    ],
)
def test_refusals(old: str, new: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        parse_study(TEXT.replace(old, new))


def test_a_matched_arm_has_no_configurations_of_its_own() -> None:
    with pytest.raises(StudyError, match="boundary gives each arm its own"):
        parse_study(CLAIMED.replace("A1: {reg", "A3: {reg_weight: 0, g_lr: {match_drift: A1}}, A1: {reg"))
