"""The packed engine against its peers, drawn: `python -m benchmarks.engine_figure RESULT.json ... --out FILE.png`.

A row of panels for each result of `benchmarks.engine`, a panel for each net and precision in it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from vistudy.analysis.figures.colours import GREY, INK, LINE, THEORY, share_colour

NETS = {
    "mlp-ring8": "MLP on the ring, 1:2",
    "mlp-ring8-bn": "MLP on the ring, batch norm",
    "mlp-ring8-ten": "MLP on the ring, 1:10",
    "dcgan-digits": "DCGAN 8x8, width 16",
    "dcgan-28": "DCGAN 28x28, width 32",
    "dcgan-64": "DCGAN 64x64, width 64",
}
OURS, ARRAY, PLAIN = share_colour(1), THEORY, GREY
PANEL = (2.6, 2.3)
"""Inches."""


def figure(results: list[dict[str, Any]]) -> Figure:
    """D updates of trials a second by the number of trials in a pack."""
    columns = max(len(result["rows"]) for result in results)
    figure_ = Figure(figsize=(PANEL[0] * columns, (PANEL[1] + 0.3) * len(results)), layout="constrained")
    FigureCanvasAgg(figure_)
    parts = figure_.subfigures(len(results), squeeze=False, hspace=0.06)[:, 0]
    for part, result in zip(parts, results, strict=True):
        device = result["device"].replace("(R)", "").removesuffix(" Processor")
        where = device if "NVIDIA" in device else f"One core of an {device}"
        part.suptitle(f"{where}, {result['date'][:10]}", x=0.01, ha="left", size=9, color=INK, weight="bold")
        axes = part.subplots(1, columns, squeeze=False)[0]
        rows = sorted(result["rows"].items(), key=lambda item: list(NETS).index(item[0].split(", ")[0]))
        for ax, (name, row) in zip(axes, rows, strict=False):
            _panel(ax, name, row)
        for ax in axes[len(rows) :]:
            ax.set_axis_off()
        axes[0].set_ylabel("D updates of trials\na second", size=7.5, color=INK)
    lines, labels = axes[0].get_legend_handles_labels()
    parts[0].legend(lines[::-1], labels[::-1], loc="upper right", ncols=3, frameon=False, fontsize=7.5, labelcolor=INK)
    figure_.supxlabel("trials in a pack", size=8, color=INK)
    return figure_


def _panel(ax: Axes, name: str, row: dict[str, Any]) -> None:
    net, precision = name.split(", ")
    ax.set_title(f"{NETS[net]}, {precision}", size=7.5, color=INK, loc="left")
    ax.axhline(
        row["a"]["trial_updates_per_s"], color=PLAIN, linewidth=1.2, linestyle=":", label="plain loop, one trial"
    )
    for label, key, colour, marker in (("HFTA-style array", "d", ARRAY, "s"), ("vistudy", "ours", OURS, "o")):
        points = [(r["trials"], r["trial_updates_per_s"]) for r in row[key]]
        ax.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4, linewidth=1.4, label=label)
    ax.set_xscale("log")
    ax.set_yscale("log")
    sizes = sorted({r["trials"] for r in row["ours"]})
    shown = sizes[::2] if len(sizes) > 4 else sizes
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_locator(NullLocator())
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlim(min(sizes) / 1.6, max(sizes) * 1.6)
    ax.margins(y=0.25)
    ax.tick_params(labelsize=6.8, colors=INK, length=2)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(LINE)


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    figure([json.loads(path.read_text("utf-8")) for path in args.results]).savefig(args.out, dpi=150)


if __name__ == "__main__":
    main()
