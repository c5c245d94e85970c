"""The documentation names files, modules, commands and options that exist, and keeps to its width."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import vistudy
from vistudy.study.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("clusters/*/*.md")]
)
RECORDED = ROOT / "docs" / "results" / "claim-anchor"
"""Reports of a study as they were written then."""
CURRENT = [page for page in PAGES if RECORDED not in page.parents and page.name != "CHANGELOG.md"]
GENERATED = ("study-file.md", "export.md")

FOLDERS = "docs|study|trainables|analysis|clusters|benchmarks|tests"
PLACEHOLDERS = {"study/recipes/NAME.yaml"}
CODE = re.compile(r"```.*?```|`[^`]+`", re.DOTALL)
REPLACED = (
    "goes another way",
    "The ratios grow with the study",
    "Running again goes on",
    "than this multiple of those of the one before",
    "is what is gone on from",
    "a mistake is found also in what is not there",
    "takes the process with it",
    "sign of life",
    "signs of life",
    "is judged again",
    "is left out by a stated rule",
    "one line a problem",
    "can write what it likes",
    "one that watched an interruption",
    "keep their bits",
    "nothing vouches for",
    "an MLflow that is away",
    "are for looking only",
    "gets further",
    "searches worth typing",
    # words of the command line that have been replaced
    "--yes",
    "--hang-after",
    "--alone",
    "vistudy replay",
    "vistudy jobs",
    "vistudy logs",
    "vistudy stop",
    "cluster settings",
    "first_there",
)
"""Phrases and words that have been replaced, and must not come back."""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text(page: Path) -> str:
    return page.read_text("utf-8")


def code(page: Path) -> str:
    """Code spans and code blocks, with lines that end in a backslash joined."""
    return "\n".join(CODE.findall(text(page))).replace("\\\n", " ")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text(page))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_anchors_resolve(page):
    def anchors(target: Path) -> set[str]:
        headings = re.findall(r"^#+ (.*)$", text(target), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    links = re.findall(r"\]\(([^)#\s:]*)#([^)]+)\)", text(page))
    targets = [(page.parent / file if file else page, anchor) for file, anchor in links]
    assert [(target.name, anchor) for target, anchor in targets if anchor not in anchors(target)] == []


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_paths_exist(page):
    present = re.sub(r"`[\w./-]+`\s+at\s+commit\s+[0-9a-f]{7}", "", text(page))  # what the history holds
    files = set(re.findall(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./-]*\.(?:py|md|yaml|json|csv|sh)\b", present))
    folders = set(re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", present))
    assert sorted(path for path in (files | folders) - PLACEHOLDERS if not (ROOT / path.rstrip("/")).exists()) == []


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_modules_exist(page):
    inside = set(re.findall(r"\bvistudy\.(?:study|analysis|trainables|clusters)(?:\.\w+)+", code(page)))
    run = set(re.findall(r"python -m ([\w.]+)", code(page))) - {"venv", "pytest"}
    assert sorted(module for module in inside | run if not found(module)) == []


def found(dotted: str) -> bool:
    """Whether this is a module, or an attribute of one."""
    module, _, attribute = dotted.rpartition(".")
    try:
        if importlib.util.find_spec(dotted):
            return True
    except ModuleNotFoundError:
        pass
    try:
        return hasattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, ValueError):
        return False


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_public_names_exist(page):
    imported = re.findall(r"^from vistudy import (.+)$", code(page), re.MULTILINE)
    names = {each.strip() for line in imported for each in line.split(",")}
    names |= set(re.findall(r"\bvs\.(\w+)", code(page)))
    assert sorted(names - set(vistudy.__all__)) == []


def commands(page: Path) -> Iterator[tuple[str, set[str]]]:
    """Each `vistudy COMMAND` in code, with the options that follow it on the line."""
    for line in code(page).splitlines():
        for use in re.findall(r"(?<!import )(?<!from )\bvistudy +[a-z].*", line):
            words = use.partition("#")[0].partition("`")[0].split()[1:]
            yield " ".join(words[:2]), {word.partition("=")[0] for word in words if word.startswith("--")}


def test_commands_and_options_exist() -> None:
    unknown = []
    for page in CURRENT:
        for words, options in commands(page):
            command: Any = typer.main.get_command(app)
            for word in words.split():
                if hasattr(command, "commands"):
                    command = command.commands.get(word)
            if command is None:
                unknown.append(f"{name(page)}: {words}")
                continue
            known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
            unknown += [f"{name(page)}: {words} {option}" for option in sorted(options - known)]
    assert unknown == []


@pytest.mark.parametrize("page", [page for page in CURRENT if page.name not in GENERATED], ids=name)
def test_lines_are_not_too_long(page):
    prose = re.sub(r"^```.*?^```$", "", text(page), flags=re.DOTALL | re.MULTILINE)
    long = [line for line in prose.splitlines() if len(line) > 120 and not line.startswith("|") and "](" not in line]
    assert long == []


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_replaced_phrases_are_gone(page):
    flat = re.sub(r"\s+", " ", text(page))
    assert [phrase for phrase in REPLACED if phrase.lower() in flat.lower()] == []


def test_the_readme_fits_on_a_page_and_leads_on() -> None:
    readme = text(ROOT / "README.md")
    assert len(readme.splitlines()) <= 100
    assert "](docs/study-file.md)" in readme
    listed = text(ROOT / "docs" / "README.md")
    pages = sorted(page.name for page in ROOT.glob("docs/*.md") if page.name != "README.md")
    assert [page for page in pages if f"]({page})" not in listed] == []
