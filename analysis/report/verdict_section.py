"""The verdict as a report shows it: what is said first, a table of blocks, the predictions one by one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.report.tables import Table
from vistudy.analysis.tables.formatting import p_text, points
from vistudy.analysis.verdict.decide import decide
from vistudy.analysis.verdict.decision import Decision, block_sentences, dose_rows, earlier_rows, factor_rows
from vistudy.analysis.verdict.results import BlockVerdict, meaning


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What is said first, and on what it rests."""

    headline: str
    lines: tuple[str, ...]
    items: tuple[str, ...]
    """On classes; warnings."""
    decided: bool
    tables: tuple[Table, ...]
    blocks: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(block, its sentence, notes on it)."""


def view(table: pd.DataFrame, claim: Mapping[str, Any] | None, registrations: tuple[dict[str, Any], ...]) -> View:
    """Decide a claim and put the decision into words; without a claim, say that nothing is decided.

    `table` is that of `load_arms`, with its `attrs`.
    """
    if claim is None:
        lines = ("To decide something, state it before the run: a claim in the study file, then vistudy register.",)
        headline = "No claim was stated: this report describes and decides nothing."
        return View(headline=headline, lines=lines, items=(), decided=False, tables=(), blocks=())
    try:
        decision = decide(table, claim, registrations)
    except StudyError as error:
        return View(headline="Refused.", lines=(str(error),), items=(), decided=False, tables=(), blocks=())
    return _decided(decision)


def _decided(decision: Decision) -> View:
    tables = [_block_table(decision), _strata_table(decision), _dose_table(decision), _earlier_table(decision)]
    tables += [_prediction_table(decision)] if decision.predictions else []
    headline = f"{decision.verdict[:1].upper()}{decision.verdict[1:]}"
    return View(
        headline=f"{headline}.",
        lines=(minus(decision.sentence), decision.registered.sentence, *_borne_out(decision)),
        items=(
            *(decision.overall.notes if decision.overall else ()),
            *(minus(group.sentence) for group in decision.classes),
            *decision.warnings,
        ),
        decided=True,
        tables=tuple(table for table in tables if table.rows),
        blocks=tuple(
            (block.block, minus(block.sentence), tuple(map(minus, block_sentences(block)))) for block in decision.blocks
        ),
    )


def _block_table(decision: Decision) -> Table:
    head = (
        "block",
        "class",
        "role",
        "verdict",
        "difference, points",
        "interval",
        "p (Holm)",
        "configurations",
        "pairs",
    )
    rows, numbers = [], []
    for block in decision.blocks:
        d = block.difference
        p = None if d is None else d.p if block.p_holm is None else block.p_holm
        cells = (block.block, block.block_class, block.role, block.verdict)
        if d is None or p is None:
            rows.append((*cells, "–", "–", "–", "–", "–"))
        else:
            interval = minus(f"{points(d.low)} to {points(d.high)}")
            rows.append((*cells, minus(points(d.estimate)), interval, p_text(p), f"{d.n_configs:,}", f"{d.n_pairs:,}"))
        numbers.append({
            "block": block.block, "family": block.family, "class": block.block_class, "role": block.role,
            "treatment": block.treatment, "baseline": block.baseline, "verdict": block.verdict,
            "difference": d and d.estimate, "low": d and d.low, "high": d and d.high, "p": d and d.p,
            "p_holm": block.p_holm, "n_configs": d and d.n_configs, "n_pairs": d and d.n_pairs,
            "share_treatment": d and d.share_treatment, "share_baseline": d and d.share_baseline,
            "rescued": d and d.rescued, "broken": d and d.broken, "reasons": "; ".join(block.reasons),
            "stable_treatment": d and d.stable_treatment, "stable_baseline": d and d.stable_baseline,
            "room": block.room and block.room.informative, "odds_ratio": block.odds and block.odds.estimate,
            "odds_low": block.odds and block.odds.low, "odds_high": block.odds and block.odds.high,
            "q_shift": block.q_shift and block.q_shift.estimate, "q_low": block.q_shift and block.q_shift.low,
            "q_high": block.q_shift and block.q_shift.high, "q_p": block.q_shift and block.q_shift.p,
        })  # fmt: skip
    verdicts = dict.fromkeys(block.verdict for block in decision.blocks)
    return Table(
        name="verdicts", title="Verdict by block", head=head, rows=tuple(rows), frame=pd.DataFrame(numbers),
        numeric=(False, False, False, False, True, True, True, True, True),
        note=" ".join(f"{name[:1].upper()}{name[1:]}: {meaning(name)}." for name in verdicts),
    )  # fmt: skip


def _strata_table(decision: Decision) -> Table:
    rows, numbers = [], []
    for block in decision.blocks:
        for (stratum, *cells), each in zip(factor_rows(block.factors)[1:], _strata(block), strict=True):
            rows.append((block.block, stratum, *map(minus, cells)))
            numbers.append({"block": block.block, **each})
    return Table(
        name="strata", title="Differences by stratum", head=("block", *factor_rows(())[0]), rows=tuple(rows),
        frame=pd.DataFrame(numbers), numeric=(False, False, *[True] * 6),
        note="Is the effect the same everywhere in the box? The learning rate is halved at the middle of its "
        "range; the test permutes configurations, p after Holm's correction over the factors of a block.",
    )  # fmt: skip


def _strata(block: BlockVerdict) -> list[dict[str, Any]]:
    return [
        {"factor": factor.name, "p": factor.p, "p_holm": factor.p_holm} | dataclasses.asdict(stratum)
        for factor in block.factors
        for stratum in factor.strata
    ]


def _dose_table(decision: Decision) -> Table:
    doses = [(block.block, dose) for block in decision.blocks for dose in block.doses]
    rows = [(block, *cells) for block, dose in doses for cells in dose_rows([dose])[1:]]
    return Table(
        name="doses", title="How much the term did", head=("block", *dose_rows(())[0]), rows=tuple(rows),
        frame=pd.DataFrame([{"block": block} | dataclasses.asdict(dose) for block, dose in doses]),
        numeric=(False, False, True, True, True),
        note="rho: gradient norm of the term over that of the loss. drift: mean squared change of the samples in a "
        "period. A control whose rho is about 0 could not have failed.",
    )  # fmt: skip


def _earlier_table(decision: Decision) -> Table:
    head, *rows = earlier_rows(decision) if decision.registered.earlier_rule else [("", "", "", "")]
    return Table(
        name="rules", title="By the earlier rule, under which it was registered", head=tuple(head),
        rows=tuple(map(tuple, rows)), numeric=(False,) * 4,
        frame=pd.DataFrame(rows, columns=["of", "earlier", "present", "differs"]),
        note="The earlier rule asked neither for room nor for edges of the box, and pooled configurations.",
    )  # fmt: skip


def _prediction_table(decision: Decision) -> Table:
    head = ("prediction", "where", "expected", "found", "borne out", "")
    holds = {True: "yes", False: "no", None: "not checked"}
    checks = decision.predictions
    rows = tuple((c.id, c.scope, c.expected, c.found, holds[c.holds], minus(c.figures)) for c in checks)
    names = ("id", "scope", "expected", "found", "holds", "figures", "sentence")
    return Table(
        name="predictions", title="Predictions", head=head, rows=rows, numeric=(False,) * 6,
        frame=pd.DataFrame([{name: getattr(c, name) for name in names} for c in checks]),
        note="Stated with the claim. Not checked: what it is about has no verdict.",
    )  # fmt: skip


def _borne_out(decision: Decision) -> list[str]:
    """How the predictions fared, in a line."""
    words_of = {True: "borne out", False: "not borne out", None: "not checked"}
    groups = [(words, [c.id for c in decision.predictions if c.holds is holds]) for holds, words in words_of.items()]
    parts = [f"{words} {', '.join(ids)}" for words, ids in groups if ids]
    return [f"Predictions: {'; '.join(parts)}."] if parts else []


def minus(words: str) -> str:
    """Text whose negative numbers have a minus sign instead of a hyphen."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", words)
