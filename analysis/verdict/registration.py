"""Check whether a claim was registered before its first record, and what has changed since. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from vistudy.analysis.outcomes.labels import OUTCOME_VERSION
from vistudy.analysis.verdict.results import RegistrationStatus

MOST_SHOWN = 6
FOUND_LATER = ("scale",)
"""Keys that pilots add to a plan: they do not change what was registered."""
ROOM = {"room_low": 0.10, "room_high": 0.90}
"""Keys of a claim that the current rule added -> their defaults."""


def registration_status(
    registrations: Sequence[Mapping[str, Any]],
    claim: Mapping[str, Any],
    blocks: Mapping[str, Mapping[str, Any]],
    first_ms: int | None,
) -> RegistrationStatus:
    """Compare the last registration before the first record with the current claim and blocks.

    A later amendment does not count: it was written after results existed.

    Args:
        registrations: oldest first, as `Ledger.registrations`.
        claim: as in `plan.json`.
        blocks: as in `plan.json`.
        first_ms: time of the study's first record; None if there is none or it is unknown.
    """
    early = [each for each in registrations if _early(each, first_ms)]
    if not early:
        return _late(registrations, first_ms)
    counted = early[-1]
    earlier = not any(name in counted.get("claim", {}) for name in ROOM)
    of_claim = {name: value for name, value in claim.items() if not (earlier and name in ROOM and ROOM[name] == value)}
    now = {"claim": of_claim, "outcome_version": OUTCOME_VERSION, "blocks": blocks}
    differences = tuple(
        text
        for part in ("claim", "outcome_version", "blocks")
        for text in diff_paths(counted.get(part), now[part], part)
    )
    sentence = (
        f"Registered on {_date(counted['registered_ms'])} (claim {counted['claim_hash']}), before the first record."
    )
    if earlier:
        sentence += " It was registered under the earlier rule, which did not ask for room: both verdicts are given."
    if differences:
        more = f" and {len(differences) - MOST_SHOWN} more" if len(differences) > MOST_SHOWN else ""
        sentence += f" What is decided here differs from that: {'; '.join(differences[:MOST_SHOWN])}{more}."
    late = len(registrations) - len(early)
    if late:
        sentence += (
            f" {late} amendment{'s' if late > 1 else ''} after the first record do{'' if late > 1 else 'es'} not count."
        )
    return RegistrationStatus(
        before_first_record=True,
        claim_hash=str(counted["claim_hash"]),
        registered_ms=int(counted["registered_ms"]),
        first_ms=first_ms,
        amendments=len(registrations) - 1,
        differences=differences,
        sentence=sentence,
        earlier_rule=earlier,
    )


def _early(registration: Mapping[str, Any], first_ms: int | None) -> bool:
    by_clock = first_ms is None or int(registration["registered_ms"]) <= first_ms
    return int(registration["records_before"]) == 0 and by_clock


def _late(registrations: Sequence[Mapping[str, Any]], first_ms: int | None) -> RegistrationStatus:
    sentence = "Not registered before the first record: everything here is exploratory."
    if registrations:
        first = registrations[0]
        count = int(first["records_before"])
        sentence += f" It was registered on {_date(first['registered_ms'])}, "
        if count or first_ms is None:
            sentence += f"when there were {count} records."
        else:
            sentence += f"after the first record of {_date(first_ms)}."
    return RegistrationStatus(
        before_first_record=False,
        claim_hash=str(registrations[0]["claim_hash"]) if registrations else None,
        registered_ms=int(registrations[0]["registered_ms"]) if registrations else None,
        first_ms=first_ms,
        amendments=max(0, len(registrations) - 1),
        differences=(),
        sentence=sentence,
    )


def diff_paths(before: Any, now: Any, path: str) -> list[str]:
    """Return differences as `path: old -> new`. Below the top level, absent keys count."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = [name for name in dict.fromkeys([*before, *now]) if name not in FOUND_LATER]
        if path.startswith("blocks.") and path.count(".") == 1:
            names = [name for name in names if name in before and name in now]  # a plan holds other things, too
        return [text for name in names for text in diff_paths(before.get(name), now.get(name), f"{path}.{name}")]
    return [] if _same(before, now) else [f"{path}: {_short(before)} -> {_short(now)}"]


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, list | tuple) and isinstance(now, list | tuple):
        return len(before) == len(now) and all(map(_same, before, now))
    return bool(before == now) and isinstance(before, bool) == isinstance(now, bool)


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _date(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
