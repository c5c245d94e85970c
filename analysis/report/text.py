"""What a report says in words: how it was done, what with, and the whole of it as Markdown. Generated from the plan."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import pandas as pd

from vistudy.analysis.outcomes.labels import OUTCOME_VERSION, Thresholds
from vistudy.analysis.report.tables import Table
from vistudy.analysis.tables.columns import NO_DATA, data_of
from vistudy.analysis.tables.formatting import level_text

_PACKAGES = ("vistudy", "numpy", "scipy", "pandas", "statsmodels", "scikit-learn", "matplotlib")


def level(value: Any) -> str:
    """A value of the study file in words."""
    if isinstance(value, Mapping):
        if "choices" in value:
            return f"one of {', '.join(map(level, value['choices']))}"
        if "low" in value:
            return f"{level(value['low'])} to {level(value['high'])}" + (" (log-uniform)" if value.get("log") else "")
        return ", ".join(f"{name} {level(v)}" for name, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(level, value))
    return level_text(None, value)


def methods(
    plan: Mapping[str, Any], table: pd.DataFrame, claim: Mapping[str, Any] | None, thresholds: Thresholds, draws: int
) -> list[str]:
    """Paragraphs that say what was trained, how it was labelled and how it was compared."""
    return [
        _trained(plan, table),
        *(_block(name, block) for name, block in plan.get("blocks", {}).items()),
        _outcomes(table, thresholds),
        _compared(table, claim, draws),
    ]


def _trained(plan: Mapping[str, Any], table: pd.DataFrame) -> str:
    trials = table["trial_id"].nunique()
    budgets = table[["d_updates", "evaluations"]].drop_duplicates().itertuples(index=False) if len(table) else []
    words = "; ".join(f"{d:,} discriminator updates, {e} evaluations" for d, e in budgets)
    more = len(table) - trials
    shared = (
        f" ({len(table):,} places in arms and blocks; a trial that is the same in two is trained once)" if more else ""
    )
    return (
        f"{_count(trials, 'trial')}{shared} in {_count(len(plan.get('blocks', {})), 'block')} of model and data. "
        f"Budget of a trial: {words}. A configuration and seed has the same initial weights, order of data and z in "
        "every arm; nothing was stopped early because of how it looked."
    )


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def _block(name: str, block: Mapping[str, Any]) -> str:
    parts = [
        f"{name}: {block['model']} on {block['data']}" + (f", class {block['class']}" if block.get("class") else "")
    ]
    sample = block.get("sample") or {}
    if sample.get("space"):
        space = "; ".join(f"{key} {level(value)}" for key, value in sample["space"].items())
        sampled = _count(int(sample["n"]), "configuration")
        parts.append(f"{sampled} drawn ({sample['method']}, seed {sample.get('seed')}) from {space}")
    elif block.get("sampled"):
        parts.append(f"Configurations drawn over {', '.join(block['sampled'])}")
    if block.get("factors"):
        parts.append("Every combination of " + "; ".join(f"{key} {level(v)}" for key, v in block["factors"].items()))
    if block.get("fixed"):
        parts.append("Fixed: " + ", ".join(f"{key} {level(value)}" for key, value in block["fixed"].items()))
    if block.get("arms"):
        arms = "; ".join(f"{arm} ({level(settings) or 'as configured'})" for arm, settings in block["arms"].items())
        parts.append(f"Arms: {arms}")
    parts.append(f"Seeds: {level(block.get('seeds', []))}")
    return ". ".join(parts) + "."


def _outcomes(table: pd.DataFrame, thresholds: Thresholds) -> str:
    lost = table.loc[table["stable"].isna(), "state"]
    lost = lost.where(lost != "complete", "complete but undetermined").value_counts()
    missing = ", ".join(f"{count:,} {state}" for state, count in lost.items())
    return (
        f"A trial is stable if its outcome is converged: composite deficiency Q at most {thresholds.tau_ok:g} in at "
        f"least {thresholds.converged_share:.0%} of the last {thresholds.window_share:.0%} of its evaluations, or of "
        f"the last {thresholds.window_min} (rules version {thresholds.version}, docs/outcomes.md). Q is 0 for held-out "
        "real data and about 1 for an untrained generator; diverged trials and Q above 1 count as 1. "
        + (f"Not evaluable, and left out with their pairs: {missing}." if missing else "Every trial was evaluable.")
    )


def _compared(table: pd.DataFrame, claim: Mapping[str, Any] | None, draws: int) -> str:
    if claim is None:
        return (
            "No claim was stated, so nothing is decided. Intervals of shares are 95 % Wilson intervals; intervals of "
            "differences in cells are paired score intervals (Newcombe 1998); bands of times are by resampling "
            "configurations."
        )
    return (
        f"{claim['treatment']} is compared with {claim['baseline']} on pairs of equal configuration and seed. The unit "
        "of tests and intervals is the configuration, not the trial: the risk difference has a sign-flip "
        "randomisation test and a 95 % "
        f"interval over configurations; other intervals are from {draws:,} resamples of configurations (seed 0) unless "
        f"the table says otherwise. Smallest effect of interest {claim['sesoi']:g}, equivalence margin "
        f"{claim['margin']:g}, level {claim['alpha']:g} with Holm's correction over the primary tests. Cells of maps "
        "are described, not tested."
    )


def provenance(
    plan: Mapping[str, Any], meta: Mapping[str, Any], study_text: str, table: pd.DataFrame,
    registrations: Sequence[Mapping[str, Any]], first_ms: int | None,
) -> list[tuple[str, str]]:  # fmt: skip
    """(name, text) of everything that says where numbers come from."""
    git = meta.get("git") or {}
    dirty = {True: ", with uncommitted changes", False: "", None: ""}[git.get("dirty")]
    devices = table.drop_duplicates("trial_id")["device"].dropna().value_counts() if "device" in table else pd.Series()
    rows = [
        ("plan", str(plan.get("hash", "–"))),
        ("study file (sha256)", hashlib.sha256(study_text.encode()).hexdigest()),
        ("claim", _registered(registrations, first_ms)),
        ("first record", _time(first_ms)),
        ("last run", _time(meta.get("last_run_ms"))),
        ("git commit of the run", f"{git['commit']}{dirty}" if git.get("commit") else "not in a checkout"),
        ("devices", ", ".join(f"{device}: {count:,} trials" for device, count in devices.items()) or "–"),
        ("training with", ", ".join(f"{name} {v}" for name, v in (meta.get("versions") or {}).items()) or "–"),
        ("report with", ", ".join(f"{name} {version(name)}" for name in _PACKAGES)),
        ("outcome rules", f"version {OUTCOME_VERSION}"),
    ]  # fmt: skip
    rows += [(f"data {name}", text) for name, text in data_of(meta).items()] or [("data", NO_DATA)]
    for data, suite in (meta.get("metrics") or {}).items():
        rows.append((f"metrics of {data}", ", ".join(f"{name} {value}" for name, value in suite.items())))
    return rows


def _registered(registrations: Sequence[Mapping[str, Any]], first_ms: int | None) -> str:
    if not registrations:
        return "not registered"
    first = registrations[0]
    when = first.get("registered_ms")
    before = first_ms is None or (when is not None and when < first_ms)
    text = (
        f"{first.get('claim_hash')} registered {_time(when)}, "
        + ("before" if before else "after")
        + " the first record"
    )
    if len(registrations) > 1:
        text += "; amended " + ", ".join(
            f"{_time(r.get('registered_ms'))} ({r.get('claim_hash')})" for r in registrations[1:]
        )
    return text


def _time(ms: int | None) -> str:
    if ms is None:
        return "–"
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def markdown_table(table: Table) -> str:
    """A table in Markdown; text of a study cannot leave its cell."""

    def cell(text: str) -> str:
        return escaped(text).replace("|", "\\|").replace("\n", " ")

    head = "| " + " | ".join(map(cell, table.head)) + " |"
    rule = "|" + "|".join("---:" if right else "---" for right in table.numeric) + "|"
    return "\n".join([head, rule, *("| " + " | ".join(map(cell, row)) + " |" for row in table.rows)])


def escaped(text: str) -> str:
    """Text that Markdown shows letter by letter."""
    for character in "\\`*_<>[]#":
        text = text.replace(
            character, f"\\{character}" if character not in "<>" else {"<": "&lt;", ">": "&gt;"}[character]
        )
    return text


def markdown(
    title: str, lead: Iterable[str], tables: Iterable[Table], pictures: Iterable[tuple[str, str, str]],
    paragraphs: Iterable[str], notes: Iterable[str], rows: Iterable[tuple[str, str]],
) -> str:  # fmt: skip
    """The report as Markdown. `pictures`: (title, path, caption)."""
    parts = [f"# {escaped(title)}", *map(escaped, lead)]
    for heading, path, caption in pictures:
        parts += [f"## {escaped(heading)}", f"![{escaped(heading)}]({path})", escaped(caption)]
    for table in tables:
        parts += [f"## {escaped(table.title)}", markdown_table(table), escaped(table.note)]
    parts += ["## Methods", *map(escaped, paragraphs)]
    listed = [f"- {escaped(note)}" for note in notes]
    parts += ["## Not drawn or estimated", "\n".join(listed)] if listed else []
    parts += ["## Provenance", "\n".join(f"- {escaped(name)}: {escaped(text)}" for name, text in rows)]
    return "\n\n".join(part for part in parts if part) + "\n"
