from __future__ import annotations

import json

import pytest

from benchmarks.engine import RESULTS
from benchmarks.engine_figure import NETS, figure


@pytest.mark.parametrize("name", ["engine-cpu-2026-11-27", "engine-cuda-2026-11-27"])
def test_panels_hold_what_was_measured(name):
    result = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    axes = figure([result]).axes
    assert len(axes) == len(result["rows"])
    for ax in axes:
        net, precision = ax.get_title(loc="left").rsplit(", ", 1)
        (key,) = (key for key, text in NETS.items() if text == net)
        row = result["rows"][f"{key}, {precision}"]
        drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
        for label, part in (("vistudy", "ours"), ("HFTA-style array", "d")):
            assert drawn[label] == [[r["trials"], r["trial_updates_per_s"]] for r in row[part]]
        assert drawn["plain loop, one trial"][0][1] == row["a"]["trial_updates_per_s"]
