"""The cached outcomes of a study: `studies/<name>/outcome-cache.json`.

The cache follows from records and ends of trials. An entry is used only if the trial's end, the extent of its pack's
records and the rules are those that it was computed from. The file may be deleted at any time, and concurrent writers
may overwrite each other; missing entries are recomputed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from vistudy.analysis.ledger.documents import TrialEnd
from vistudy.analysis.ledger.errors import StoreError
from vistudy.analysis.outcomes.labels import OUTCOME_VERSION, Label, Thresholds
from vistudy.analysis.outcomes.rules import Outcome

if TYPE_CHECKING:
    from vistudy.analysis.ledger.ledger import Ledger

FORMAT = 2
RULES_FINGERPRINT = f"{OUTCOME_VERSION}-" + hashlib.sha256(repr(Thresholds()).encode()).hexdigest()[:12]
"""Version and thresholds of the rules that gave the outcomes of a cache."""
_FIELDS = tuple(field.name for field in dataclasses.fields(Outcome))

_log = logging.getLogger("vistudy.outcomes")


class CachedOutcome(NamedTuple):
    """Outcome of a complete trial, and what it was computed from."""

    key: str
    """As of `cache_key`."""
    first_ms: int | None
    """When the trial's first record was written, milliseconds since 1970 (UTC); None without records."""
    outcome: Outcome


def cache_key(end: TrialEnd, segments: Mapping[str, Mapping[int, int]]) -> str:
    """Pack and attempt that ended a trial, when, and how much the pack has recorded (`Ledger.segments`)."""
    recorded = sorted(segments.get(end["pack_id"], {}).items())
    return f"{end['pack_id']} {end['attempt']} {end['unix_ms']} {recorded}"


def read_cache(ledger: Ledger, study: str) -> dict[str, CachedOutcome]:
    """Map trial_id -> cached outcome; empty if there is no cache, or none of these rules."""
    data = ledger.read_outcome_cache(study)
    if data is None:
        return {}
    try:
        content = json.loads(data)
        if (content["format"], content["rules"]) != (FORMAT, RULES_FINGERPRINT):
            return {}
        keys = content["keys"]
        return {
            trial_id: CachedOutcome(
                keys[key], first_ms, Outcome(**dict(zip(_FIELDS, [Label(label), tuple(flags), *rest], strict=True)))
            )
            for trial_id, (key, first_ms, label, flags, *rest) in content["trials"].items()
        }
    except (ValueError, KeyError, TypeError, IndexError) as error:
        _log.warning("studies/%s/outcome-cache.json is damaged (%s); its trials are labelled again", study, error)
        return {}


def write_cache(ledger: Ledger, study: str, entries: Mapping[str, CachedOutcome]) -> None:
    """Replace the cache. A store that cannot be written to stays without one."""
    keys = {key: i for i, key in enumerate(dict.fromkeys(entry.key for entry in entries.values()))}
    trials = {
        trial_id: [keys[entry.key], entry.first_ms, *(getattr(entry.outcome, name) for name in _FIELDS)]
        for trial_id, entry in entries.items()
    }
    content = {"format": FORMAT, "rules": RULES_FINGERPRINT, "keys": list(keys), "trials": trials}
    try:
        ledger.write_outcome_cache(study, json.dumps(content, separators=(",", ":")).encode())
    except StoreError as error:
        _log.info("outcomes are not cached: %s", error)
