"""Cells as text, and read back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vistudy.analysis.tables.columns import cell_levels, cell_tag


def test_levels_of_a_cell() -> None:
    assert cell_levels("batch_norm=true,ratio=1:2") == {"batch_norm": "true", "ratio": "1:2"}
    assert cell_levels("z_use=a,b,norm=bn") == {"z_use": "a,b", "norm": "bn"}
    assert cell_levels("") == {}


NAMES = st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True)
LEVELS = st.one_of(st.booleans(), st.integers(), st.floats(), st.text("ab:.-, "), st.text("=1:.-, "))


@given(st.dictionaries(NAMES, LEVELS))
def test_a_cell_is_read_back_whatever_its_levels(cell: dict[str, bool | int | float | str]) -> None:
    assert cell_levels(cell_tag(cell)) == {name: cell_tag({"x": level})[2:] for name, level in sorted(cell.items())}
