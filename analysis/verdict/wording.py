"""Verdicts as sentences: effect, interval, counts, search space, notes. Pure text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from vistudy.analysis.estimates.effect_sizes import OddsRatio, QShift
from vistudy.analysis.estimates.pairs import REASONS
from vistudy.analysis.estimates.risk_difference import Difference, MissingBounds, Pairs
from vistudy.analysis.estimates.stable_width import WidthDifference
from vistudy.analysis.estimates.strata import LR, Factor
from vistudy.analysis.tables.formatting import p_equals, percent, points
from vistudy.analysis.verdict.results import (
    DEPENDS,
    DESCRIPTIVE,
    HARMS,
    INCONCLUSIVE,
    MORE,
    NO_DOSE,
    PRIMARY,
    REFUSED,
    SLOWER,
    SUPPORTED,
    UNINFORMATIVE,
    WITHIN,
    BlockVerdict,
    Pooled,
)


def place(block: BlockVerdict) -> str:
    """Name a block with its family and class."""
    named = f"{block.block} (family {block.family}"
    return f"{named}, class {block.block_class})" if block.block_class else f"{named})"


def block_sentence(block: BlockVerdict, claim: Mapping[str, Any], tests: int) -> str:
    """Write one sentence on a block; `tests`: number of primary tests that Holm corrects for."""
    head = f"{place(block)}: {block.verdict}"
    if block.role != PRIMARY:
        head = f"{place(block)}, {block.role}: {block.verdict}"
    if block.verdict == REFUSED:
        return f"{head}, because {'; '.join(block.reasons)}."
    if block.identity is not None:
        pairs = f"{block.identity.differing} of {block.identity.n_pairs} pairs differ in outcome, Q or an event time"
        return f"{head}: {pairs}, where the term cannot have an effect. Box: {block.box}."
    if block.verdict == NO_DOSE:
        return f"{head}: it could not have failed, because {'; '.join(block.reasons)}. Box: {block.box}."
    d = block.difference
    assert d is not None, "only placebos and refused verdicts have no estimate"
    if block.verdict == DESCRIPTIVE:
        return (
            f"{head}, because a grid is no sample of a box: on these levels {effect(d, interval=False)}. "
            f"Box: {block.box}."
        )
    if block.verdict == UNINFORMATIVE and block.room is not None:
        head += f", because it had no room: {block.room.why}"
    parts = [f"{head}. {_upper(effect(d))}", *_consequences(block, claim)]
    if block.p_holm is not None and tests > 1:
        parts.append(f"After Holm's correction over {tests} tests {p_equals(block.p_holm)}")
    return ". ".join([*parts, f"Box: {block.box}."])


def effect(d: Difference, *, interval: bool = True) -> str:
    """Write counts, shares, difference and interval of a comparison."""
    n = f"{d.n_configs} configurations, {d.n_pairs} pairs"
    stable = f"{d.treatment} was stable in {_of(d.stable_treatment, d.n_pairs)}, {d.baseline} in "
    stable += f"{_of(d.stable_baseline, d.n_pairs)}: {points(d.estimate)} points"
    if abs((d.stable_treatment - d.stable_baseline) / d.n_pairs - d.estimate) > 1e-9:
        stable += " (weighted: every configuration counts the same)"
    if not interval:
        return f"{stable} ({n})"
    return (
        f"{stable}, {100 * (1 - d.alpha):g} % interval {points(d.low)} to {points(d.high)} "
        f"({n}, sign-flip {p_equals(d.p)})"
    )


def _of(k: int, n: int) -> str:
    return f"{k:,} of {n:,} runs ({percent(k / n)})"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _consequences(block: BlockVerdict, claim: Mapping[str, Any]) -> list[str]:
    """Write what follows from the figures, what the width shows, and why the verdict is not stronger."""
    d, w, sentences = block.difference, block.width, []
    assert d is not None, "only placebos and refused verdicts have no estimate"
    if block.verdict == UNINFORMATIVE:
        return ["More of nothing is no evidence: that the arms do not differ here says nothing about the treatment"]
    if block.verdict.startswith(DEPENDS):
        unequal = [factor for factor in block.factors if factor.name.replace("_", " ") in block.verdict]
        sentences += [factor_text(factor) for factor in unequal]
    if block.verdict == WITHIN and not d.low <= 0 <= d.high:
        sentences.append(
            f"The difference is not 0: it differs from 0 by less than {100 * float(claim['margin']):g} points"
        )
    if w is not None:
        sentences.append(
            f"The stable range of learning rates is {abs(w.difference):.2f} decades "
            f"{'wider' if w.difference >= 0 else 'narrower'} ({w.low:+.2f} to {w.high:+.2f}) and its centre "
            + (f"moves by {w.shift:+.2f}" if math.isfinite(w.shift) else "cannot be compared")
        )
    if block.verdict == MORE:
        cut = any("the box cuts it" in note for note in block.notes)
        sentences.append(
            "More runs are stable; the range is cut: wider or moved cannot be told"
            if cut
            else "More runs are stable, but the stable range of learning rates is not shown to be wider"
        )
    if block.verdict in (SLOWER, MORE):
        same = [each.arm for each in block.slower if each.equivalent]
        if same:
            sentences.append(f"It is equivalent to {' and '.join(same)}, which only slows the generator down")
    if block.verdict == INCONCLUSIVE:
        sentences.append(_why_inconclusive(d, block.p_holm, claim))
    if block.positive is not None and block.positive.failed:
        arm = block.positive.arm
        word = "harms" if block.positive.word == HARMS else "does nothing"
        sentences.append(f"The positive control {arm} failed: it {word}")
    return sentences


def _why_inconclusive(d: Difference, p_holm: float | None, claim: Mapping[str, Any]) -> str:
    half, margin = (d.high - d.low) / 2, float(claim["margin"])
    sentence = f"The interval reaches {100 * half:.1f} points to each side, with a margin of {100 * margin:g}"
    if p_holm is not None and p_holm > float(claim["alpha"]) and (d.low > 0 or d.high < 0):
        sentence += ". It leaves 0 out, but the test does not hold after correction for the number of tests"
    return sentence


def factor_text(factor: Factor) -> str:
    """Write the differences by a factor's strata, and the test that they are equal."""
    name = factor.name.replace("_", " ")
    at = "" if factor.name == LR else "at "
    each = ", ".join(f"{points(s.estimate)} ({points(s.low)} to {points(s.high)}) {at}{s.level}" for s in factor.strata)
    p = (
        "not tested"
        if math.isnan(factor.p)
        else f"permutation {p_equals(factor.p)}, {p_equals(factor.p_holm)} after Holm"
    )
    return f"By {name}: {each} (equal: {p})"


def beside_text(odds: OddsRatio | None, shift: QShift | None) -> list[str]:
    """Write the co-primary effects: odds ratio and shift of the capped final Q."""
    sentences = []
    if odds is not None:
        how = " (half a trial added to each count, Haldane, as one of them is 0)" if odds.haldane else ""
        sentences.append(f"Odds ratio {odds.estimate:.2f}, interval {odds.low:.2f} to {odds.high:.2f}{how}.")
    if shift is not None:
        sentences.append(
            f"Final Q, capped at 1, moves by {shift.estimate:+.3f}, interval {shift.low:+.3f} to {shift.high:+.3f} "
            f"(Hodges-Lehmann over {shift.n_configs} configurations, below 0 is better; signed-rank "
            f"{p_equals(shift.p)})."
        )
    return sentences


def group_sentence(
    name: str,
    blocks: Sequence[BlockVerdict],
    room: Sequence[BlockVerdict],
    verdict: str,
    pooled: Pooled | None,
    extra: Sequence[str],
) -> str:
    """Write one sentence on several blocks; `room`: those in which an effect was detectable."""
    if not blocks:
        return f"{_upper(name)}: no block of the claim."
    head = f"{_upper(name)}: {verdict}"
    compared = [block for block in blocks if block.difference is not None]
    if compared and not any(block.verdict in (REFUSED, DESCRIPTIVE) for block in blocks):
        head += f"; {len(room)} of {len(blocks)} blocks had room"
    parts = [head, *([pooled_text(pooled, room)] if pooled is not None else []), *extra]
    if pooled is None or len(room) < len(blocks):
        parts.append(_counts(compared) if room and len(room) < len(compared) else "")
        each = "; ".join(
            f"{block.block} {block.verdict}"
            + (f" ({points(block.difference.estimate)} points)" if block.difference else "")
            for block in blocks
        )
        parts.append(f"Blocks: {each}")
    return ". ".join(part for part in parts if part) + "."


def _counts(blocks: Sequence[BlockVerdict]) -> str:
    """Write the counts over all blocks, with room or without."""
    differences = [block.difference for block in blocks if block.difference is not None]
    n = sum(d.n_pairs for d in differences)
    t, b = sum(d.stable_treatment for d in differences), sum(d.stable_baseline for d in differences)
    baseline = f"{differences[0].baseline} in {_of(b, n)}"
    return f"Over all blocks, with room or without, {differences[0].treatment} was stable in {_of(t, n)}, {baseline}"


def pooled_text(pooled: Pooled, room: Sequence[BlockVerdict]) -> str:
    """Write counts, mean and interval over blocks with room."""
    treatment, baseline = room[0].treatment, room[0].baseline
    sentence = (
        f"{treatment} was stable in {_of(pooled.stable_treatment, pooled.n_pairs)}, {baseline} in "
        f"{_of(pooled.stable_baseline, pooled.n_pairs)}"
    )
    interval = f"{100 * (1 - pooled.alpha):g} % interval {points(pooled.low)} to {points(pooled.high)}"
    n = f"{pooled.n_configs} configurations, {pooled.n_pairs} pairs"
    if len(room) == 1:
        return f"{sentence}: {points(pooled.estimate)} points, {interval} ({n})"
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in pooled.weights.items())
    return (
        f"{sentence}. Weighted mean of the blocks' differences (random effects): {points(pooled.estimate)} points, "
        f"{interval} ({n}; {p_equals(pooled.p)}; weights {weights}; between blocks sd {100 * pooled.between_sd:.1f} "
        f"points, equal: {p_equals(pooled.p_equal)})"
    )


def warnings(blocks: Sequence[BlockVerdict]) -> list[str]:
    """List what a reader must know before any verdict."""
    warnings_ = []
    for block in blocks:
        if block.identity is not None and block.identity.differing:
            warnings_.append(
                f"Placebo {block.block}: {block.identity.differing} of {block.identity.n_pairs} pairs differ although "
                "the term cannot have an effect there: the trials are not reproducible, or the arms differ otherwise."
            )
        elif block.role != PRIMARY and block.verdict in (SUPPORTED, SLOWER, MORE, HARMS):
            warnings_.append(
                f"{_upper(block.role)} {block.block} shows an effect ({block.verdict}): "
                "doubt the pipeline or the design before believing another block."
            )
    return warnings_


FEW_CONFIGS = 20
"""Fewer configurations than this are called few."""


NON_ADAPTIVE = ("sobol", "random")
"""Sampling methods whose configurations are a sample of the search space."""


def is_grid(declared: Mapping[str, Any]) -> bool:
    """Return whether a block is a grid of levels rather than a sample of a search space."""
    return not declared.get("sampled") and not declared.get("sample")


def known_sampling(declared: Mapping[str, Any]) -> bool:
    """Return whether it is known how a block's configurations were drawn."""
    return bool(declared) and (is_grid(declared) or bool((declared.get("sample") or {}).get("method")))


def excluded_text(pairs: Pairs) -> str:
    """Write why pairs were excluded, with counts and shares."""
    planned = pairs.n_pairs + sum(pairs.excluded.values())
    parts = [
        f"{count} of {planned} pairs ({percent(count / planned)}): {REASONS[name]}"
        for name, count in pairs.excluded.items()
    ]
    return "; ".join(parts) or "no pairs were planned"


def cut_text(width: WidthDifference) -> str:
    """Write how the search space truncates the stable range."""
    ends = [
        f"{percent(share)} of runs are stable at its {name} end"
        if math.isfinite(share)
        else f"no run is at its {name} end"
        for name, share in width.cut.items()
    ]
    return f"the box cuts it ({' and '.join(ends)}), so wider or moved cannot be told"


def missing_text(table: pd.DataFrame, treatment: str, baseline: str, bounds: MissingBounds) -> str:
    """Write the trials without a result by arm, and what they could have changed."""
    counts = []
    for arm in (treatment, baseline):
        lost = table[(table["arm"] == arm) & table["stable"].isna()]
        states = lost["state"].where(lost["state"] != "complete", "undetermined").value_counts()
        each = ", ".join(f"{count} {state}" for state, count in states.items()) or "none"
        counts.append(f"{arm} {each} of {(table['arm'] == arm).sum()}")
    sentence = f"Trials without a result: {'; '.join(counts)} (equal in both arms: sign-flip p = {bounds.p:.2g})"
    ends = f"{points(bounds.low.estimate)} to {points(bounds.high.estimate)} points"
    return f"{sentence}. Whatever they would have done, the difference is {ends}."


def block_notes(
    table: pd.DataFrame, pairs: Pairs, treatment: str, baseline: str, declared: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Return notes on a block, and their short forms for summaries (caveats)."""
    notes = [f"Left out: {excluded_text(pairs)}."] if pairs.excluded and pairs.n_pairs else []
    caveats = []
    if pairs.n_pairs and len(pairs.seeds) == 1:
        notes.append("One seed a configuration: the noise of seeds and the effect of configurations are one.")
        caveats.append("one seed a configuration")
    if 0 < pairs.n_configs < FEW_CONFIGS:
        notes.append(f"Few configurations: {pairs.n_configs}.")
        caveats.append(f"only {pairs.n_configs} configurations")
    if not known_sampling(declared):
        notes.append("How the configurations were drawn is not known here; the interval takes them as a sample.")
        caveats.append("how the configurations were drawn is not known")
    if declared.get("pilot_trials"):
        counts = ", ".join(f"{arm} {count}" for arm, count in declared["pilot_trials"].items())
        notes.append(f"Pilot trials, which find a scale, are in no comparison ({counts}).")
    rows = table[table["arm"] == treatment]
    inert = int(rows["inert"].sum()) if "inert" in rows else 0
    if inert:
        notes.append(f"In {inert} of {len(rows)} trials of {treatment} the term provably has no effect (placebos).")
        caveats.append("part of the trials are placebos")
    same = rows.merge(table[table["arm"] == baseline], on=["config", "seed", "trial_id"])
    if len(same):
        notes.append(f"{len(same)} of the pairs are one trial, which both arms share: their difference is 0.")
        caveats.append("pairs that are one trial")
    return notes, caveats


def search_space_text(declared: Mapping[str, Any], table: pd.DataFrame) -> str:
    """Describe the search space of a block."""
    space = (declared.get("sample") or {}).get("space", {})
    parts = [f"{name} in {{{', '.join(map(_level, levels))}}}" for name, levels in declared.get("factors", {}).items()]
    for name, dim in space.items():
        if "choices" in dim:
            parts.append(f"{name} in {{{', '.join(map(_level, dim['choices']))}}}")
        else:
            parts.append(f"{name} {dim['low']:g} to {dim['high']:g}{' (log-uniform)' if dim.get('log') else ''}")
    if not space and "lr" in table and table["lr"].notna().any() and "lr" not in declared.get("factors", {}):
        parts.append(f"lr {table['lr'].min():g} to {table['lr'].max():g} (as trained)")
    sampled = [name for name in declared.get("sampled", ()) if name not in space and name != "lr"]
    parts += [f"{name} (sampled)" for name in sampled]
    parts += [f"{name} = {_level(level)}" for name, level in declared.get("fixed", {}).items()]
    return ", ".join(parts) or "a single configuration"


def _level(level: object) -> str:
    return str(level).lower() if isinstance(level, bool) else f"{level:g}" if isinstance(level, float) else str(level)
