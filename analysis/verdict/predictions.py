"""Check the predictions of a claim one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vistudy.analysis.estimates.risk_difference import Difference
from vistudy.analysis.tables.formatting import points
from vistudy.analysis.verdict.controls import compare_bitwise
from vistudy.analysis.verdict.results import (
    DIFFERENT,
    IDENTICAL,
    MORE,
    OLDER,
    PREDICTION_NAMES,
    REFUSED,
    SILENT,
    WITHIN,
    BlockVerdict,
    GroupVerdict,
    Pooled,
    PredictionCheck,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockDecisions:
    """Decisions for one treatment: all blocks, classes and overall."""

    blocks: tuple[BlockVerdict, ...]
    classes: tuple[GroupVerdict, ...]
    overall: GroupVerdict | None


def check_predictions(
    predictions: Sequence[Mapping[str, Any]],
    table: pd.DataFrame,
    claim: Mapping[str, Any],
    decide: Callable[[str], BlockDecisions],
) -> tuple[PredictionCheck, ...]:
    """Compare each prediction with the results. `decide`: treatment -> its decisions."""
    checks = []
    for prediction in predictions:
        treatment = str(prediction.get("treatment") or claim["treatment"])
        check = _identical if prediction["expect"] == IDENTICAL else _verdict
        checks.append(check(prediction, table, claim, treatment, decide(treatment)))
    return tuple(checks)


def scope_text(prediction: Mapping[str, Any], treatment: str, claim: Mapping[str, Any]) -> str:
    """Describe the scope of a prediction."""
    blocks, block_class = prediction.get("blocks"), prediction.get("class")
    where = f"class {block_class}" if block_class else ", ".join(blocks) if blocks else "all blocks"
    return where if treatment == claim["treatment"] else f"{where}, arm {treatment}"


SAID = {True: "borne out", False: "not borne out", None: "could not be checked"}


def _result(
    prediction: Mapping[str, Any], scope: str, verdicts: str, holds: bool | None, figures: str, before: str = ""
) -> PredictionCheck:
    expected = OLDER.get(str(prediction["expect"]), str(prediction["expect"]))
    sentence = f"{prediction['id']} ({scope}: {expected}): {SAID[holds]}. Found: {figures}.{before}"
    return PredictionCheck(
        id=str(prediction["id"]), scope=scope, expected=expected, found=verdicts, holds=holds, figures=figures,
        sentence=sentence,
    )  # fmt: skip


def _figures(name: str, verdict: str, difference: Difference | Pooled | None) -> str:
    if difference is None:
        return f"{name} {verdict}"
    interval = f"{points(difference.low)} to {points(difference.high)}"
    return f"{name} {verdict} ({points(difference.estimate)} points, {interval})"


def _verdict(
    prediction: Mapping[str, Any],
    table: pd.DataFrame,
    claim: Mapping[str, Any],
    treatment: str,
    decisions: BlockDecisions,
) -> PredictionCheck:
    scope = scope_text(prediction, treatment, claim)
    results: list[tuple[str, str, Difference | Pooled | None]]
    if prediction.get("blocks"):
        of_blocks = [block for block in decisions.blocks if block.block in prediction["blocks"]]
        results = [(block.block, block.verdict, block.difference) for block in of_blocks]
        absent = [name for name in prediction["blocks"] if name not in {block.block for block in of_blocks}]
        results += [(name, REFUSED, None) for name in absent]
        earlier = [block.earlier for block in of_blocks]
    else:
        name = f"class {prediction['class']}" if prediction.get("class") else None
        groups = [group for group in (decisions.classes if name else (decisions.overall,)) if group is not None]
        groups = [group for group in groups if name is None or group.name == name]
        results = [(group.name, group.verdict, group.pooled) for group in groups]
        earlier = [group.earlier for group in groups]
    if not results:
        return _result(prediction, scope, REFUSED, None, f"no block has arms {claim['baseline']} and {treatment}")
    short = {PREDICTION_NAMES.get(verdict, verdict) for _, verdict, _ in results}
    holds = _holds(short, str(prediction["expect"]))
    before = ""
    if (
        all(earlier)
        and (earlier_holds := _holds({PREDICTION_NAMES.get(text, text) for text in earlier}, str(prediction["expect"])))
        != holds
    ):
        before = f" By the earlier rule: {SAID[earlier_holds]} ({', '.join(dict.fromkeys(earlier))})."
    figures = "; ".join(_figures(*result) for result in results)
    return _result(prediction, scope, ", ".join(sorted(short)), holds, figures, before)


def _holds(verdicts: set[str], expect: str) -> bool | None:
    """Return whether verdicts are as expected: one that is known to differ decides; uninformative ones cannot."""
    expected = OLDER.get(expect, expect)
    same = {expected} | ({IDENTICAL, *OLDER} if expected == WITHIN else set())
    unknown = {*SILENT, DIFFERENT} | ({MORE} if expected == "supported" else set())
    if verdicts - same - unknown:
        return False
    return None if verdicts & unknown else True


def _identical(
    prediction: Mapping[str, Any],
    table: pd.DataFrame,
    claim: Mapping[str, Any],
    treatment: str,
    decisions: BlockDecisions,
) -> PredictionCheck:
    scope = scope_text(prediction, treatment, claim)
    names = prediction.get("blocks") or [
        name
        for name, block_class in table[["block", "class"]].drop_duplicates().itertuples(index=False)
        if prediction.get("class") in (None, block_class)
    ]
    compared = differing = missing = same = 0
    silent = []
    for name in names:
        identity = compare_bitwise(table[table["block"] == name], treatment, str(claim["baseline"]))
        compared, differing = compared + identity.n_pairs, differing + identity.differing
        missing, same = missing + identity.not_compared, same + identity.same_trial
        silent += [] if identity.n_pairs else [name]
    figures = f"{differing} of {compared} pairs differ in outcome, Q or an event time"
    figures += f"; {missing} pairs were not compared (a trial is missing or failed)" if missing else ""
    figures += f"; {same} pairs are one trial, trained once, and show nothing" if same else ""
    figures += f"; nothing to compare in {', '.join(silent)}" if silent else ""
    holds = False if differing else None if silent or missing else True
    return _result(prediction, scope, IDENTICAL if holds else "different" if differing else REFUSED, holds, figures)
