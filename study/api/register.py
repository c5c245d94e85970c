"""`vistudy register`: freezes a claim with a hash, so that a verdict can say what was stated before any record."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.outcomes.labels import OUTCOME_VERSION
from vistudy.study.execution.provenance import now_ms
from vistudy.study.planning.rounds import plan_from_store
from vistudy.study.spec.messages import error_message
from vistudy.study.spec.model import Block, Study
from vistudy.study.spec.parser import load_study
from vistudy.study.spec.schema import ClaimSpec
from vistudy.trainables.data import forget_seen_files

LEAST_EVALUATIONS = 20
"""Of a claim's blocks: the last quarter has five, and the ten that bad ones are counted over are half of the run."""

ROOM = {name: ClaimSpec.model_fields[name].default for name in ("room_low", "room_high")}
"""Keys of a claim that registrations of the earlier rule do not have -> their defaults."""


def register(study: Study | str | os.PathLike[str], store: str, *, amend: bool = False) -> dict[str, Any]:
    """Freeze the claim of a study in the ledger and return the registration; the same claim again changes nothing.

    Args:
        study: the study, or the path of its file.
        store: directory or fsspec URI of the ledger; made if it is not there.
        amend: add a registration that differs from the one before. Both stay.

    Raises:
        StudyError: no claim; a claim that cannot be registered; another one is registered and `amend` is not given.
    """
    declared = study if isinstance(study, Study) else load_study(study)
    content = registration_content(declared)
    ledger = Ledger(store)
    forget_seen_files()
    planned = plan_from_store(declared, ledger)  # refuses what cannot be trained, before anything is written
    ledger.create()
    before = ledger.registrations(declared.name)
    hashes = (claim_hash(content), claim_hash(_as_before(content)))
    if before and before[-1]["claim_hash"] in hashes and not _data_recorded(before[-1]):
        return before[-1]  # of the time when the data were not recorded
    for block in content["blocks"].values():
        block["data_fingerprint"] = planned.data.get(block["data"])
    digest = claim_hash(content)
    if before and before[-1]["claim_hash"] in (digest, claim_hash(_as_before(content))):
        return before[-1]
    if before and not amend:
        parts = ", ".join(diff_paths(before[-1], content))
        raise StudyError(
            f"study {declared.name!r}: another claim is registered ({before[-1]['claim_hash']}); it differs in "
            f"{parts}. Take the file back to what was registered, give the study another name, or use --amend: both "
            "are kept, and a verdict says so."
        )
    registration = {
        "claim_hash": digest,
        "study_hash": declared.hash,
        "registered_ms": now_ms(),
        "records_before": sum(1 for _ in ledger.records({trial.trial_id for trial in planned.trials})),
        **content,
    }
    ledger.write_registration(declared.name, registration)
    return registration


def _data_recorded(registration: Mapping[str, Any]) -> bool:
    return any("data_fingerprint" in block for block in registration.get("blocks", {}).values())


def _as_before(content: Mapping[str, Any]) -> dict[str, Any]:
    """What would have been frozen before claims had limits of room, if they have the defaults."""
    claim = {k: v for k, v in content["claim"].items() if k not in ROOM or ROOM[k] != v}
    return {**content, "claim": claim}


def describe(registration: Mapping[str, Any]) -> str:
    """A registration in words."""
    count = registration["records_before"]
    when = f"{count:,} records of its trials were in the store before" if count else "before the first record"
    return f"claim {registration['claim']['id']} is registered as {registration['claim_hash']}: {when}"


def registration_content(study: Study) -> dict[str, Any]:
    """What is frozen: the claim with all of its defaults, the version of the outcome rules, and every block.

    Raises:
        StudyError: there is no claim, or a block whose trials are placed by results or evaluated too seldom.
    """
    if study.claim is None:
        hint = "add 'claim: {id: .., baseline: .., treatment: ..}'; docs/claims.md explains it"
        raise study.error((), error_message("nothing to register: the study has no 'claim'", hint=hint))
    for block in study.blocks:
        if block.sample and block.sample.is_adaptive:
            problem = "a claim cannot be registered on trials that are placed by results: they are no sample of the box"
            got = block.sample.method
            raise block.error(
                ("sampling", "method"), error_message(problem, got=got, allowed="sobol, random, or a grid")
            )
        if block.arms and block.evaluations < LEAST_EVALUATIONS:
            problem = "too few evaluations for a claim: its outcomes would depend on their number"
            allowed = f"{LEAST_EVALUATIONS} or more; evaluating changes no training, and docs/outcomes.md says why"
            raise block.error(("budget", "evaluations"), error_message(problem, got=block.evaluations, allowed=allowed))
    return {
        "claim": study.claim.to_json(),
        "outcome_version": OUTCOME_VERSION,
        "blocks": {block.name: _block(block) for block in study.blocks},
    }


def _block(block: Block) -> dict[str, Any]:
    return {
        "model": block.model,
        "data": block.data,
        "family": block.family,
        "class": block.class_,
        "seeds": list(block.seeds),
        "budget": {"d_updates": block.d_updates, "evaluations": block.evaluations},
        "factors": {name: list(levels) for name, levels in block.factors.items()},
        "fixed": dict(block.fixed),
        "sample": block.sample.to_json() if block.sample else None,
        "arms": {name: dict(arm.written) for name, arm in block.arms.items()},
    }


def claim_hash(content: Mapping[str, Any]) -> str:
    """12 hex digits of the SHA-256 of what is frozen; 5 and 5.0 are the same, the order of keys does not count."""
    text = json.dumps(_canonical(content), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _canonical(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def diff_paths(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Paths such as `blocks.ring8-P.sample.n` at which two contents of a registration differ."""
    paths: list[str] = []

    def walk(old: Any, new: Any, path: str) -> None:
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            for name in dict.fromkeys([*old, *new]):
                walk(old.get(name), new.get(name), f"{path}.{name}" if path else str(name))
        elif _canonical(old) != _canonical(new):
            paths.append(path)

    for part in ("claim", "outcome_version", "blocks"):
        walk(before.get(part), now.get(part), part)
    return paths
