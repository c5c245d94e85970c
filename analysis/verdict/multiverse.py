"""Check whether other thresholds would change the verdict: the rule over a grid of analyses, from stored records."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vistudy.analysis.estimates.risk_difference import holm
from vistudy.analysis.outcomes.label_study import StoreLike, read_trials
from vistudy.analysis.outcomes.relabel import StabilityByThreshold
from vistudy.analysis.tables.arm_table import load_arms
from vistudy.analysis.tables.formatting import percent
from vistudy.analysis.verdict.decide import DEFAULTS, claim_of, role_of, thresholds_of
from vistudy.analysis.verdict.multiverse_pairs import TRIMMED, WHOLE, Found, RelabelledPairs, comparisons
from vistudy.analysis.verdict.results import PLACEBO, PRIMARY
from vistudy.analysis.verdict.wording import is_grid

TAU_OK = (0.15, 0.25, 0.35)
"""Thresholds of Q at or below which an evaluation is good."""
WINDOW = (0.15, 0.25, 0.35)
"""Final window, as a share of the evaluations."""
PERSISTENCE = (3, 5)
"""Persistence W, in evaluations."""
LAST, BEST = "last window", "best so far"
ENDPOINTS = (LAST, BEST)
BOXES = (WHOLE, TRIMMED)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockVariants:
    """One block under all variants of the analysis."""

    block: str
    treatment: str
    verdict: str
    """Verdict under the claim's own thresholds."""
    variants: int
    same: int
    """Number of variants with that verdict."""
    counts: dict[str, int]
    """Verdict -> number of variants."""
    other_weights: dict[str, int]
    """Verdict -> number of variants with arms that differ from the treatment only in `reg_weight`."""
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Multiverse:
    """The decision rule under every combination of thresholds."""

    study: str
    blocks: tuple[BlockVariants, ...]
    share: float
    """Share of the treatment's variants with their block's own verdict; NaN without blocks."""
    table: pd.DataFrame
    """One row per variant: block, treatment, tau_ok, window, persistence, endpoint, box, estimate, low, high, verdict,
    same."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, with the rows of the table as `variants`."""
        blocks = [dataclasses.asdict(block) for block in self.blocks]
        rows = [
            {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
            for row in self.table.to_dict("records")
        ]
        share = None if math.isnan(self.share) else self.share
        return {"study": self.study, "share": share, "blocks": blocks, "variants": rows}

    def to_markdown(self) -> str:
        """Return the sentences, one per block."""
        head = (
            f"In {percent(self.share)} of the variants a block's verdict is the same." if self.blocks else "No block."
        )
        return "\n".join([head, "", *(f"- {block.sentence}" for block in self.blocks)]) + "\n"


def multiverse_check(
    store: StoreLike,
    study: str = "",
    claim: Mapping[str, Any] | None = None,
    table: pd.DataFrame | None = None,
) -> Multiverse:
    """Decide every block for all of TAU_OK x WINDOW x PERSISTENCE x ENDPOINTS x BOXES, and for other weights.

    The rule is that of the verdict, with its correction for the number of blocks; strata and missing trials are not
    reconsidered. Labels are blind to arms: every trial is labelled before arms are compared. The best Q so far does not
    depend on the window; all three windows count, as in the full product. Blocks that cannot be trimmed have one search
    space; placebos and blocks that cannot be decided have none.

    Args:
        store: the store, or the result of `read_trials`.
        study: its name in the store.
        claim: as in `plan.json`; None: the plan's.
        table: arm table under the claim's thresholds, if already loaded: labelling takes time.

    Raises:
        StudyError: the study has no claim, or as `load_arms`.
    """
    trials = read_trials(store, study)
    claim = claim_of(trials) if claim is None else DEFAULTS | dict(claim)
    base = thresholds_of(claim)
    table = load_arms(trials, thresholds=base) if table is None else table.copy(deep=False)
    declared = table.attrs["blocks"]
    table.attrs = {}
    roles = {
        str(name): role_of(str(name), rows, claim, str(claim["treatment"])) for name, rows in table.groupby("block")
    }
    views = [
        view
        for name, rows in table.groupby("block", sort=False)
        if roles[str(name)] != PLACEBO
        for view in comparisons(rows.reset_index(drop=True), claim, declared[str(name)])
    ]
    tested = [view for view in views if view.treatment == claim["treatment"] and roles[view.block] == PRIMARY]
    arms = {str(claim["baseline"]), str(claim["treatment"])}
    planned = [
        name
        for name, role in roles.items()
        if role == PRIMARY and arms <= {*declared[name]["arms"]} and not is_grid(declared[name])
    ]
    n_untested, alpha = len(planned) - len(tested), float(claim["alpha"])

    def verdicts(results: Mapping[RelabelledPairs, Found]) -> list[str]:
        """Return verdicts after Holm's correction over the primary blocks."""
        of_tests = [results[view].p for view in tested if view in results]
        adjusted = iter(holm([*of_tests, *[1.0] * n_untested], alpha).adjusted)
        p_values = {view: next(adjusted) for view in tested if view in results}
        return [view.verdict(result, p_values.get(view, result.p)) for view, result in results.items()]

    own = verdicts({view: view.find(view.stable, WHOLE) for view in views})
    results_: list[dict[str, Any]] = []
    relabelled = StabilityByThreshold(trials, base) if views else None
    for (tau, window, persistence), endpoint, box in itertools.product(
        itertools.product(TAU_OK, WINDOW, PERSISTENCE), ENDPOINTS, BOXES
    ):
        if relabelled is None:
            break
        variant = dataclasses.replace(
            base, tau_ok=tau, window_share=window, persistence_share=0.0, persistence_min=persistence
        )
        labels = relabelled.stable(variant)[ENDPOINTS.index(endpoint)]
        results = {view: view.find(view.relabel(labels), box) for view in views if box in view.boxes}
        for (view, result), verdict in zip(results.items(), verdicts(results), strict=True):
            results_.append({
                "block": view.block, "treatment": view.treatment, "tau_ok": tau, "window": window,
                "persistence": persistence, "endpoint": endpoint, "box": box, "estimate": result.estimate,
                "low": result.low, "high": result.high, "verdict": verdict, "same": verdict == own[views.index(view)],
            })  # fmt: skip
    columns = ["block", "treatment", "tau_ok", "window", "persistence", "endpoint", "box", "estimate", "low", "high",
               "verdict", "same"]  # fmt: skip
    rows = pd.DataFrame(results_, columns=columns)
    return _summary(trials.study, claim, views, own, rows)


def _summary(
    study: str, claim: Mapping[str, Any], views: Sequence[RelabelledPairs], own: Sequence[str], rows: pd.DataFrame
) -> Multiverse:
    blocks = []
    for view, string in zip(views, own, strict=True):
        if view.treatment != claim["treatment"]:
            continue
        rows_of_view = rows[(rows["block"] == view.block) & (rows["treatment"] == view.treatment)]
        others = rows[(rows["block"] == view.block) & (rows["treatment"] != view.treatment)]
        counts = dict(Counter(rows_of_view["verdict"].tolist()).most_common())
        same, n = counts.get(string, 0), len(rows_of_view)
        rest = ", ".join(f"{name} {count}" for name, count in counts.items() if name != string)
        sentence = f"{view.block}: '{string}' in {same} of {n} variants ({percent(same / n)})"
        sentence += f"; otherwise {rest}" if rest else ""
        weights = dict(Counter(others["verdict"].tolist()).most_common())
        if weights:
            listed = ", ".join(f"{name} {count}" for name, count in weights.items())
            sentence += f". With other weights ({', '.join(others['treatment'].unique())}): {listed}"
        blocks.append(
            BlockVariants(
                block=view.block,
                treatment=view.treatment,
                verdict=string,
                variants=n,
                same=same,
                counts=counts,
                other_weights=weights,
                sentence=f"{sentence}.",
            )
        )
    total = sum(block.variants for block in blocks)
    share = sum(block.same for block in blocks) / total if total else float("nan")
    return Multiverse(study=study, blocks=tuple(blocks), share=share, table=rows)
