"""Every relative link in the documentation leads to a file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    relative = [link for link in links if "://" not in link]
    missing = [link for link in relative if not (page.parent / link).exists()]
    assert not missing
    code = re.findall(
        r"`((?:docs|study|trainables|analysis|clusters|benchmarks|tests)/[\w./-]+)`", page.read_text("utf-8")
    )
    assert not [name for name in code if not (ROOT / name.rstrip("/")).exists()]


def test_there_are_pages_and_links():
    assert len(PAGES) > 10
    assert "](docs/study-file.md)" in (ROOT / "README.md").read_text("utf-8")
