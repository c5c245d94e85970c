"""Study files: what they mean, and that every mistake is refused by a message that says where and how to mend it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from vistudy.analysis.ledger.errors import StudyError
from vistudy.study.api.register import claim_hash, registration_content
from vistudy.study.planning.plan import plan
from vistudy.study.spec.parser import load_study, parse_study
from vistudy.study.spec.yaml_reader import MAX_BYTES

LINES = {
    "study": "ring",
    "model": "gan",
    "data": "ring8",
    "seeds": "[0, 1]",
    "budget": "{d_updates: 100, evaluations: 10}",
    "factors": "{lr: [1e-4, 1e-3]}",
}
LINE = {key: i + 1 for i, key in enumerate(LINES)} | {"extra": len(LINES) + 1}
BOMB = "x: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"x{i}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 10)}]\n" for i in range(6)
)


def text(extra: str = "", **changes: str | None) -> str:
    """A study file on one line a key; a key set to None is left out; `extra` comes last."""
    lines = {**LINES, **changes}
    return "".join(f"{key}: {value}\n" for key, value in lines.items() if value is not None) + extra


def sample(space: str, rest: str = "method: sobol, n: 4") -> str:
    return f"sampling: {{{rest}, space: {{{space}}}}}\n"


def refused(content: str) -> str:
    with pytest.raises(StudyError) as caught:
        parse_study(content, "my.yaml")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_file_of_the_issue() -> None:
    study = parse_study(
        """
        study: ring-quickstart
        model: gan
        data: ring8
        seeds: [0, 1, 2]
        budget: {d_updates: 2000, evaluations: 50}
        factors:
          lr: [1e-4, 4e-4, 1.6e-3, 6.4e-3, 2.56e-2]
          reg_weight: [0, 0.5, 5, 50]
          batch_norm: [false, true]
          ratio: [1:2, 1:10]
        fixed: {anchor: period_start, z_use: pool, batch_size: 64}
        """
    )
    (block,) = study.blocks
    assert (study.name, block.name, block.model, block.data) == ("ring-quickstart", "gan-ring8", "gan", "ring8")
    assert block.seeds == (0, 1, 2)
    assert (block.d_updates, block.evaluations) == (2000, 50)
    assert block.factors["lr"] == (1e-4, 4e-4, 1.6e-3, 6.4e-3, 2.56e-2)
    assert block.factors["ratio"] == ("1:2", "1:10")  # YAML 1.1 would read 62 and 70
    assert block.factors["batch_norm"] == (False, True)
    assert block.fixed == {"anchor": "period_start", "z_use": "pool", "batch_size": 64}
    assert block.sample_evaluations == (25, 50)
    assert block.keep_checkpoints == "none"


CASES = {
    "unknown key": (text("sede: [1]\n"), "extra", "sede", ["unknown key 'sede'", "did you mean 'seeds'?", "budget"]),
    "unknown key in budget": (
        text(budget="{d_update: 5}"),
        "budget",
        "budget.d_update",
        ["did you mean 'd_updates'?", "allowed: d_updates, evaluations"],
    ),
    "unknown model": (text(model="gam"), "model", "model", ['got "gam"', "did you mean 'gan'?", "allowed: gan"]),
    "unknown data": (text(data="ring"), "data", "data", ['got "ring"', "did you mean 'ring8'?", "digits"]),
    "misspelt factor": (
        text(factors="{lrr: [1e-4]}"),
        "factors",
        "factors.lrr",
        ["unknown factor 'lrr' for model gan", "did you mean 'lr'?", "allowed: lr, ratio, batch_norm, batch_size"],
    ),
    "misspelt fixed key": (text("fixed: {widht: 3}\n"), "extra", "fixed.widht", ["unknown fixed key", "'width'?"]),
    "empty level list": (text(factors="{lr: []}"), "factors", "factors.lr", ["no levels", "got []", "number > 0"]),
    "level that is no list": (text(factors="{lr: 1e-4}"), "factors", "factors.lr", ["got 0.0001", "a list"]),
    "duplicate levels": (text(factors="{lr: [1e-3, 0.001]}"), "factors", "factors.lr", ["duplicate", "0.001"]),
    "duplicate ratio": (text(factors='{ratio: ["1:2", "01:2"]}'), "factors", "factors.ratio", ["duplicate", '"01:2"']),
    "zero twice": (text(factors="{reg_weight: [0, -0.0]}"), "factors", "factors.reg_weight", ["duplicate", "-0.0"]),
    "negative lr": (text(factors="{lr: [-1e-4]}"), "factors", "factors.lr", ["got -0.0001", "allowed: number > 0"]),
    "negative reg_weight": (
        text(factors="{reg_weight: [-1]}"),
        "factors",
        "factors.reg_weight",
        ["got -1", "allowed: number >= 0"],
    ),
    "NaN": (text(factors="{lr: [.nan]}"), "factors", "factors.lr", ["finite", "got .nan", "number > 0"]),
    "inf": (text(factors="{lr: [.inf]}"), "factors", "factors.lr", ["finite", "got .inf", "number > 0"]),
    "beyond single precision": (text(factors="{lr: [1e39]}"), "factors", "factors.lr", ["got 1e+39", "number > 0"]),
    "zero in single precision": (text(factors="{lr: [1e-60]}"), "factors", "factors.lr", ["got 1e-60", "number > 0"]),
    "a number of 5000 digits": (
        text(factors=f"{{lr: [{'9' * 5000}]}}"),
        "factors",
        "factors.lr",
        ["not a number that can be read", 'got "99999', "..."],
    ),
    "string for a number": (
        text(factors='{lr: ["1e-4"]}'),
        "factors",
        "factors.lr",
        ['got "1e-4"', "allowed: number > 0", "remove the quotes"],
    ),
    "word for a number": (text(factors="{lr: [fast]}"), "factors", "factors.lr", ['got "fast"', "number > 0"]),
    "bool for a number": (text(factors="{lr: [true]}"), "factors", "factors.lr", ["got true", "number > 0"]),
    "null for a number": (text(factors="{lr: [null]}"), "factors", "factors.lr", ["got null", "number > 0"]),
    "list for a number": (text(factors="{lr: [[1e-4]]}"), "factors", "factors.lr", ["got [0.0001]", "number > 0"]),
    "fraction for a count": (text("fixed: {width: 1.5}\n"), "extra", "fixed.width", ["whole", "got 1.5", ">= 1"]),
    "unknown choice": (
        text(factors="{anchor: [period_star]}"),
        "factors",
        "factors.anchor",
        ['got "period_star"', "did you mean 'period_start'?", "ema"],
    ),
    "unknown batch norm": (
        text(factors="{batch_norm: [none_ref]}"),
        "factors",
        "factors.batch_norm",
        ['got "none_ref"', "did you mean 'none_ref_nobias'?", "allowed: true, false"],
    ),
    "ratio of 0": (text(factors='{ratio: ["1:0"]}'), "factors", "factors.ratio", ['got "1:0"', 'allowed: "d:g"']),
    "ratio 0:0": (text(factors='{ratio: ["0:0"]}'), "factors", "factors.ratio", ['got "0:0"', 'allowed: "d:g"']),
    "negative ratio": (text(factors='{ratio: ["-1:2"]}'), "factors", "factors.ratio", ['got "-1:2"', '"d:g"']),
    "ratio 1:x": (text(factors='{ratio: ["1:x"]}'), "factors", "factors.ratio", ['got "1:x"', 'allowed: "d:g"']),
    "ratio as number": (text(factors="{ratio: [0.5]}"), "factors", "factors.ratio", ["got 0.5", 'allowed: "d:g"']),
    "seeds twice": (text(seeds="[0, 1, 0]"), "seeds", "seeds", ["seed 0 is listed twice", "got [0, 1, 0]"]),
    "seed not int": (text(seeds="[0.5]"), "seeds", "seeds", ["got 0.5", "allowed: whole number >= 0"]),
    "seed in quotes": (text(seeds='["1"]'), "seeds", "seeds", ['got "1"', "remove the quotes"]),
    "negative seed": (text(seeds="[-1]"), "seeds", "seeds", ["got -1", "whole number >= 0"]),
    "no seeds": (text(seeds="[]"), "seeds", "seeds", ["no seed", "got []", "whole numbers from 0"]),
    "seed as factor": (text(factors="{seed: [0, 1]}"), "factors", "factors.seed", ["under 'seeds'"]),
    "data as factor": (text(factors="{data: [ring8]}"), "factors", "factors.data", ["under 'blocks'"]),
    "budget as factor": (text(factors="{d_updates: [9]}"), "factors", "factors.d_updates", ["under 'budget'"]),
    "name with a slash": (text(study="a/b"), "study", "study", ['got "a/b"', "letters, digits"]),
    "name that goes up": (text(study=".."), "study", "study", ['got ".."', "letters, digits"]),
    "name of 81 letters": (text(study="a" * 81), "study", "study", ["at most 80"]),
    "name that is a number": (text(study="5"), "study", "study", ["got 5", "allowed: text", "quotes"]),
    "evaluations > d_updates": (
        text(budget="{d_updates: 5, evaluations: 6}"),
        "budget",
        "budget.evaluations",
        ["no update", "got 6", "up to d_updates, 5"],
    ),
    "no d_updates": (text(budget="{}"), "budget", "budget", ["'d_updates' is missing"]),
    "budget of 0": (text(budget="{d_updates: 0}"), "budget", "budget.d_updates", ["got 0", "whole number >= 1"]),
    "lr and g_lr": (
        text(factors="{lr: [1e-4], g_lr: [1e-3]}"),
        "factors",
        "factors.g_lr",
        ["'lr' and 'g_lr' both set g_lr", "keep one"],
    ),
    "ratio and fixed d_steps": (
        text("fixed: {d_steps: 5}\n", factors='{ratio: ["1:2"]}'),
        "extra",
        "fixed.d_steps",
        ["'ratio' and 'd_steps' both set d_steps"],
    ),
    "factor and fixed": (text("fixed: {lr: 1e-2}\n"), "extra", "fixed.lr", ["'lr' and 'lr' both set g_lr"]),
    "factor and sample": (
        text(sample("d_lr: {low: 1e-4, high: 1e-2}")),
        "extra",
        "sampling.space.d_lr",
        ["'lr' and 'd_lr' both set d_lr"],
    ),
    "low > high": (
        text(sample("reg_weight: {low: 5, high: 1}")),
        "extra",
        "sampling.space.reg_weight",
        ["low is not below high", "got [5, 1]"],
    ),
    "log range with 0": (
        text(sample("reg_weight: {low: 0, high: 1, log: true}")),
        "extra",
        "sampling.space.reg_weight",
        ["log range", "got 0", "low > 0"],
    ),
    "NaN in a range": (
        text(sample("reg_weight: {low: 0, high: .nan}")),
        "extra",
        "sampling.space.reg_weight",
        ["got .nan", "number >= 0"],
    ),
    "range out of bounds": (
        text(sample("beta1: {low: 0.5, high: 1}")),
        "extra",
        "sampling.space.beta1",
        ["got 1", "number >= 0 and < 1"],
    ),
    "range without high": (text(sample("beta1: {low: 0.5}")), "extra", "sampling.space.beta1", ["'high' is missing"]),
    "range of words": (
        text(sample("anchor: {low: 1, high: 2}")),
        "extra",
        "sampling.space.anchor",
        ["'anchor' takes no range", "period_start", "choices: [...]"],
    ),
    "range and choices": (
        text(sample("beta1: {low: 0, choices: [0.5]}")),
        "extra",
        "sampling.space.beta1",
        ["a range and choices at once"],
    ),
    "misspelt dimension key": (
        text(sample("beta1: {low: 0, hgih: 0.5}")),
        "extra",
        "sampling.space.beta1.hgih",
        ["did you mean 'high'?", "allowed: low, high, log"],
    ),
    "unknown dimension": (
        text(sample("bata1: {low: 0, high: 0.5}")),
        "extra",
        "sampling.space.bata1",
        ["unknown dimension", "did you mean 'beta1'?"],
    ),
    "empty space": (text(sample("")), "extra", "sampling.space", ["nothing to sample"]),
    "unknown method": (
        text(sample("beta1: {low: 0, high: 0.5}", "method: sobbol, n: 4")),
        "extra",
        "sampling.method",
        ['got "sobbol"', "did you mean 'sobol'?", "'random'"],
    ),
    "sample of 0": (
        text(sample("beta1: {low: 0, high: 0.5}", "method: sobol, n: 0")),
        "extra",
        "sampling.n",
        ["got 0", "greater than or equal to 1"],
    ),
    "condition on a later dimension": (
        text(sample("anchor_lag: {low: 1, high: 3, when: {anchor: lag}}, anchor: {choices: [lag, ema]}")),
        "extra",
        "sampling.space.anchor_lag.when",
        ["unknown name 'anchor' in a condition", "allowed: lr"],
    ),
    "condition that never holds": (
        text(sample("anchor: {choices: [lag, ema]}, anchor_lag: {low: 1, high: 3, when: {anchor: lagg}}")),
        "extra",
        "sampling.space.anchor_lag.when",
        ["'anchor' never has this value", 'got "lagg"', "did you mean 'lag'?"],
    ),
    "sample evaluation beyond the last": (
        text("save_samples: {evaluations: [11]}\n"),
        "extra",
        "save_samples.evaluations",
        ["got 11", "allowed: 0 to 10"],
    ),
    "unknown keep_checkpoints": (
        text("keep_checkpoints: last\n"),
        "extra",
        "keep_checkpoints",
        ['got "last"', "'none' or 'final'"],
    ),
    "duplicate key": (text("model: gan\n"), "extra", "model", ["duplicate key 'model'"]),
    "key that is no name": (text(factors="{1: [2]}"), "factors", "factors.1", ["a key must be a name", "got 1"]),
    "YAML tag": (text("description: !!python/name:os.system x\n"), "extra", "description", ["tags", "python/name"]),
    "merge key": (text("<<: {a: 1}\n"), "extra", "<<", ["unknown key '<<'"]),
    "mistake in a block": (
        text("blocks:\n  - data: digits\n  - data: ring8\n    factors: {lrr: [1]}\n"),
        3 + LINE["extra"],
        "block 2: factors.lrr",
        ["did you mean 'lr'?"],
    ),
    "unknown key in a block": (
        text("blocks:\n  - dta: digits\n"),
        1 + LINE["extra"],
        "block 1: dta",
        ["did you mean 'data'?", "keep_checkpoints"],
    ),
    "unknown key in a dimension of a block": (
        text("blocks:\n  - data: digits\n    sampling: {method: sobol, n: 1, space: {beta1: {lo: 1}}}\n"),
        2 + LINE["extra"],
        "block 1: sampling.space.beta1.lo",
        ["did you mean 'low'?", "allowed: low, high"],
    ),
    "two blocks of one name": (
        text("blocks:\n  - data: digits\n  - data: digits\n"),
        2 + LINE["extra"],
        "block 2: name",
        ["two blocks of one name", '"gan-digits"', "name"],
    ),
    "no blocks": (text("blocks: []\n"), "extra", "blocks", ["no block"]),
}


@pytest.mark.parametrize(("content", "line", "key", "parts"), CASES.values(), ids=CASES.keys())
def test_mistakes_are_refused(content: str, line: str | int, key: str, parts: list[str]) -> None:
    message = refused(content)
    number = LINE[line] if isinstance(line, str) else line
    assert message.startswith(f"my.yaml:{number}: {key}: ")
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("key", ["study", "model", "data", "seeds", "budget"])
def test_a_missing_key_is_named(key: str) -> None:
    assert f"'{key}' is missing" in refused(text(**{key: None}))


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["my.yaml:1: ", "an empty file", "study: my-study"]),
        ("# only a comment\n", ["my.yaml:1: ", "an empty file"]),
        ("- a\n- b\n", ["my.yaml:1: ", "a list", "keys with values"]),
        ("quickstart", ["my.yaml:1: ", "a single value"]),
        ("a: 1\nb: [1,\n", ["my.yaml:", "not YAML"]),
        ("a: 1\nb: c: d\n", ["my.yaml:2: ", "not YAML", "mapping values are not allowed here"]),
        ("a: 1\n---\nb: 1\n", ["my.yaml:2: ", "not YAML"]),
        ("a: *nothing\n", ["my.yaml:1: ", "undefined alias"]),
        ("a: \x00\n", ["my.yaml:1: ", "not YAML", "#x0000"]),
        ("%YAML 1.1\n---\nstudy: a\n", ["my.yaml:1: ", "directives"]),
        (BOMB, ["my.yaml:1: ", "too large", "100000 values"]),
        ("a: &a [*a]\n", ["my.yaml:1: ", "too deep", "20 deep"]),
        ("[" * 50_000, ["my.yaml:1: ", "too deep"]),
        (text(factors="[1]"), ["my.yaml:6: factors: ", "got [1]", "keys with values"]),
    ],
)
def test_what_is_no_study_is_refused(content: str, parts: list[str]) -> None:
    message = refused(content)
    assert [part for part in parts if part not in message] == [], message


class TestFiles:
    def refused(self, path: Path) -> str:
        with pytest.raises(StudyError) as caught:
            load_study(path)
        message = str(caught.value)
        assert message.startswith(str(path))
        return message

    def test_a_good_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.yaml"
        path.write_bytes(b"\xef\xbb\xbf" + text().replace("\n", "\r\n").encode())  # as Windows' editors save it
        assert load_study(str(path)).name == "ring"
        assert load_study(path).text.startswith("study: ")
        assert load_study(path).hash == parse_study(text()).hash

    def test_a_directory(self, tmp_path: Path) -> None:
        (tmp_path / "mine.yaml").touch()
        message = self.refused(tmp_path)
        assert "a directory; allowed: a YAML file, such as mine.yaml" in message

    def test_a_missing_file(self, tmp_path: Path) -> None:
        (tmp_path / "quickstart.yaml").touch()
        message = self.refused(tmp_path / "quikstart.yaml")
        assert "no such file; did you mean 'quickstart.yaml'?" in message

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        assert "no such file" in self.refused(tmp_path / "no" / "a.yaml")

    def test_a_file_as_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").touch()
        assert "Not a directory" in self.refused(tmp_path / "a.yaml" / "b.yaml")

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert "no regular file" in self.refused(tmp_path / "pipe")

    def test_100_mb(self, tmp_path: Path) -> None:
        path = tmp_path / "big.yaml"
        with path.open("wb") as file:
            file.truncate(100_000_000)
        assert f"larger than a study file may be; allowed: up to {MAX_BYTES} bytes" in self.refused(path)

    def test_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "a.yaml"
        path.write_bytes(b"study: a\ndescription: caf\xe9\n")
        assert self.refused(path).startswith(f"{path}:2: not UTF-8; got byte 0xe9 at position 25;")


class TestBlocks:
    def test_a_key_of_a_block_replaces_the_whole_key_above(self) -> None:
        study = parse_study(
            text(
                "fixed: {width: 32, depth: 3}\n"
                "blocks:\n"
                "  - {seeds: [7]}\n"
                "  - {name: big, data: digits, fixed: {width: 64}, budget: {d_updates: 60}, factors: null}\n"
            )
        )
        ring, digits = study.blocks
        assert (ring.name, ring.seeds, ring.fixed) == ("gan-ring8", (7,), {"width": 32, "depth": 3})
        assert ring.factors == {"lr": (1e-4, 1e-3)}
        assert (digits.name, digits.seeds, digits.fixed) == ("big", (0, 1), {"width": 64})
        assert (digits.d_updates, digits.evaluations, digits.factors) == (60, 50, {})

    def test_an_inherited_mistake_is_shown_where_it_stands(self) -> None:
        message = refused(text("blocks:\n  - {data: digits}\n", factors="{lrr: [1]}"))
        assert message.startswith("my.yaml:6: factors.lrr: ")

    def test_a_missing_key_points_at_the_block(self) -> None:
        message = refused(text("blocks:\n  - {data: digits}\n", seeds=None))
        assert message.startswith("my.yaml:7: block 1: 'seeds' is missing")


class TestValues:
    def test_samples_and_checkpoints(self) -> None:
        study = parse_study(text("save_samples: {evaluations: [10, 0, 10]}\nkeep_checkpoints: final\n"))
        assert study.blocks[0].sample_evaluations == (0, 10)
        assert study.blocks[0].keep_checkpoints == "final"

    @pytest.mark.parametrize(("evaluations", "kept"), [(1, (1,)), (2, (1, 2)), (50, (25, 50))])
    def test_default_samples(self, evaluations: int, kept: tuple[int, ...]) -> None:
        study = parse_study(text(budget=f"{{d_updates: 100, evaluations: {evaluations}}}"))
        assert study.blocks[0].sample_evaluations == kept

    def test_whole_numbers_may_be_written_as_powers(self) -> None:
        assert parse_study(text(budget="{d_updates: 2e3}")).blocks[0].d_updates == 2000

    def test_aliases_of_yaml_are_fine(self) -> None:
        study = parse_study(text(seeds="&s [3, 4]") + "blocks:\n  - {data: ring8, seeds: *s}\n")
        assert study.blocks[0].seeds == (3, 4)

    def test_dates_and_yes_are_text(self) -> None:
        study = parse_study(text("description: yes\n", study="2020-01-01"))
        assert (study.name, study.description) == ("2020-01-01", "yes")


class TestHash:
    def test_layout_does_not_count(self) -> None:
        plain = text("description: x\n")
        other = "# a comment\ndescription: 'x'\n" + text(factors="\n  lr:\n  - 1e-4\n  - 0.001")
        assert parse_study(plain).hash == parse_study(other).hash
        assert parse_study(other).text == other

    def test_content_counts(self) -> None:
        hashes = {parse_study(t).hash for t in (text(), text(seeds="[0, 2]"), text(seeds="[1, 0]"), text(study="b"))}
        assert len(hashes) == 4
        assert all(len(h) == 12 and int(h, 16) >= 0 for h in hashes)


FORMER = text(
    "sample: {method: sobol, n: 4, space: {beta1: {low: 0, high: 0.9}}}\n"
    "samples: {evaluations: [0]}\n"
    "blocks:\n  - {}\n  - data: digits\n    samples: {evaluations: [0, 10]}\n"
    "arms: {A0: {reg_weight: 0}, A1: {reg_weight: 5}}\n"
    "claim: {id: c, baseline: A0, treatment: A1}\n",
    budget="{d_updates: 100, evaluations: 20}",
)
PRESENT = FORMER.replace("sample:", "sampling:").replace("samples:", "save_samples:")


class TestFormerKeys:
    def test_the_spelling_changes_no_hash_no_trial_and_no_registration(self) -> None:
        former, present = parse_study(FORMER), parse_study(PRESENT)
        assert former.hash == present.hash
        assert [t.to_json() for t in plan(former).trials] == [t.to_json() for t in plan(present).trials]
        assert claim_hash(registration_content(former)) == claim_hash(registration_content(present))
        assert former.blocks[1].sample_evaluations == (0, 10)

    def test_the_hash_is_that_of_files_written_before(self) -> None:
        content = {"study": "s", "model": "gan", "data": "ring8", "seeds": [0]}
        content |= {"budget": {"d_updates": 9, "evaluations": 3}, "samples": {"evaluations": [1]}}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        for key in ("samples", "save_samples"):
            study = parse_study(json.dumps(content).replace('"samples"', f'"{key}"'))
            assert study.hash == hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def test_one_note_names_the_first_line_of_each(self) -> None:
        assert parse_study(PRESENT).notes == ()
        assert parse_study(FORMER).notes == (
            "former keys are still accepted: 'sample' (line 7) is now 'sampling', "
            "'samples' (line 8) is now 'save_samples'",
        )

    def test_a_mistake_below_a_former_key_has_its_line(self) -> None:
        assert refused(FORMER.replace("n: 4", "n: 0")).startswith("my.yaml:7: sampling.n: ")
        assert refused(FORMER.replace("[0, 10]", "[99]")).startswith("my.yaml:12: block 2: save_samples.evaluations: ")

    def test_both_together_are_refused(self) -> None:
        message = refused(PRESENT + "samples: {evaluations: [0]}\n")
        assert message.startswith("my.yaml:15: samples: 'samples' is the former name of 'save_samples'")


def test_a_recipe_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_study("quickstart").name == "ring-quickstart"
    (tmp_path / "quickstart").write_text(text(study="mine"))
    assert load_study("quickstart").name == "mine"
    for absent in ("quickstar", "../recipes/quickstart", "sub/quickstart"):
        with pytest.raises(StudyError, match="no such file"):
            load_study(absent)
