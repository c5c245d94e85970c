"""Decide a claim from an arm table: per block, per class and overall, with predictions and registration.

`rule` holds the decision rule, `decide_block` applies it to one block, `pooling` combines blocks; `docs/verdict.md`
explains them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from vistudy.analysis.estimates.risk_difference import holm
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.outcomes.label_study import StoreLike, StudyTrials, read_trials
from vistudy.analysis.outcomes.labels import OUTCOME_VERSION, RULES, Thresholds
from vistudy.analysis.tables.arm_table import load_arms
from vistudy.analysis.tables.doses import with_doses
from vistudy.analysis.verdict.decide_block import conclude, decide_block
from vistudy.analysis.verdict.decision import Decision
from vistudy.analysis.verdict.earlier_rule import earlier_block, earlier_group
from vistudy.analysis.verdict.pooling import group
from vistudy.analysis.verdict.predictions import BlockDecisions, check_predictions
from vistudy.analysis.verdict.registration import ROOM, registration_status
from vistudy.analysis.verdict.results import (
    DESCRIPTIVE,
    NEGATIVE,
    PLACEBO,
    PRIMARY,
    REFUSED,
    BlockVerdict,
    GroupVerdict,
)
from vistudy.analysis.verdict.wording import block_sentence, warnings

DEFAULTS: dict[str, Any] = {
    "id": "", "question": "", "slower": (), "tuned": None, "positive_control": None, "negative_controls": (),
    "sesoi": 0.08, "margin": 0.08, "alpha": 0.05, **ROOM, "strong_margin": 0.05,
    "best_of": 20, "thresholds": {}, "predictions": (),
}  # fmt: skip
"""Defaults of a claim."""
WRITTEN_BY_1 = {"window_share", "window_min", "tau_ok", "tau_bad", "converged_share"}
"""Thresholds that every claim written under version 1 of the outcome rules lists; `end_min` came with version 2."""
NEEDED = ("block", "family", "class", "arm", "config", "seed", "trial_id", "state", "outcome", "stable", "q", "q_final")


def decide_study(store: StoreLike, study: str = "") -> Decision:
    """Decide the claim of a study in a store, under the claim's own thresholds.

    Raises:
        StudyError: the study has no claim, or as `load_arms` and `decide`.
    """
    trials = read_trials(store, study)
    claim = claim_of(trials)
    table = with_doses(load_arms(trials, thresholds=thresholds_of(claim)), trials)
    return decide(table, claim, trials.registrations)


def claim_of(trials: StudyTrials) -> dict[str, Any]:
    """Return the claim of a study's plan. Raises StudyError if it has none."""
    if "claim" not in trials.plan:
        raise StudyError(
            f"study {trials.study!r} has no claim, so there is nothing to decide: "
            "add `claim` to the study file (docs/verdict.md) and run `vistudy run` again."
        )
    claim: dict[str, Any] = DEFAULTS | trials.plan["claim"]
    return claim


def thresholds_of(claim: Mapping[str, Any]) -> Thresholds:
    """Return the thresholds of a claim. A claim written under version 1 of the outcome rules keeps that version."""
    stated = claim["thresholds"]
    rules = RULES[1] if stated.keys() >= WRITTEN_BY_1 and "end_min" not in stated else Thresholds()
    try:
        return dataclasses.replace(rules, **stated)
    except TypeError as error:
        raise StudyError(f"claim: thresholds: {error}") from None


def _earlier_outcomes(claim: Mapping[str, Any]) -> list[str]:
    version = thresholds_of(claim).version
    if version == OUTCOME_VERSION:
        return []
    return [
        f"The claim was written under version {version} of the outcome rules, and trials are labelled by it here; "
        f"exports and reports show those of version {OUTCOME_VERSION}."
    ]


def decide(
    table: pd.DataFrame,
    claim: Mapping[str, Any],
    registrations: Sequence[Mapping[str, Any]] = (),
    *,
    draws: int = 100_000,
) -> Decision:
    """Decide a claim from an arm table.

    Args:
        table: arm table of `load_arms`; its `attrs` say how blocks were sampled.
        claim: as in `plan.json`; at least `baseline` and `treatment`.
        registrations: oldest first, as `Ledger.registrations`.
        draws: number of resamples of the sign-flip test and the bootstrap, where they are not exact.

    Raises:
        StudyError: the table lacks a column, or no block has an arm or block that the claim names.
    """
    claim = DEFAULTS | dict(claim)
    _check(table, claim)
    attributes, plan = table.attrs, table.attrs.get("blocks", {})
    pilots = attributes.get("pilots", {})
    declared = {name: {**block, "pilot_trials": pilots.get(name, {})} for name, block in plan.items()}
    table = table.assign(**{"class": table["class"].fillna("").astype(str)})
    table.attrs = {}  # pandas deep-copies them at every step
    registered = registration_status(registrations, claim, plan, attributes.get("first_ms"))
    both = registered.earlier_rule
    main = decide_blocks(table, claim, str(claim["treatment"]), declared, draws=draws, earlier=both)

    def decisions_on(arm: str) -> BlockDecisions:
        if arm == claim["treatment"]:
            return main
        return decide_blocks(table, claim, arm, declared, draws=draws, beside=False, earlier=both)

    checks = check_predictions(claim["predictions"], table, claim, decisions_on)
    overall = main.overall
    return Decision(
        study=str(attributes.get("study", "")),
        claim=dict(claim),
        verdict=overall.verdict if overall else REFUSED,
        sentence=_headline(main),
        registered=registered,
        blocks=main.blocks,
        classes=main.classes,
        overall=overall,
        predictions=checks,
        warnings=(*_earlier_outcomes(claim), *warnings(main.blocks)),
    )


def _check(table: pd.DataFrame, claim: Mapping[str, Any]) -> None:
    absent = [name for name in NEEDED if name not in table]
    if absent:
        raise StudyError(f"the arm table lacks the column{'s' * (len(absent) > 1)} {', '.join(absent)}; load it anew")
    for key in ("baseline", "treatment"):
        if not claim.get(key):
            raise StudyError(f"claim: `{key}` is not given; it must be the name of an arm")
    if claim["baseline"] == claim["treatment"]:
        raise StudyError(f"claim: arm {claim['baseline']} cannot be compared with itself")
    arms = _arms(table)
    named = {key: [claim[key]] for key in ("baseline", "treatment", "positive_control", "tuned") if claim[key]}
    named["slower"] = list(claim["slower"])
    for key, names in named.items():
        for name in names:
            if name not in arms:
                raise StudyError(f"claim: {key}: no block has an arm {name!r}; there are {', '.join(sorted(arms))}")
    blocks = {*table["block"], *table.attrs.get("blocks", {})}
    for name in claim["negative_controls"]:
        if name not in blocks:
            raise StudyError(f"claim: negative_controls: no block {name!r}; there are {', '.join(sorted(blocks))}")


def _arms(table: pd.DataFrame) -> set[str]:
    declared = table.attrs.get("blocks", {})
    return {*table["arm"], *(arm for block in declared.values() for arm in block.get("arms", {}))}


def decide_blocks(
    table: pd.DataFrame,
    claim: Mapping[str, Any],
    treatment: str,
    declared: Mapping[str, Mapping[str, Any]],
    *,
    draws: int = 100_000,
    beside: bool = True,
    earlier: bool = False,
) -> BlockDecisions:
    """Decide one treatment in every block that has both arms, then per class and over all primary blocks.

    `declared`: block -> its entry in the plan; `earlier`: apply the earlier rule, which did not ask for room, as well;
    other arguments as in `decide_block`.

    Raises:
        StudyError: no block has both arms.
    """
    both = {str(claim["baseline"]), treatment}
    decided = []
    for name in dict.fromkeys([*declared, *table["block"].astype(str)]):
        rows, of_plan = table[table["block"] == name], declared.get(name, {})
        if both <= ({*rows["arm"]} | {*of_plan.get("arms", {})}):
            role = role_of(name, rows, claim, treatment)
            decided.append(decide_block(name, rows, claim, treatment, role, of_plan, draws=draws, beside=beside))
    if not decided:
        raise StudyError(f"no block has both arms, {claim['baseline']} and {treatment}: there is nothing to compare")
    blocks = _with_holm(decided, claim)
    groups = []
    for block_class in dict.fromkeys(block.block_class for block in blocks):
        members = [block for block in blocks if block.block_class == block_class]
        roles = next(role for role in (PRIMARY, NEGATIVE, PLACEBO) if any(block.role == role for block in members))
        chosen = [block for block in members if block.role == roles]
        groups.append((f"class {block_class}" if block_class else "blocks without a class", chosen))
    primary = [block for block in blocks if block.role == PRIMARY]
    groups += [("all blocks of the claim", primary)] if primary else []
    verdicts = [group(name, members, table, claim) for name, members in groups]
    if earlier:
        blocks, verdicts = _earlier(blocks, groups, verdicts, table, claim, declared)
    overall = verdicts.pop() if primary else None
    return BlockDecisions(blocks=tuple(blocks), classes=tuple(verdicts), overall=overall)


def _earlier(
    blocks: Sequence[BlockVerdict],
    groups: Sequence[tuple[str, Sequence[BlockVerdict]]],
    verdicts: Sequence[GroupVerdict],
    table: pd.DataFrame,
    claim: Mapping[str, Any],
    declared: Mapping[str, Mapping[str, Any]],
) -> tuple[list[BlockVerdict], list[GroupVerdict]]:
    """Add the earlier rule's verdicts to blocks and groups."""
    by_block = {
        block.block: earlier_block(block, table[table["block"] == block.block], claim, declared.get(block.block, {}))
        for block in blocks
    }
    of_groups = [earlier_group(members, by_block, table, claim)[0] for _, members in groups]
    return (
        [dataclasses.replace(block, earlier=by_block[block.block][0]) for block in blocks],
        [dataclasses.replace(verdict, earlier=text) for verdict, text in zip(verdicts, of_groups, strict=True)],
    )


def role_of(name: str, rows: pd.DataFrame, claim: Mapping[str, Any], treatment: str) -> str:
    """Return a block's role: placebo if its term is inert in every trial or predicted to be identical."""
    treated = rows[rows["arm"] == treatment]
    inert = "inert" in treated and len(treated) > 0 and bool(treated["inert"].all())
    predicted = any(p["expect"] == "identical" and name in (p.get("blocks") or ()) for p in claim["predictions"])
    if inert or predicted:
        return PLACEBO
    return NEGATIVE if name in claim["negative_controls"] else PRIMARY


def _with_holm(blocks: Sequence[BlockVerdict], claim: Mapping[str, Any]) -> list[BlockVerdict]:
    """Correct the primary tests for multiplicity, conclude every block and write the sentences.

    A refused test counts with p = 1; a test without room counts like any other, since room depends on the data.
    """
    alpha = float(claim["alpha"])
    tested = [i for i, block in enumerate(blocks) if block.role == PRIMARY and block.verdict != DESCRIPTIVE]
    p_values = {i: d.p if (d := blocks[i].difference) is not None else 1.0 for i in tested}

    def adjusted(i: int, p: float | None = None) -> float | None:
        """Return Holm's p of a block, with `p` in place of its own."""
        if i not in p_values:
            return None
        of_all = p_values if p is None else p_values | {i: p}
        return dict(zip(tested, holm([of_all[j] for j in tested], alpha).adjusted, strict=True))[i]

    out = []
    for i, block in enumerate(blocks):
        ends = (block.bounds.low, block.bounds.high) if block.bounds is not None else ()
        concluded = conclude(block, adjusted(i), [adjusted(i, end.p) for end in ends], claim)
        out.append(dataclasses.replace(concluded, sentence=block_sentence(concluded, claim, len(tested))))
    return out


def _headline(decisions: BlockDecisions) -> str:
    if decisions.overall is None:
        return "No block tests the claim: all are controls or placebos."
    if len(decisions.classes) < 2:
        return decisions.overall.sentence
    each = "; ".join(f"{group.name}: {group.verdict}" for group in decisions.classes)
    return f"{decisions.overall.sentence} By class: {each}."


__all__ = ["DEFAULTS", "claim_of", "decide", "decide_blocks", "decide_study", "role_of", "thresholds_of"]
