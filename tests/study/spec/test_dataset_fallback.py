"""`first_there`: which data set is taken, what is said of it, and that mistakes are found in every entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.data.files import write_faces, write_idx
from vistudy.analysis.ledger.errors import StudyError
from vistudy.study.planning.plan import plan
from vistudy.study.spec.model import Study
from vistudy.study.spec.parser import parse_study

RECIPES = Path(__file__).parents[3] / "study" / "recipes"
HEAD = "study: first\nmodel: gan\nseeds: [0]\nbudget: {d_updates: 100, evaluations: 10}\n"
LIST = """\
first_there:
  - {data: celeba, budget: {d_updates: 60, evaluations: 6}, fixed: {lr: 2e-4}}
  - {data: mnist, seeds: [0, 1]}
  - {data: digits, factors: {lr: [1e-3, 2e-3]}}
"""
WRITTEN = {  # what stands there -> the same without first_there
    "digits": HEAD + "data: digits\nfactors: {lr: [1e-3, 2e-3]}\n",
    "mnist": HEAD.replace("seeds: [0]", "seeds: [0, 1]") + "data: mnist\n",
    "celeba": HEAD.replace("{d_updates: 100, evaluations: 10}", "{d_updates: 60, evaluations: 6}")
    + "data: celeba\nfixed: {lr: 2e-4}\n",
}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    monkeypatch.setenv("VISTUDY_DATA_ROOT", str(folder))
    return folder


def refused(content: str) -> str:
    with pytest.raises(StudyError) as caught:
        parse_study(content, "my.yaml")
    return str(caught.value)


def trials(study: Study) -> list[str]:
    return [trial.trial_id for trial in plan(study).trials]


@pytest.mark.parametrize("there", ["digits", "mnist", "celeba"])
def test_the_first_that_is_there_is_taken_with_its_settings(root: Path, there: str) -> None:
    write_idx(root / "MNIST" / "raw", "t10k", 20) if there in ("mnist", "celeba") else None
    write_faces(root, [0, 0, 1]) if there == "celeba" else None
    study, written = parse_study(HEAD + LIST), parse_study(WRITTEN[there])
    assert study.blocks[0].data == there
    assert trials(study) == trials(written)
    assert study.hash == written.hash
    passed = {"celeba": 0, "mnist": 1, "digits": 2}[there]
    assert len(study.notes) == passed
    assert all(note.startswith(f"data {there} is used: data ") for note in study.notes)
    assert [note.split("'")[1] for note in study.notes] == ["celeba", "mnist"][:passed]
    assert str(root / "celeba" / "list_eval_partition.txt") in study.notes[0] if passed else True


def test_the_plan_keeps_what_was_decided(root: Path) -> None:
    planned = plan(parse_study(HEAD + LIST)).to_json()
    assert planned["blocks"]["gan-digits"]["data"] == "digits"
    assert [note.split(":")[0] for note in planned["notes"]] == ["data digits is used"] * 2


def test_without_a_data_root_what_needs_no_files_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISTUDY_DATA_ROOT")
    study = parse_study(HEAD + LIST)
    assert study.blocks[0].data == "digits"
    assert "--data-root" in study.notes[0]


def test_a_data_root_that_is_no_folder_is_a_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VISTUDY_DATA_ROOT", str(tmp_path / "rot"))
    assert refused(HEAD + LIST).startswith(f"my.yaml:6: first_there.data: celeba: {tmp_path / 'rot'}: does not exist")


def test_data_that_are_there_in_part_are_refused_and_not_replaced(root: Path) -> None:
    base = write_faces(root, [0, 0, 1])
    (base / "img_align_celeba" / "000002.jpg").unlink()
    message = refused(HEAD + LIST)
    assert message.startswith(f"my.yaml:6: first_there.data: celeba: {base / 'list_eval_partition.txt'}: lists 3")


def test_blocks_choose_for_themselves(root: Path) -> None:
    own = "blocks:\n  - {name: a, data: ring8}\n  - {name: b}\n  - name: c\n    first_there: [{data: mnist}]\n"
    write_idx(root / "mnist", "train", 20)
    top = "first_there: [{data: celeba}, {data: digits, seeds: [7]}]\n"
    assert {b.name: (b.data, b.seeds) for b in parse_study(HEAD + top + own).blocks} == {
        "a": ("ring8", (7,)),
        "b": ("digits", (7,)),
        "c": ("mnist", (7,)),
    }


def test_nothing_is_there() -> None:
    message = refused(HEAD + "first_there:\n  - {data: celeba}\n  - {data: cifar10}\n")
    assert message.startswith("my.yaml:5: first_there: no data set is there: data 'celeba' is not there.")
    assert "data 'cifar10' is not there" in message
    assert message.endswith("list one last that needs no files, such as digits")


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("data: celeba", "data: celebra", "my.yaml:6: data: unknown data; got \"celebra\"; did you mean 'celeba'?"),
        ("fixed: {lr: 2e-4}", "fixed: {lrr: 2e-4}", "my.yaml:6: fixed.lrr: unknown fixed key 'lrr'"),
        ("evaluations: 6}", "evaluations: 61}", "my.yaml:6: budget.evaluations: an evaluation would have no update"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "my.yaml:7: seeds: seed 0 is listed twice"),
        ("seeds: [0, 1]", "sedes: [0, 1]", "my.yaml:7: first_there.sedes: unknown key 'sedes'"),
        ("data: digits, ", "", "my.yaml:8: first_there: 'data' is missing"),
        ("lr: [1e-3, 2e-3]", "lr: [1e-3, -1]", "my.yaml:8: factors.lr: out of bounds; got -1"),
        ("first_there:\n", "data: digits\nfirst_there:\n", "my.yaml:5: data: 'first_there' says it, too"),
        (LIST, "first_there: []\n", "my.yaml:5: first_there: no data set; got []"),
    ],
)
def test_mistakes_are_found_in_every_entry_and_at_its_line(right: str, wrong: str, message: str) -> None:
    assert right in LIST
    found = refused(HEAD + LIST.replace(right, wrong))
    assert found.startswith(message), found


def test_the_recipes_of_the_papers_figures_take_the_papers_data_where_they_are(root: Path) -> None:
    texts = {name: (RECIPES / f"{name}.yaml").read_text() for name in ("paper_fig1", "paper_fig2")}
    assert {block.data for text in texts.values() for block in parse_study(text).blocks} == {"digits"}
    write_idx(root / "MNIST" / "raw", "train", 20)
    assert {block.data for text in texts.values() for block in parse_study(text).blocks} == {"mnist"}
    write_faces(root, [0, 0, 1])
    for text in texts.values():
        configs = [trial.config for trial in plan(parse_study(text)).trials]
        assert {config.data for config in configs} == {"celeba"}
        as_published = {"g_lr": 2e-4, "d_lr": 2e-4, "beta1": 0.5, "batch_size": 64, "width": 64, "init": "dcgan"}
        as_published |= {"z_dim": 100, "net": "dcgan", "anchor": "period_start"}
        assert all(as_published.items() <= config.to_dict().items() for config in configs)
