"""Plans: which trials a study has, in which order, and which it refuses."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from importlib import resources

import optuna
import pytest

from vistudy.analysis.ledger.errors import StudyError
from vistudy.study.planning.plan import Plan, count_trials, plan
from vistudy.study.planning.sampling import OptunaSampler, sample_points
from vistudy.study.spec.hyperparameters import ALIASES, Cell, settable
from vistudy.study.spec.limits import LIMIT_TRIALS, MAX_TRIALS, STARTUP_TRIALS
from vistudy.study.spec.model import Study
from vistudy.study.spec.parser import load_study, parse_study
from vistudy.trainables.models import MODELS

HEAD = "study: s\nmodel: gan\ndata: ring8\nseeds: [0, 1]\nbudget: {d_updates: 100, evaluations: 10}\n"
SPACE = (
    "{lr: {low: 1e-4, high: 1e-1, log: true}, width: {low: 16, high: 64}, reg_weight: {low: 0, high: 2}, "
    "anchor: {choices: [lag, ema]}, anchor_lag: {low: 1, high: 3, when: {anchor: lag}}}"
)


def study_of(rest: str, head: str = HEAD) -> Study:
    return parse_study(head + rest, "my.yaml")


def plan_of(rest: str, head: str = HEAD) -> Plan:
    return plan(study_of(rest, head))


def sampled(method: str, n: int, *, space: str = SPACE, seed: int = 1) -> str:
    return f"sampling: {{method: {method}, n: {n}, seed: {seed}, space: {space}}}\n"


def refused(rest: str, head: str = HEAD) -> str:
    with pytest.raises(StudyError) as caught:
        plan_of(rest, head)
    return str(caught.value)


class TestGrid:
    def test_every_combination_once_with_every_seed(self) -> None:
        result = plan_of(
            'factors: {lr: [1e-4, 1e-3], batch_norm: [false, true, none_ref_nobias], ratio: ["1:2", "5:1"]}'
        )
        expected = list(itertools.product([1e-4, 1e-3], [False, True, "none_ref_nobias"], ["1:2", "5:1"], [0, 1]))
        assert [(*t.cell.values(), t.seed) for t in result.trials] == expected
        assert list(result.trials[0].cell) == ["lr", "batch_norm", "ratio"]
        assert (result.cells, result.n_duplicates) == (12, 0)
        assert result.factors["gan-ring8"]["ratio"] == ("1:2", "5:1")

    def test_aliases_set_what_they_say(self) -> None:
        trial = plan_of('factors: {lr: [3e-3], batch_norm: [true], ratio: ["5:2"]}\nfixed: {reg_weight: 1}').trials[0]
        config = trial.config.to_dict()
        wanted = {"g_lr": 3e-3, "d_lr": 3e-3, "norm": "bn", "d_steps": 5, "g_steps": 2, "reg_weight": 1.0}
        assert {name: config[name] for name in wanted} == wanted
        assert (config["d_updates"], config["evaluations"], config["data"]) == (100, 10, "ring8")
        assert type(config["reg_weight"]) is float  # 1 and 1.0 are the same trial

    @pytest.mark.parametrize(("level", "norm"), [("false", "none"), ("true", "bn"), ("none_ref_nobias",) * 2])
    def test_batch_norm(self, level: str, norm: str) -> None:
        assert plan_of(f"fixed: {{batch_norm: {level}}}").trials[0].config.to_dict()["norm"] == norm

    def test_without_factors_there_is_one_cell(self) -> None:
        result = plan_of("")
        assert [(t.cell, t.seed) for t in result.trials] == [({}, 0), ({}, 1)]

    def test_trials_are_resolved_and_named_by_content(self) -> None:
        trial = plan_of("").trials[0]
        assert trial.config == trial.config.resolve()
        assert trial.trial_id == trial.config.trial_id()
        assert len({t.trial_id for t in plan_of("factors: {lr: [1e-4, 1e-3]}").trials}) == 4

    def test_growing_a_study_only_adds(self) -> None:
        small = plan_of("factors: {lr: [1e-4, 1e-3]}")
        large = plan_of("factors: {lr: [1e-4, 3e-4, 1e-3]}", HEAD.replace("[0, 1]", "[0, 1, 2]"))
        assert {t.trial_id for t in small.trials} < {t.trial_id for t in large.trials}
        assert len(large.trials) == 9


class TestMerging:
    def test_cells_that_train_the_same_are_one_trial(self) -> None:
        result = plan_of("factors: {anchor: [period_start, lag], anchor_lag: [2, 3]}")
        assert (len(result.trials), result.n_duplicates, result.cells) == (6, 2, 3)
        first = result.trials[0]
        assert first.cell == {"anchor": "period_start", "anchor_lag": 2}
        assert first.duplicates == (("gan-ring8", {"anchor": "period_start", "anchor_lag": 3}),)

    def test_blocks_share_trials(self) -> None:
        result = plan_of("blocks:\n  - {name: a, factors: {lr: [1e-3]}}\n  - {name: b, factors: {lr: [1e-3, 1e-2]}}\n")
        assert [(t.block, t.seed) for t in result.trials] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
        assert result.trials[0].duplicates == (("b", {"lr": 1e-3}),)


class TestInert:
    def test_regulariser_at_one_to_one_is_marked(self) -> None:
        result = plan_of('factors: {reg_weight: [0, 5], ratio: ["1:1", "1:2"]}')
        marked = [(t.cell["ratio"], t.inert) for t in result.trials if t.seed == 0]
        assert marked == [("1:1", ("reg_weight",)), ("1:2", ()), ("1:1", ("reg_weight",)), ("1:2", ())]
        assert (result.cells, result.inert_cells) == (4, 2)

    def test_what_the_user_did_not_set_is_not_reported(self) -> None:
        assert plan_of("factors: {lr: [1e-3]}").inert_cells == 0


class TestUnread:
    def test_a_factor_that_no_cell_reads(self) -> None:
        message = refused("fixed: {anchor: period_start}\nfactors: {anchor_lag: [1, 2]}\n")
        assert message.startswith("my.yaml:7: factors.anchor_lag: 'anchor_lag' is read in no cell; ")
        assert "it would be with anchor: lag" in message

    def test_reasons_are_found_for_counts_too(self) -> None:
        message = refused("factors: {z_use: [same, pool]}\n")
        assert "'z_use' is read in no cell; it would be with g_steps above 1" in message

    def test_one_reading_cell_is_enough(self) -> None:
        assert len(plan_of("factors: {anchor: [ema, lag], anchor_lag: [1, 2]}").trials) == 6

    def test_a_fixed_value_that_is_not_read(self) -> None:
        message = refused("fixed: {optimizer: sgd, beta1: 0.9}\n")
        assert message.startswith("my.yaml:6: fixed.beta1: ")
        assert "optimizer: adam" in message

    def test_a_fixed_default_does_no_harm(self) -> None:
        assert plan_of("fixed: {z_use: pool}").trials[0].trial_id == plan_of("").trials[0].trial_id

    def test_a_dimension_whose_condition_never_meets_a_reader(self) -> None:
        space = "{anchor: {choices: [lag, ema]}, anchor_lag: {low: 1, high: 3, when: {anchor: ema}}}"
        assert "'anchor_lag' is read in no cell" in refused(sampled("random", 3, space=space))

    def test_two_conditions_that_exclude_each_other(self) -> None:
        space = (
            "{optimizer: {choices: [adam, sgd]}, beta1: {low: 0, high: 0.9, when: {optimizer: adam}}, "
            "z_dim: {choices: [4, 8], when: {optimizer: sgd}}, "
            "width: {low: 8, high: 9, when: {z_dim: 4, optimizer: adam}}}"
        )
        assert "'width' is read in no cell; its condition holds in no cell" in refused(
            sampled("random", 3, space=space)
        )

    def test_a_short_sample_that_never_drew_the_reader_is_fine(self) -> None:
        for seed in range(8):
            decay = "anchor_decay: {low: 0.5, high: 0.9, when: {anchor: ema}}"
            space = f"{{anchor: {{choices: [lag, ema, period_start]}}, {decay}}}"
            assert len(plan_of(sampled("random", 1, space=space, seed=seed)).trials) == 2


class TestRefusals:
    def test_ten_to_the_nine_trials_are_refused_without_being_made(self) -> None:
        levels = ", ".join(str(i) for i in range(1, 1001))
        content = f"factors: {{width: [{levels}], reg_weight: [{levels}], z_dim: [{levels}]}}\n"
        message = refused(content, HEAD.replace("[0, 1]", "[0]"))
        assert message.startswith("my.yaml:6: factors: 1,000,000,000 trials (gan-ring8: width 1000 x ")
        assert "up to 10,000, or up to 1,000,000 with --allow-large" in message
        with pytest.raises(StudyError, match="1,000,000,000 trials"):
            plan(study_of(content, HEAD.replace("[0, 1]", "[0]")), allow_large=True)

    def test_more_than_the_stated_number_needs_a_yes(self) -> None:
        study = study_of(sampled("random", MAX_TRIALS // 2 + 1))
        assert count_trials(study) == MAX_TRIALS + 2 <= LIMIT_TRIALS
        with pytest.raises(StudyError, match=r"my.yaml:6: sampling.n: 10,002 trials .*--allow-large"):
            plan(study)
        assert len(plan(study, allow_large=True).trials) == MAX_TRIALS + 2

    def test_an_evaluation_without_a_period(self) -> None:
        message = refused('factors: {ratio: ["1:1", "20:1"]}\n')
        assert message.startswith("my.yaml:5: budget.evaluations: an evaluation would have no update in cell ")
        assert "20 D updates; got 10; allowed: up to d_updates / 20, 5" in message
        assert len(plan_of('factors: {ratio: ["10:1"]}\n').trials) == 2

    def test_a_net_that_does_not_fit_the_data(self) -> None:
        message = refused("factors: {net: [mlp, dcgan]}\n")
        assert message.startswith("my.yaml:6: factors.net: cell {'net': 'dcgan'}: net: 'dcgan' ")


class TestSamples:
    @pytest.mark.parametrize("method", ["sobol", "random", "optuna"])
    def test_a_larger_sample_begins_with_the_smaller(self, method: str) -> None:
        small, large = plan_of(sampled(method, 5)), plan_of(sampled(method, 23))
        assert [t.cell for t in large.trials[:10]] == [t.cell for t in small.trials]
        assert len({t.trial_id for t in large.trials}) == 46

    @pytest.mark.parametrize("method", ["sobol", "random", "optuna"])
    def test_values_lie_in_the_space(self, method: str) -> None:
        cells = [t.cell for t in plan_of(sampled(method, 64)).trials]
        assert all(1e-4 <= float(c["lr"]) <= 1e-1 and 0 <= float(c["reg_weight"]) <= 2 for c in cells)
        assert all(isinstance(c["width"], int) and 16 <= c["width"] <= 64 for c in cells)
        assert {c["anchor"] for c in cells} == {"lag", "ema"}
        assert {c.get("anchor_lag") for c in cells if c["anchor"] == "lag"} == {1, 2, 3}
        assert all("anchor_lag" not in c for c in cells if c["anchor"] == "ema")

    @pytest.mark.parametrize("method", ["sobol", "random", "optuna"])
    def test_the_seed_and_only_the_seed_changes_the_sample(self, method: str) -> None:
        first, again, other = (plan_of(sampled(method, 8, seed=s)).trials for s in (1, 1, 2))
        assert [t.cell for t in first] == [t.cell for t in again]
        assert not {str(t.cell) for t in first} & {str(t.cell) for t in other}

    def test_sobol_covers_every_stratum(self) -> None:
        study = study_of(sampled("sobol", 16))
        assert study.blocks[0].sample is not None
        exponents = [math.log10(float(point[0])) for point in sample_points(study.blocks[0].sample)]
        assert sorted(int((e + 4) / 3 * 16) for e in exponents) == list(range(16))  # one in each sixteenth, in the log

    def test_a_log_range_of_whole_numbers(self) -> None:
        cells = [t.cell for t in plan_of(sampled("sobol", 64, space="{width: {low: 1, high: 4, log: true}}")).trials]
        assert {c["width"] for c in cells} == {1, 2, 3, 4}

    def test_the_order_of_dimensions_does_not_matter(self) -> None:
        a, b = "beta1: {low: 0, high: 0.9}", "lr: {low: 1e-4, high: 1e-1, log: true}"
        one, two = (plan_of(sampled("sobol", 8, space=f"{{{x}, {y}}}")) for x, y in ((a, b), (b, a)))
        assert [t.trial_id for t in one.trials] == [t.trial_id for t in two.trials]

    def test_values_have_six_digits(self) -> None:
        for trial in plan_of(sampled("random", 20)).trials:
            assert float(f"{trial.cell['lr']:.6g}") == trial.cell["lr"]

    @pytest.mark.parametrize("method", ["sobol", "random", "optuna"])
    def test_every_cell_of_a_grid_has_the_same_sample(self, method: str) -> None:
        result = plan_of("factors: {z_dim: [4, 8]}\n" + sampled(method, 6))
        cells = [t.cell for t in result.trials if t.seed == 0]
        assert [c["z_dim"] for c in cells] == [4] * 6 + [8] * 6
        without = [{k: v for k, v in c.items() if k != "z_dim"} for c in cells]
        assert without[:6] == without[6:]

    def test_a_condition_on_a_factor_of_the_grid(self) -> None:
        space = "{lr: {low: 1e-4, high: 1e-1, log: true}, anchor_lag: {low: 1, high: 9, when: {anchor: [lag]}}}"
        result = plan_of("factors: {anchor: [lag, ema]}\n" + sampled("sobol", 4, space=space))
        assert all(("anchor_lag" in t.cell) == (t.cell["anchor"] == "lag") for t in result.trials)


class TestOptuna:
    def design(self, n: int = 60, arm: Cell | None = None) -> OptunaSampler:
        return OptunaSampler(study_of(sampled("optuna", n)).blocks[0], arm)

    @staticmethod
    def loss(cell: Cell) -> float:
        return abs(math.log10(float(cell["lr"])) + 2)

    def told(self, rounds: int = 3) -> OptunaSampler:
        design = self.design()
        for cell in design.ask(rounds * STARTUP_TRIALS):
            design.tell(cell, self.loss(cell))
        return design

    def test_the_same_history_gives_the_same_cells(self) -> None:
        design = self.told()
        block = study_of(sampled("optuna", 60)).blocks[0]
        resumed = OptunaSampler(block, history=list(design.history))
        assert design.ask(4) == resumed.ask(4)

    def test_asked_at_once_or_one_by_one(self) -> None:
        at_once, one_by_one = self.told(), self.told()
        assert at_once.ask(4) == [one_by_one.ask(1)[0] for _ in range(4)]

    def test_it_learns(self) -> None:
        design = self.told()
        later = design.ask(20)
        start = [self.loss(cell) for cell in design.cells[:30]]
        assert sum(map(self.loss, later)) / 20 < 0.6 * sum(start) / 30

    def test_each_ask_has_a_seed_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        design, sampler = self.told(), optuna.samplers.TPESampler
        seeds: list[int] = []

        def recorded(seed: int | None = None) -> optuna.samplers.TPESampler:
            seeds.extend([] if seed is None else [seed])  # Optuna makes one without a seed for every new study
            return sampler(seed=seed)

        monkeypatch.setattr(optuna.samplers, "TPESampler", recorded)
        design.ask(2)
        design.ask(1)
        assert len(seeds) == len(set(seeds)) == 3

    def test_values_change_what_is_asked(self) -> None:
        design, other = self.told(), self.told()
        other.history = [(cell, float(cell["reg_weight"])) for cell in other.cells]
        assert design.ask(2) != other.ask(2)

    def test_a_diverged_trial_counts_as_the_worst_finite_value(self) -> None:
        designs = [self.told() for _ in range(4)]
        worst = max(value for _, value in designs[0].history if value is not None)
        for design, value in zip(designs, (math.nan, math.inf, -math.inf, worst), strict=True):
            cell = design.cells[0]
            assert designs[0].history[0][1] != worst
            design.history[0] = (cell, value)
        asked = [design.ask(3) for design in designs]
        assert asked[0] == asked[1] == asked[2] == asked[3]

    def test_all_diverged(self) -> None:
        design = self.design()
        for cell in design.ask(12):
            design.tell(cell, math.nan)
        assert len(design.ask(2)) == 2

    def test_rounds_end_at_n(self) -> None:
        design = self.design(n=25)
        sizes = []
        while cells := design.next_cells(10):
            sizes.append(len(cells))
            for cell in cells:
                design.tell(cell, self.loss(cell))
        assert sizes == [10, 10, 5]
        assert design.next_cells(10) == []

    def test_a_value_is_told_once_and_only_for_what_was_asked(self) -> None:
        design = self.design()
        (cell,) = design.ask(1)
        design.tell(cell, 1.0)
        for wrong in (cell, {"lr": 1.0}):
            with pytest.raises(StudyError, match="was not asked, or was told before"):
                design.tell(wrong, 2.0)

    def test_an_arm_is_part_of_its_cells(self) -> None:
        design = self.design(arm={"z_dim": 4})
        for cell in design.ask(12):
            assert cell["z_dim"] == 4
            design.tell(cell, self.loss(cell))
        assert design.ask(1)[0]["z_dim"] == 4

    def test_a_plan_of_the_cells_asked_so_far(self) -> None:
        study = study_of(sampled("optuna", 60))
        design = OptunaSampler(study.blocks[0])
        asked = design.next_cells(3)
        result = plan(study, cells={"gan-ring8": design.cells})
        assert [t.cell for t in result.trials if t.seed == 0] == asked
        assert plan(study, cells={"gan-ring8": []}).trials == ()


class TestEveryFactor:
    @pytest.mark.parametrize("name", sorted(ALIASES))
    def test_an_alias_sets_all_of_its_targets(self, name: str) -> None:
        level = {"lr": 0.5, "ratio": "3:4", "batch_norm": True}[name]
        assert set(ALIASES[name].expand(level)) == set(ALIASES[name].targets)

    @pytest.mark.parametrize("model", sorted(MODELS))
    def test_every_hyperparameter_has_a_name(self, model: str) -> None:
        config = MODELS[model].config
        reached = {target for targets in settable(config).values() for target in targets}
        outside = {"seed", "data", "data_fingerprint", "d_updates", "evaluations"}
        assert reached | outside == {field.name for field in dataclasses.fields(config)}
        assert not reached & outside


class TestJson:
    def test_plan_json(self) -> None:
        result = plan_of(
            'factors: {reg_weight: [0, 5], ratio: ["1:1"]}\n'
            "blocks:\n  - {}\n  - {data: digits, factors: {lr: [1e-3]}}\n"
        )
        content = json.loads(json.dumps(result.to_json(), allow_nan=False))
        assert content["study"] == "s"
        assert content["hash"] == result.study.hash
        assert content["factors"] == {"reg_weight": [0, 5], "ratio": ["1:1"], "lr": [1e-3]}
        assert (content["seeds"], content["cells"]) == ([0, 1], 3)
        assert content["blocks"]["gan-digits"]["factors"] == {"lr": [1e-3]}
        first = content["trials"][0]
        assert first["trial_id"] == result.trials[0].trial_id
        assert (first["cell"], first["seed"], first["block"]) == ({"reg_weight": 0, "ratio": "1:1"}, 0, "gan-ring8")
        assert first["inert"] == ["reg_weight"]
        assert first["config"] == result.trials[0].config.to_dict()

    def test_the_quickstart(self) -> None:
        with resources.as_file(resources.files("study") / "recipes" / "quickstart.yaml") as path:
            result = plan(load_study(path))
        ring = [t for t in result.trials if t.config.data == "ring8"]
        assert len(ring) >= 120
        assert any(t.config.data == "digits" for t in result.trials)
