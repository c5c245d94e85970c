"""What a store holds of the same trials on other data: said in a sentence for each data set, and never mixed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from study.design import Plan
from study.ledger import Ledger
from trainables.config import NOT_RECORDED


def other_data(planned: Plan, ledger: Ledger) -> Iterator[str]:
    """Sentences that say which data sets of a plan held something else when the store's trials were trained."""
    if not ledger.exists():
        return
    done, now = ledger.done(), planned.data
    new = {_but_data(t.config.to_dict()): t.trial_id for t in planned.trials if t.trial_id not in done}
    same: dict[tuple[str, str], set[str]] = {}
    others: dict[tuple[str, str], set[str]] = {}
    packs = sorted(ledger.packs().values(), key=lambda pack: int(pack.get("created_ms", 0))) if new else []
    for pack in packs:
        for trial in pack["trials"]:
            data, print_ = trial["data"], trial.get("data_fingerprint", NOT_RECORDED)
            if data in now and print_ != now[data]:
                twin = new.get(_but_data(trial))
                (others if twin is None else same).setdefault((data, print_), set()).add(twin or _but_data(trial))
    kept = earlier_study(planned, ledger)
    for data, here in now.items():
        yield from _sentences(
            data, here, *({p: ids for (d, p), ids in of.items() if d == data} for of in (same, others)), kept
        )


def _sentences(
    data: str, here: str, same: Mapping[str, set[str]], others: Mapping[str, set[str]], kept: str | None
) -> Iterator[str]:
    """Of one data set: fingerprint -> trials that differ from those of the plan in it alone, and other trials."""
    where = f" as study {kept}" if kept else ""
    recorded = [print_ for print_ in same if print_ != NOT_RECORDED]
    if recorded:
        count = len(set[str]().union(*(same[print_] for print_ in recorded)))
        yield (
            f"{data} holds other data than when {_were(count, 'of these trials')} trained (fingerprint "
            f"{', '.join(recorded)} then, {here} now): they are new trials; the earlier ones stay in the store{where}"
        )
    elif others.keys() - {NOT_RECORDED}:
        prints = sorted(others.keys() - {NOT_RECORDED})
        count = sum(len(others[print_]) for print_ in prints)
        yield (
            f"{data} holds other data than when {_were(count, f"other trial{'s' if count > 1 else ''} of this store")} trained (fingerprint "
            f"{', '.join(prints)} then, {here} now): none of them is used here"
        )
    if NOT_RECORDED in same:
        yield (
            f"{_were(len(same[NOT_RECORDED]), 'of these trials')} trained on {data} when the data of a trial were not "
            f"recorded: they are new trials (fingerprint {here}); the earlier ones stay in the store{where}"
        )


def earlier_study(planned: Plan, ledger: Ledger) -> str | None:
    """The name under which a run will keep the plan that it replaces, if that was of other data."""
    return ledger.earlier_name(planned.study.name, {of: {"fingerprint": p} for of, p in planned.data.items()})


def _but_data(config: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in config.items() if name != "data_fingerprint"}, sort_keys=True)


def _were(number: int, of: str) -> str:
    return f"{number} {of} {'was' if number == 1 else 'were'}"
