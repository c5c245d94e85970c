"""Mutations fit the code that they break, so that `python -m tests.mutations` says something. It is not run here."""

from __future__ import annotations

import ast

import pytest

from tests.mutations import MUTATIONS, ROOT, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.file}: {m.name}")
def test_a_mutation_changes_one_place_and_leaves_python(mutation: Mutation) -> None:
    assert mutation.source.count(mutation.old) == 1
    broken = mutation.source.replace(mutation.old, mutation.new)
    assert ast.dump(ast.parse(broken)) != ast.dump(ast.parse(mutation.source))
    assert all((ROOT / "tests" / "trainables" / file).is_file() for file in mutation.tests.split())


def test_names_are_different() -> None:
    names = [(m.file, m.name) for m in MUTATIONS]
    assert len(set(names)) == len(names)
