"""The decision on a claim, as JSON and as a page of Markdown."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vistudy.analysis.estimates.strata import Factor
from vistudy.analysis.tables.formatting import p_text, percent, points
from vistudy.analysis.verdict.results import BlockVerdict, Dose, GroupVerdict, PredictionCheck, RegistrationStatus
from vistudy.analysis.verdict.wording import beside_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Decision on a claim."""

    study: str
    claim: Mapping[str, Any]
    verdict: str
    """Decision on all primary blocks together."""
    sentence: str
    registered: RegistrationStatus
    blocks: tuple[BlockVerdict, ...]
    classes: tuple[GroupVerdict, ...]
    overall: GroupVerdict | None
    """None without a primary block."""
    predictions: tuple[PredictionCheck, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; non-finite numbers become null."""
        return {"verdict": self.verdict, **_plain(dataclasses.asdict(self))}

    def to_markdown(self) -> str:
        """Return a page; text of the study file is escaped."""
        return "\n".join(_lines(self)) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text(value: object) -> str:
    """Escape text for Markdown, table cells included."""
    escaped = html.escape(str(value), quote=False)
    for mark in "\\`*_[]|~":
        escaped = escaped.replace(mark, f"\\{mark}")
    return " ".join(escaped.split())


def block_sentences(block: BlockVerdict) -> list[str]:
    """Return the paragraphs below a block's sentence."""
    sentences = [*beside_text(block.odds, block.q_shift), *block.notes, *(each.sentence for each in block.slower)]
    return sentences + [part.sentence for part in (block.positive, block.strong, block.tuning) if part is not None]


def _lines(decision: Decision) -> list[str]:
    claim = decision.claim
    lines = [f"# Verdict: {text(claim.get('id', decision.study))}", ""]
    lines += [f"> {text(claim['question'])}", ""] if claim.get("question") else []
    lines += [f"**{text(decision.verdict)}.** {text(decision.sentence)}", ""]
    notes = decision.overall.notes if decision.overall else ()
    lines += [*(f"- {text(note)}" for note in notes), ""] if notes else []
    lines += [text(decision.registered.sentence), ""]
    lines += [f"- **{text(warning)}**" for warning in decision.warnings] + [""] * bool(decision.warnings)
    lines += ["## Classes", ""]
    for group in decision.classes:
        lines += [f"- {text(group.sentence)}", *(f"  - {text(note)}" for note in group.notes)]
    lines += ["", "## Blocks", "", *_table(_block_rows(decision)), ""]
    if decision.registered.earlier_rule:
        lines += ["## By the earlier rule, under which it was registered", "", *_table(earlier_rows(decision)), ""]
    for block in decision.blocks:
        lines += [f"### {text(block.block)}", "", text(block.sentence), ""]
        sentences = block_sentences(block)
        lines += [f"- {text(sentence)}" for sentence in sentences] + [""] * bool(sentences)
        lines += [*_table(factor_rows(block.factors)), ""] if block.factors else []
        lines += [*_table(dose_rows(block.doses)), ""] if block.doses else []
    if decision.predictions:
        lines += ["## Predictions", "", *(f"- {text(check.sentence)}" for check in decision.predictions), ""]
    return lines[:-1]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *rest = rows
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(map(text, row)) + " |" for row in rest]


def _block_rows(decision: Decision) -> list[Sequence[str]]:
    head = ("block", "class", "role", "verdict", "difference", "interval", "configurations", "pairs", "p (Holm)")
    rows: list[Sequence[str]] = [head]
    for block in decision.blocks:
        d = block.difference
        figures = ["", "", "", "", ""]
        if d is not None:
            p = d.p if block.p_holm is None else block.p_holm
            figures = [
                points(d.estimate),
                f"{points(d.low)} to {points(d.high)}",
                str(d.n_configs),
                str(d.n_pairs),
            ]
            figures += [p_text(p)]
        rows.append((block.block, block.block_class, block.role, block.verdict, *figures))
    return rows


def earlier_rows(decision: Decision) -> list[Sequence[str]]:
    """Return the results by the rule of the registration and by the current one, row by row."""
    groups = [*decision.classes, *([decision.overall] if decision.overall else [])]
    rows: list[Sequence[str]] = [("", "earlier rule", "present rule", "")]
    for name, before, now in [
        *((group.name, group.earlier, group.verdict) for group in reversed(groups)),
        *((block.block, block.earlier, block.verdict) for block in decision.blocks),
    ]:
        rows.append((name, before, now, "" if before == now else "differs"))
    return rows


def factor_rows(factors: Sequence[Factor]) -> list[Sequence[str]]:
    """Return the differences by stratum, row by row."""
    rows: list[Sequence[str]] = [
        ("stratum", "configurations", "treatment", "baseline", "difference", "interval", "equal in all: p (Holm)")
    ]
    for factor in factors:
        for i, s in enumerate(factor.strata):
            p = "" if i else "not tested" if math.isnan(factor.p) else f"{p_text(factor.p)} ({p_text(factor.p_holm)})"
            shares = percent(s.share_treatment), percent(s.share_baseline)
            interval = f"{points(s.low)} to {points(s.high)}"
            rows.append((f"{factor.name} {s.level}", str(s.n_configs), *shares, points(s.estimate), interval, p))
    return rows


def dose_rows(doses: Sequence[Dose]) -> list[Sequence[str]]:
    """Return rho and drift by arm, row by row."""
    rows: list[Sequence[str]] = [("arm", "trials", "rho (median)", "drift (median)")]
    for dose in doses:
        values = ("not recorded" if math.isnan(value) else f"{value:.2g}" for value in (dose.rho, dose.drift))
        rows.append((dose.arm, str(dose.n_trials), *values))
    return rows
