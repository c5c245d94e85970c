"""Breaks the mathematics on purpose and says which tests notice: `python -m tests.mutations [WORD ...]`.

Each mutation of mutations.yaml changes one line of a loss, a term, an anchor, a model or a metric in memory (no file is
touched) and runs the tests that know the answer, in a process of its own. One that no test notices has survived: exit
code 1. WORDs choose mutations whose file or name has them; --all lists every test that fails, not only the first.
It takes ten minutes, so CI only checks that every mutation still fits the code (test_mutations.py).
"""

from __future__ import annotations

import argparse
import importlib.machinery
import io
import multiprocessing
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutation:
    """One line that is broken, and the tests that should notice."""

    name: str
    file: str
    """Below the repository."""
    old: str
    """Occurs once in the file."""
    new: str
    tests: str
    """Test files, below tests/trainables."""

    @property
    def source(self) -> str:
        """The file's text as it is."""
        return (ROOT / self.file).read_text("utf-8")


def _read() -> list[Mutation]:
    groups = YAML(typ="safe", pure=True).load((ROOT / "tests" / "mutations.yaml").read_text("utf-8"))
    return [
        Mutation(file=f"trainables/{group['file']}", tests=group["tests"], **mutation)
        for group in groups
        for mutation in group["mutations"]
    ]


MUTATIONS = _read()


def _broken(mutation: Mutation) -> None:
    """From here on this process imports the broken text of the file; nothing is read from or written to a cache."""
    path, text = str(ROOT / "vistudy" / mutation.file), mutation.source
    get_code, code = importlib.machinery.SourceFileLoader.get_code, text.replace(mutation.old, mutation.new)

    def get(self: importlib.machinery.SourceFileLoader, name: str) -> Any:
        return compile(code, path, "exec") if self.get_filename(name) == path else get_code(self, name)

    importlib.machinery.SourceFileLoader.get_code = get  # type: ignore[method-assign]


class _Noted:
    """Collects the names of failed tests."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid.rsplit("/", 1)[-1])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(f"{report.nodeid} (cannot be imported)")


def run(mutation: Mutation, every: bool, answer: Any) -> None:
    """In the child: break, test, send the failed tests."""
    _broken(mutation)
    noted = _Noted()
    files = [str(ROOT / "tests" / "trainables" / file) for file in mutation.tests.split()]
    with redirect_stdout(io.StringIO()):
        pytest.main([*files, "-q", "-p", "no:cacheprovider", *([] if every else ["-x"])], plugins=[noted])
    answer.send(noted.failed)


def main(argv: list[str] | None = None) -> int:
    """Run the chosen mutations and print what noticed each."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--all", action="store_true", help="List every test that fails.")
    args = parser.parse_args(argv)
    import sklearn.mixture  # noqa: F401  (once, before the children are forked; nothing of ours is imported here)
    import torch  # noqa: F401

    survived, fork = 0, multiprocessing.get_context("fork")
    chosen = [m for m in MUTATIONS if not args.words or any(word in f"{m.file} {m.name}" for word in args.words)]
    for mutation in chosen:
        ours, theirs = fork.Pipe(duplex=False)
        child = fork.Process(target=run, args=(mutation, args.all, theirs))
        child.start()
        theirs.close()
        failed = ours.recv()
        child.join()
        survived += not failed
        print(f"{mutation.file}: {mutation.name}: {', '.join(failed) or 'SURVIVED'}", flush=True)
    print(f"{len(chosen)} mutations, {survived} survived")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
