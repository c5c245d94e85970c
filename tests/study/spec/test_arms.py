"""Arms and claims: every mistake is refused where it stands; every configuration is trained in every arm, in pairs."""

from __future__ import annotations

import itertools
from importlib import resources
from typing import Any

import numpy as np
import pytest

from vistudy.analysis.ledger.errors import StudyError
from vistudy.study.planning.plan import Plan, count_trials, plan
from vistudy.study.planning.sampling import sample_arm_points, sample_points
from vistudy.study.planning.trial_configs import pilot_configurations
from vistudy.study.spec.limits import PILOT_CONFIGS, PILOT_SCALES
from vistudy.study.spec.parser import load_study, parse_study

HEAD = "study: s\nmodel: gan\ndata: ring8\nseeds: [0, 1]\nbudget: {d_updates: 100, evaluations: 10}\n"
SAMPLE = "sampling: {method: sobol, n: 4, seed: 1, space: {lr: {low: 1e-4, high: 1e-1, log: true}}}\n"
RATIO = 'fixed: {ratio: "1:10"}\n'
TWO = "arms: {A0: {reg_weight: 0}, A1: {reg_weight: 5}}\n"
BASE = HEAD + SAMPLE + RATIO
CLAIM = "claim: {id: c, baseline: A0, treatment: A1}\n"


def plan_of(rest: str, head: str = BASE) -> Plan:
    return plan(parse_study(head + rest, "my.yaml"))


def refused(rest: str, head: str = BASE) -> str:
    with pytest.raises(StudyError) as caught:
        plan_of(rest, head)
    message = str(caught.value)
    assert "\n" not in message
    return message


def arm(settings: str) -> str:
    return f"arms:\n  A0: {{reg_weight: 0}}\n  B: {{{settings}}}\n"


ARMS = {
    "unknown hyperparameter": (arm("reg_wieght: 5"), 10, "arms.B.reg_wieght", ["did you mean 'reg_weight'?"]),
    "seed in an arm": (arm("seed: 3"), 10, "arms.B.seed", ["under 'seeds'"]),
    "value out of bounds": (arm("reg_weight: -1"), 10, "arms.B.reg_weight", ["got -1", "allowed: number >= 0"]),
    "list": (arm("reg_weight: [1, 2]"), 10, "arms.B.reg_weight", ["got [1, 2]", "number >= 0"]),
    "name with a tilde": ("arms: {A~1: {reg_weight: 5}}\n", 8, "arms.A~1", ["wrong name of an arm", "letters"]),
    "settings that are none": ("arms: {A0: 5}\n", 8, "arms.A0", ["got 5", "keys with values"]),
    "unknown way": (arm("g_lr: {match_drif: A0}"), 10, "arms.B.g_lr.match_drif", ["did you mean 'match_drift'?"]),
    "two ways": (arm("g_lr: {times: 2, low: 1}"), 10, "arms.B.g_lr", ["more than one way", "match_drift"]),
    "no way": (arm("g_lr: {}"), 10, "arms.B.g_lr", ["nothing is set", "{times: X}"]),
    "times of a word": (arm("anchor: {times: 2}"), 10, "arms.B.anchor.times", ["no number", "period_start"]),
    "times of nothing": (arm("g_lr: {times: 0}"), 10, "arms.B.g_lr.times", ["got 0", "number > 0"]),
    "times nan": (arm("g_lr: {times: .nan}"), 10, "arms.B.g_lr.times", ["got .nan"]),
    "times out of bounds": (arm("beta1: {times: 3}"), 10, "arms.B.beta1", ["0.5 times 3", "out of bounds", "< 1"]),
    "drift of no arm": (arm("g_lr: {match_drift: A}"), 10, "arms.B.g_lr.match_drift", ["no such arm", "'A0'?"]),
    "drift of itself": (arm("g_lr: {match_drift: B}"), 10, "arms.B.g_lr.match_drift", ["to itself", "allowed: A0"]),
    "drift of a matched arm": (
        arm("g_lr: {match_drift: A0}") + "  C: {g_lr: {match_drift: B}}\n",
        11,
        "arms.C.g_lr.match_drift",
        ["arm B is itself matched", "allowed: A0"],
    ),
    "drift by steps": (arm("g_steps: {match_drift: A0}"), 10, "arms.B.g_steps.match_drift", ["{times: 0.2}"]),
    "two matched": (
        arm("g_lr: {match_drift: A0}, d_lr: {match_drift: A0}"),
        10,
        "arms.B.d_lr",
        ["'g_lr' and 'd_lr' are both matched"],
    ),
    "two names of one": (arm("lr: 1e-3, g_lr: 1e-2"), 10, "arms.B.g_lr", ["'lr' and 'g_lr' both set g_lr"]),
    "range and choices": (
        arm("reg_weight: {low: 1, high: 2, choices: [3]}"),
        10,
        "arms.B.reg_weight",
        ["a range and choices at once"],
    ),
    "log range from 0": (
        arm("reg_weight: {low: 0, high: 2, log: true}"),
        10,
        "arms.B.reg_weight",
        ["log range", "low > 0"],
    ),
    "drawn twice": (arm("g_lr: {low: 1, high: 2}"), 10, "arms.B.g_lr", ["drawn by arm B", "'lr' under sampling.space"]),
    "read in no cell": (arm("anchor_lag: 3"), 10, "arms.B.anchor_lag", ["in no cell of arm B", "anchor: lag"]),
    "refused by the data": (arm("net: dcgan"), 10, "arms.B.net", ["'arm': 'B'", "dcgan"]),
}


@pytest.mark.parametrize(("content", "line", "key", "parts"), ARMS.values(), ids=ARMS.keys())
def test_mistakes_in_arms_are_refused(content: str, line: int, key: str, parts: list[str]) -> None:
    message = refused(content)
    assert message.startswith(f"my.yaml:{line}: {key}: "), message
    assert [part for part in parts if part not in message] == [], message


def test_a_factor_that_an_arm_sets_aside_is_refused_unless_it_scales_it() -> None:
    head = HEAD + 'fixed: {ratio: "1:10"}\nfactors: {reg_weight: [1, 5]}\n'
    message = refused(TWO, head)
    assert message.startswith("my.yaml:8: arms.A0.reg_weight: 'reg_weight' is a factor, and arm A0 would train all")
    assert "reg_weight: {times: 0.5}" in message
    trials = plan_of("arms: {A: {}, B: {reg_weight: {times: 10}}}\n", head).trials
    assert [(t.cell["arm"], t.cell["reg_weight"], t.config.to_dict()["reg_weight"]) for t in trials if not t.seed] == [
        ("A", 1, 1), ("B", 1, 10), ("A", 5, 5), ("B", 5, 50),
    ]  # fmt: skip


def test_an_arm_that_draws_needs_a_sample() -> None:
    message = refused("arms: {A: {reg_weight: {low: 0, high: 1}}}\n", HEAD + RATIO)
    assert message.startswith("my.yaml:7: arms.A.reg_weight: an arm draws with the block's sample; add 'sampling'")


CLAIMS = {
    "no arms": ("", CLAIM, "claim", ["compares arms, and no block has any", "add 'arms:"]),
    "baseline that is no arm": (
        TWO,
        "claim: {id: c, baseline: B0, treatment: A1}\n",
        "claim.baseline",
        ["'A0'?", "A1"],
    ),
    "compared with itself": (TWO, "claim: {id: c, baseline: A0, treatment: A0}\n", "claim.treatment", ["with itself"]),
    "a control that is the baseline": (
        TWO,
        CLAIM[:-2] + ", positive_control: A0}\n",
        "claim.positive_control",
        ["with itself"],
    ),
    "slower that is no arm": (TWO, CLAIM[:-2] + ", slower: [A3]}\n", "claim.slower", ["no such arm", 'got "A3"']),
    "slower that is the treatment": (TWO, CLAIM[:-2] + ", slower: [A1]}\n", "claim.slower", ["no control of itself"]),
    "misspelt key": (TWO, CLAIM[:-2] + ", sesio: 0.1}\n", "claim.sesio", ["did you mean 'sesoi'?", "margin"]),
    "missing key": (TWO, "claim: {id: c, baseline: A0}\n", "claim", ["'treatment' is missing"]),
    "a share of 8": (TWO, CLAIM[:-2] + ", sesoi: 8}\n", "claim.sesoi", ["got 8", "less than 1"]),
    "alpha nan": (TWO, CLAIM[:-2] + ", alpha: .nan}\n", "claim.alpha", ["got .nan"]),
    "control that is no block": (
        TWO,
        CLAIM[:-2] + ", negative_controls: [gan-ring]}\n",
        "claim.negative_controls",
        ["no such block", "did you mean 'gan-ring8'?"],
    ),
    "default of what does not vary": (
        TWO,
        CLAIM[:-2] + ", default: {width: 3}}\n",
        "claim.default.width",
        ["do not vary 'width'", "allowed: lr"],
    ),
    "default out of bounds": (TWO, CLAIM[:-2] + ", default: {lr: -1}}\n", "claim.default.lr", ["number > 0"]),
    "threshold that there is not": (
        TWO,
        CLAIM[:-2] + ", thresholds: {tau_k: 0.2}}\n",
        "claim.thresholds.tau_k",
        ["did you mean 'tau_ok'?", "tau_bad"],
    ),
    "threshold that is a fraction": (
        TWO,
        CLAIM[:-2] + ", thresholds: {window_min: 2.5}}\n",
        "claim.thresholds.window_min",
        ["got 2.5", "whole number"],
    ),
    "class that no block has": (
        TWO + "class: P\n",
        CLAIM[:-2] + ", predictions: [{id: H1, class: Q, expect: harms}]}\n",
        "claim.predictions.class",
        ["no such class", 'got "Q"', "allowed: P"],
    ),
    "class without classes": (
        TWO,
        CLAIM[:-2] + ", predictions: [{id: H1, class: Q, expect: harms}]}\n",
        "claim.predictions.class",
        ["none: no block has one"],
    ),
    "block that there is not": (
        TWO,
        CLAIM[:-2] + ", predictions: [{id: H1, blocks: [ring], expect: harms}]}\n",
        "claim.predictions.blocks",
        ["no such block", "gan-ring8"],
    ),
    "class and blocks": (
        TWO + "class: P\n",
        CLAIM[:-2] + ", predictions: [{id: H1, class: P, blocks: [gan-ring8], expect: harms}]}\n",
        "claim.predictions.blocks",
        ["at once"],
    ),
    "unknown expectation": (
        TWO,
        CLAIM[:-2] + ", predictions: [{id: H1, expect: suported}]}\n",
        "claim.predictions.expect",
        ["did you mean 'supported'?", "'no effect'"],
    ),
    "unknown key of a prediction": (
        TWO,
        CLAIM[:-2] + ", predictions: [{id: H1, expct: harms}]}\n",
        "claim.predictions.expct",
        ["did you mean 'expect'?", "class, blocks"],
    ),
    "two predictions of one name": (
        TWO,
        CLAIM[:-2] + ", predictions: [{id: H1, expect: harms}, {id: H1, expect: harms}]}\n",
        "claim.predictions.id",
        ["two predictions", "rename"],
    ),
    "arm of a prediction": (
        TWO,
        CLAIM[:-2] + ", predictions: [{id: H1, treatment: A9, expect: harms}]}\n",
        "claim.predictions.treatment",
        ["no such arm", "allowed: A1"],
    ),
}


@pytest.mark.parametrize(("arms", "claim", "key", "parts"), CLAIMS.values(), ids=CLAIMS.keys())
def test_mistakes_in_claims_are_refused(arms: str, claim: str, key: str, parts: list[str]) -> None:
    message = refused(claim + arms)
    assert message.startswith(f"my.yaml:8: {key}: "), message
    assert [part for part in parts if part not in message] == [], message


def test_a_claim_in_a_block_is_refused() -> None:
    message = refused(TWO + "blocks:\n  - {data: ring8, claim: {id: c}}\n")
    assert message.startswith("my.yaml:10: block 1: claim: unknown key 'claim'")
    assert "class" in message  # as it is written, not as the code calls it


def test_a_claim_is_stored_with_its_defaults() -> None:
    rest = (
        CLAIM[:-2]
        + ", thresholds: {tau_ok: 0.2}, default: {lr: 2e-4}, predictions: [{id: H, class: P, expect: harms}]}"
    )
    stored = plan_of(rest + "\nclass: P\n" + TWO).to_json()
    claim = stored["claim"]
    assert (claim["sesoi"], claim["margin"], claim["alpha"], claim["best_of"]) == (0.08, 0.08, 0.05, 20)
    assert (claim["slower"], claim["tuned"], claim["default"]) == ([], None, {"lr": 2e-4})
    assert (claim["thresholds"]["tau_ok"], claim["thresholds"]["tau_bad"]) == (0.2, 0.75)
    assert claim["predictions"] == [{"id": "H", "class": "P", "expect": "harms"}]
    block = stored["blocks"]["gan-ring8"]
    assert (block["family"], block["class"]) == ("gan_ring8", "P")
    assert block["arms"] == {"A0": {"reg_weight": 0}, "A1": {"reg_weight": 5}}
    assert block["budget"] == {"d_updates": 100, "evaluations": 10}
    assert block["sample"] == {
        "method": "sobol", "n": 4, "seed": 1, "space": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}},
    }  # fmt: skip


def test_every_configuration_is_trained_in_every_arm_with_the_same_seeds() -> None:
    planned = plan_of(TWO)
    found = [(t.cell["arm"], t.cell["lr"], t.seed) for t in planned.trials]
    rates = list(dict.fromkeys(rate for _, rate, _ in found))
    assert found == [(a, r, s) for r, a, s in itertools.product(rates, ["A0", "A1"], [0, 1])]
    assert len(rates) == 4
    assert count_trials(planned.study) == len(planned.trials) == 16
    for t in planned.trials:
        config = t.config.to_dict()
        assert (config["reg_weight"], config["g_lr"]) == ({"A0": 0, "A1": 5}[str(t.cell["arm"])], t.cell["lr"])


def test_without_arms_plans_are_as_they_were() -> None:
    """Cells of a plan of the version before arms; ids have changed since (default precision, data)."""
    planned = plan_of("")
    assert planned.study.hash == "4c9620bba9b8"
    assert {t.trial_id: t.cell["lr"] for t in planned.trials if t.seed == 0} == {
        "t2-009cefb3765b": 0.000721951,
        "t2-1ceca507221f": 0.0517414,
        "t2-bd1ab4f95900": 0.00378267,
        "t2-423a34aadeb7": 0.000297935,
    }
    entry = planned.to_json()
    assert "claim" not in entry
    assert "notes" not in entry
    assert entry["blocks"]["gan-ring8"]["arms"] == {}


class TestSettings:
    def config(self, settings: str, head: str = BASE) -> dict[str, Any]:
        return plan_of(f"arms: {{A: {{{settings}}}}}\n", head).trials[0].config.to_dict()

    def test_an_arm_overrides_fixed_and_sampled_values(self) -> None:
        planned = plan_of("arms: {A: {lr: 1e-3, ratio: '1:5'}}\n")
        assert [(t.config.to_dict()["g_lr"], t.config.to_dict()["g_steps"]) for t in planned.trials] == [(1e-3, 5)] * 2
        assert len(planned.trials[0].duplicates) == 3  # the four configurations are one trial, and stay four
        assert len({planned.trials[0].cell["lr"], *(cell["lr"] for _, cell in planned.trials[0].duplicates)}) == 4

    @pytest.mark.parametrize(("ratio", "steps"), [("1:10", 2), ("1:2", 1), ("1:1", 1), ("1:13", 3), ("1:12", 2)])
    def test_times_of_whole_numbers(self, ratio: str, steps: int) -> None:
        assert self.config("g_steps: {times: 0.2}", HEAD + f'fixed: {{ratio: "{ratio}"}}\n')["g_steps"] == steps

    def test_times_of_an_alias_of_several(self) -> None:
        config = self.config("lr: {times: 3}", HEAD + "fixed: {lr: 0.1}\n")
        assert (config["g_lr"], config["d_lr"]) == (0.3, 0.3)

    def test_times_of_what_the_data_decides(self) -> None:
        assert self.config("width: {times: 0.5}")["width"] == 32

    def test_only_the_generator(self) -> None:
        config = self.config("g_lr: {times: 0.1}", HEAD + "fixed: {lr: 0.1}\n")
        assert (config["g_lr"], config["d_lr"]) == (0.01, 0.1)


class TestDrawing:
    ARM = "arms: {A0: {reg_weight: 0}, A2: {reg_weight: {low: 0.05, high: 500, log: true}}}\n"

    def cells(self, n: int, method: str = "sobol", arms: str = ARM) -> list[dict[str, Any]]:
        planned = plan_of(arms, HEAD + SAMPLE.replace("n: 4", f"n: {n}").replace("sobol", method) + RATIO)
        return [dict(t.cell) for t in planned.trials if t.seed == 0]

    @pytest.mark.parametrize("method", ["sobol", "random"])
    def test_the_draw_is_in_this_arm_only_and_the_configurations_are_those_of_all(self, method: str) -> None:
        cells = self.cells(8, method)
        assert all(("reg_weight" in cell) == (cell["arm"] == "A2") for cell in cells)
        rates = {name: [c["lr"] for c in cells if c["arm"] == name] for name in ("A0", "A2")}
        assert rates["A0"] == rates["A2"]
        assert all(0.05 <= c["reg_weight"] <= 500 for c in cells if c["arm"] == "A2")

    @pytest.mark.parametrize("method", ["sobol", "random"])
    def test_raising_n_keeps_the_first_ones(self, method: str) -> None:
        assert self.cells(33, method)[:10] == self.cells(5, method)

    def test_two_arms_that_draw_the_same_get_the_same(self) -> None:
        both = self.ARM[:-2] + ", A2b: {reg_weight: {low: 0.05, high: 500, log: true}, anchor: ema}}\n"
        cells = self.cells(8, arms=both)
        assert [c["reg_weight"] for c in cells if c["arm"] == "A2"] == [
            c["reg_weight"] for c in cells if c["arm"] == "A2b"
        ]

    def test_sample_and_arm_are_one_sobol_net(self) -> None:
        study = parse_study(HEAD + SAMPLE.replace("n: 4", "n: 64") + RATIO + self.ARM)
        (block,) = study.blocks
        assert block.sample is not None
        rates = np.log10([float(point[0]) for point in sample_points(block.sample)])
        weights = np.log10([float(point[0]) for point in sample_arm_points(block.sample, block.arms["A2"].space)])
        i, j = ((rates + 4) / 3 * 8).astype(int), ((weights - np.log10(0.05)) / 4 * 8).astype(int)
        assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == list(itertools.product(range(8), range(8)))


class TestPilots:
    ARMS = "arms: {A0: {reg_weight: 0}, A1: {reg_weight: 5}, A3a: {reg_weight: 0, g_lr: {match_drift: A1}}}\n"

    def test_before_the_scale_is_known_the_pilots_are_planned(self) -> None:
        planned = plan_of(self.ARMS, BASE.replace("n: 4", "n: 20"))
        entry = planned.to_json()["blocks"]["gan-ring8"]
        assert entry["arms"]["A3a"] == {"reg_weight": 0, "g_lr": {"match_drift": "A1"}}
        assert list(entry["pilots"]) == ["A3a~1", "A3a~0.316", "A3a~0.1", "A3a~0.0316"]
        cells = [(t.cell["arm"], t.cell["lr"], t.seed) for t in planned.trials]
        cells += [(c["arm"], c["lr"], t.seed) for t in planned.trials for _, c in t.duplicates]
        rates = list(dict.fromkeys(t.cell["lr"] for t in planned.trials))
        assert {c for c in cells if "~" in str(c[0])} == set(
            itertools.product(entry["pilots"], rates[:PILOT_CONFIGS], [0])
        )
        assert not any(name == "A3a" for name, _, _ in cells)
        assert planned.unmatched_arms == (("gan-ring8", "A3a"),)
        assert "arm A3a follows in a second pass" in planned.notes[0]
        assert all(
            t.config.to_dict()["g_lr"] == float(f"{float(t.cell['lr']) * PILOT_SCALES[1]:.12g}")
            for t in planned.trials
            if t.cell["arm"] == "A3a~0.316"
        )

    def test_the_pilots_of_a_grid_are_spread_over_it(self) -> None:
        head = HEAD + RATIO + "factors: {lr: [1, 2, 3, 4, 5], width: [8, 16, 32]}\n"
        (block,) = parse_study(head + self.ARMS).blocks
        assert pilot_configurations(block) == [0, 2, 4, 6, 8, 10, 12, 14]

    def test_of_a_sample_in_a_grid_the_first_ones_of_every_cell(self) -> None:
        (block,) = parse_study(BASE + "factors: {width: [8, 16]}\n" + self.ARMS).blocks
        assert pilot_configurations(block) == [0, 4, 1, 5, 2, 6, 3, 7]


class TestNotes:
    def test_arms_that_are_the_same_everywhere(self) -> None:
        notes = plan_of("arms: {A0: {reg_weight: 0}, B: {reg_weight: 0.0}, C: {reg_weight: 1}}\n").notes
        assert notes == ("gan-ring8: arms A0 and B are the same in every configuration, and are trained once",)

    def test_a_block_that_is_no_part_of_the_claim(self) -> None:
        rest = CLAIM + "blocks:\n  - {name: a, " + TWO[:-1] + "}\n  - {name: b}\n"
        assert plan_of(rest).notes == ("b: without both arms A0 and A1 it is no part of the claim",)

    def test_a_placebo_is_marked_in_the_arm_that_has_the_term(self) -> None:
        planned = plan_of(TWO, BASE.replace("1:10", "1:1"))
        assert {(t.cell["arm"], t.inert) for t in planned.trials} == {("A0", ()), ("A1", ("reg_weight",))}


def test_the_recipe_is_a_valid_claim() -> None:
    with resources.as_file(resources.files("study") / "recipes" / "claim_anchor.yaml") as path:
        study = load_study(path)
    assert study.claim is not None
    assert {block.class_ for block in study.blocks} == {"P", "G", "D", "placebo", "control", "ali"}
    others = [block for block in study.blocks if block.name != "placebo"]
    assert all(block.sample and block.sample.n >= 60 and len(block.seeds) >= 2 for block in others)
    claimed = {block.name for block in study.blocks if {"A0", "A1", "A3a", "A3b", "A4"} <= block.arms.keys()}
    assert claimed == {f"{data}-{block_class}" for data in ("ring8", "grid25", "digits") for block_class in "PGD"}
