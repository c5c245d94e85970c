"""Sentences about trials that a store holds of the same configurations on other data, one per data set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.planning.plan import Plan
from vistudy.trainables.trial_identity import NOT_RECORDED

Found = dict[str, set[str]]
"""Fingerprint -> configurations (without the data) trained on it."""


def other_data(planned: Plan, ledger: Ledger) -> Iterator[str]:
    """Yield sentences on data sets of a plan that have changed since trials of the store were trained."""
    if not ledger.exists():
        return
    done, now = ledger.finished_trials(), planned.data
    earlier = earlier_study(planned, ledger)
    before = ledger.read_meta(planned.study.name).get("data") or {} if earlier else {}
    new = {_but_data(trial.config.to_dict()) for trial in planned.trials if trial.trial_id not in done}
    same: dict[str, Found] = {data: {} for data in now}
    others: dict[str, Found] = {data: {} for data in now}
    packs = sorted(ledger.packs().values(), key=lambda pack: int(pack.get("created_ms", 0))) if new else []
    trials = [trial for pack in packs for trial in pack["trials"]]
    new -= {_but_data(trial) for trial in trials if trial.get("data_fingerprint") == now.get(trial["data"])}  # resumed
    for trial in trials:
        data, print_ = trial["data"], trial.get("data_fingerprint", NOT_RECORDED)
        if data in now and print_ != now[data]:
            twin = _but_data(trial)
            (same if twin in new else others)[data].setdefault(print_, set()).add(twin)
    for data, here in now.items():
        yield from _sentences(data, here, same[data], others[data], earlier)
        last = before.get(data, {}).get("fingerprint", here)
        if last != here and not same[data]:
            yield (
                f"{data} holds earlier data again (fingerprint {last} at the last run, {here} now): trials that were "
                f"trained on them are used; a run keeps the plan of the last run as study {earlier}"
            )


def _sentences(data: str, here: str, same: Found, others: Found, earlier: str | None) -> Iterator[str]:
    """Yield the sentences of one data set: about the plan's own trials on other data, else about other trials."""
    stay = f"a run keeps the earlier ones as study {earlier}" if earlier else "the earlier ones stay in the store"
    if prints := [print_ for print_ in same if print_ != NOT_RECORDED]:
        count = len(set[str]().union(*(same[print_] for print_ in prints)))
        yield (
            f"{data} holds other data than when {_were(count, 'of these trials')} trained (fingerprint "
            f"{', '.join(prints)} then, {here} now): they are new trials; {stay}"
        )
    elif prints := [print_ for print_ in others if print_ != NOT_RECORDED]:
        count = sum(len(others[print_]) for print_ in prints)
        more = "other trial of this store" if count == 1 else "other trials of this store"
        yield (
            f"{data} holds other data than when {_were(count, more)} trained (fingerprint {', '.join(prints)} then, "
            f"{here} now): none of them is used here"
        )
    if NOT_RECORDED in same:
        yield (
            f"{_were(len(same[NOT_RECORDED]), 'of these trials')} trained on {data} when the data of a trial were not "
            f"recorded: they are new trials (fingerprint {here}); {stay}"
        )


def earlier_study(planned: Plan, ledger: Ledger) -> str | None:
    """Name under which a run keeps the plan that it replaces, if that plan was for other data; else None."""
    return ledger.earlier_name(planned.study.name, {of: {"fingerprint": p} for of, p in planned.data.items()})


def _but_data(config: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in config.items() if name != "data_fingerprint"}, sort_keys=True)


def _were(number: int, of: str) -> str:
    return f"{number} {of} {'was' if number == 1 else 'were'}"
