"""The arm table: one row for each (block, arm, configuration, seed) of a study, whatever became of its trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.outcomes.label_study import StoreLike, StudyTrials, read_trials
from vistudy.analysis.outcomes.labels import Thresholds
from vistudy.analysis.tables.columns import cell_levels, cell_tag
from vistudy.analysis.tables.formatting import level_text
from vistudy.analysis.tables.rates import stability
from vistudy.analysis.tables.trials import load_frame

KEYS = ("block", "family", "class", "arm", "config", "seed")
"""First columns of an arm table: what a row is."""
RATES = ("lr", "g_lr", "d_lr")
"""Learning rates: what is tuned within a stratum, whether drawn or on a grid."""
PILOT = "~"
"""Stands in the arm of a pilot trial: `A3a~0.316` tries a scale for arm A3a and belongs to no comparison."""


def load_arms(
    store: StoreLike,
    study: str = "",
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
) -> pd.DataFrame:
    """Read the arm table of a study. Columns: KEYS, `stable`, `q`, `lr`, `stratum`, then those of `load_frame`.

    `stable` is 1 or 0 and `q` the final deficiency capped at 1 (a diverged trial has 1); both are NaN where a trial was
    not evaluable: failed, unfinished, undetermined. `config` is the cell as text without the arm and without
    what the arm alone has drawn; `lr` the configuration's learning rate, without the arm's scale, NaN if it sets none.
    `stratum` is the configuration without its learning rate and whatever else is drawn from a range. A trial that
    several arms or blocks share has a row in each.

    `table.attrs` has `study`; `blocks`: name -> what the plan says of it; `pilots`: block -> arm -> trials, which have
    no row; `first_ms`: when the first record was written.

    Raises:
        StudyError: no block has arms; an arm or block that the plan does not declare; the same arm, configuration and
            seed twice; or as `load_frame`.
    """
    trials = read_trials(store, study)
    blocks: Mapping[str, Any] = trials.plan.get("blocks", {})
    if not any(block.get("arms") for block in blocks.values()):
        raise StudyError(
            f"study {trials.study!r}: no block of its plan has arms, so there is nothing to compare. "
            "Add `arms` to the study file (docs/study-file.md) and run `vistudy run` again."
        )
    rows, pilots = [], Counter[tuple[str, str]]()
    for block, cell, entry in _memberships(trials):
        declared = _declared(trials.study, blocks, block, entry)
        if not declared.get("arms"):
            continue
        arm = _arm(trials.study, block, declared, cell, entry)
        if arm.partition(PILOT)[0] != arm:
            pilots[block, arm] += 1
            continue
        rows.append(_key(block, declared, arm, cell, entry))
    order = {
        (name, arm): i for i, (name, arm) in enumerate((b, a) for b, d in blocks.items() for a in d.get("arms", ()))
    }
    rows.sort(key=lambda row: order[row["block"], row["arm"]])  # a trial that two share would come too early
    table = _table(trials, rows, thresholds)
    counts: dict[str, dict[str, int]] = {block: {} for block, _ in pilots}
    for (block, arm), count in pilots.items():
        counts[block][arm] = count
    table.attrs = {
        "study": trials.study,
        "blocks": {name: _described(trials, name, block) for name, block in blocks.items() if block.get("arms")},
        "pilots": counts,
        "first_ms": trials.first_ms,
    }
    return table


def arms_by_weight(frame: pd.DataFrame, max_arms: int = 8) -> pd.DataFrame:
    """Arm table of a study without arms: every level of `reg_weight` is an arm; one arm if there are more levels.

    Columns: block (`model on data`), family, class (empty), arm, config (the cell without reg_weight), stable, q, lr,
    and those of the frame.
    """
    cells, levels = pd.factorize(frame["cell"])
    configs = [cell_levels(text) for text in levels]
    swept = np.array(["reg_weight" in config for config in configs], dtype=bool)[cells]
    few = frame.loc[swept, "reg_weight"].nunique() <= max_arms
    names = [
        f"λ = {level_text(None, float(weight))}" if varies and few else "all"
        for varies, weight in zip(swept, frame["reg_weight"], strict=True)
    ]
    rest = [cell_tag({name: level for name, level in config.items() if name != "reg_weight"}) for config in configs]
    head = pd.DataFrame({
        "block": frame["model"] + " on " + frame["data"], "family": frame["model"] + "_" + frame["data"], "class": "",
        "arm": names, "config": np.array(rest, dtype=object)[cells] if few else frame["cell"],
    })  # fmt: skip
    table = pd.concat([head, frame.drop(columns=[name for name in head if name in frame])], axis=1)
    rate = table["relaxation"] if "relaxation" in table else pd.Series(np.nan, index=table.index)
    table["lr"] = table["d_lr"].fillna(table["g_lr"]).fillna(rate.astype(float))
    table["stable"], table["q"] = stability(table)
    order = table["reg_weight"].where(table["arm"] != "all", 0.0)
    return table.iloc[order.argsort(kind="stable")].reset_index(drop=True)


def _described(trials: StudyTrials, name: str, block: Mapping[str, Any]) -> dict[str, Any]:
    """What the plan says of a block; where it does not say how the block was sampled, what was registered of it."""
    registered = [r["blocks"][name] for r in trials.registrations if name in r.get("blocks", {})]
    if "sample" in block or not registered or "sample" not in registered[-1]:
        return dict(block)
    return {**block, "sample": registered[-1]["sample"]}


def _memberships(trials: StudyTrials) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """(block, cell, entry) of every place that a trial has in the study."""
    for entry in trials.entries.values():
        if "block" in entry:
            yield str(entry["block"]), entry["cell"], entry
        for other in entry.get("also", ()):
            yield str(other["block"]), other["cell"], entry


def _declared(study: str, blocks: Mapping[str, Any], block: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    if block not in blocks:
        raise StudyError(
            f"plan of study {study!r}: trial {entry['trial_id']} is in block {block!r}, which the plan does not "
            f"declare; declared: {', '.join(blocks)}. Run `vistudy run` with the study file to write the plan anew."
        )
    declared: Mapping[str, Any] = blocks[block]
    return declared


def _arm(study: str, block: str, declared: Mapping[str, Any], cell: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """The arm of a cell; the name of a pilot is that of its arm, `~` and the scale."""
    arm = str(cell.get("arm", ""))
    base, tilde, _ = arm.partition(PILOT)
    matched = tilde and any(
        isinstance(v, Mapping) and "match_drift" in v for v in declared["arms"].get(base, {}).values()
    )
    if arm not in declared["arms"] and not matched:
        raise StudyError(
            f"plan of study {study!r}: trial {entry['trial_id']} is in arm {arm!r} of block {block!r}, which has no "
            f"such arm; it has {', '.join(declared['arms'])}. "
            "Run `vistudy run` with the study file to write the plan anew."
        )
    return arm


def drawn_by_arm(declared: Mapping[str, Any], arm: str) -> set[str]:
    """Names that an arm draws itself: no part of the configuration that it shares with other arms."""
    settings: Mapping[str, Any] = declared["arms"][arm]
    return {
        name for name, value in settings.items() if isinstance(value, Mapping) and {"low", "choices"} & value.keys()
    }


def _key(
    block: str, declared: Mapping[str, Any], arm: str, cell: Mapping[str, Any], entry: Mapping[str, Any]
) -> dict[str, Any]:
    own = {"arm"} | drawn_by_arm(declared, arm)
    config = {name: level for name, level in cell.items() if name not in own}
    fixed = declared.get("fixed", {})
    return {
        "block": block,
        "family": declared.get("family") or f"{declared.get('model', '')}_{declared.get('data', '')}",
        "class": declared.get("class") or "",
        "arm": arm,
        "config": config_text(config),
        "seed": int(entry["config"]["seed"]),
        "lr": _rate(config.get("lr", fixed.get("lr", entry["config"].get("lr")))),
        "stratum": config_text({name: level for name, level in config.items() if _discrete(declared, name, level)}),
        "trial_id": entry["trial_id"],
    }


def _discrete(declared: Mapping[str, Any], name: str, level: Any) -> bool:
    """Whether a level of a configuration says which stratum of the box it is in."""
    if name in RATES:
        return False
    if name in declared.get("factors", {}):
        return True
    space = (declared.get("sample") or {}).get("space", {})
    return "choices" in space[name] if name in space else isinstance(level, bool | str)


def config_text(config: Mapping[str, Any]) -> str:
    """A configuration as `k=v,k=v` in sorted order: as `cell_tag`, but two that differ never read the same."""

    def exact(value: Any) -> Any:
        return repr(value) if isinstance(value, float) and float(format(value, "g")) != value else value

    return cell_tag({name: exact(value) for name, value in config.items()})


def _rate(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number else float("nan")


def _table(trials: StudyTrials, rows: list[dict[str, Any]], thresholds: Thresholds) -> pd.DataFrame:
    keys = pd.DataFrame(rows, columns=[*KEYS, "lr", "stratum", "trial_id"]).astype({"seed": "int64", "lr": "float64"})
    twice = keys[keys.duplicated(["block", "arm", "config", "seed"])]
    if len(twice):
        first = twice.iloc[0]
        raise StudyError(
            f"plan of study {trials.study!r}: {len(twice)} places are taken twice; the first: block {first['block']}, "
            f"arm {first['arm']}, {first['config'] or 'the only configuration'}, seed {first['seed']}. "
            "Run `vistudy run` with the study file to write the plan anew."
        )
    frame = load_frame(trials, thresholds=thresholds)
    frame["stable"], frame["q"] = stability(frame)
    frame = frame.drop(columns=[name for name in (*KEYS, "lr", "stratum") if name in frame])
    table = keys.merge(frame, on="trial_id", how="left", validate="many_to_one")
    head = [*KEYS, "stable", "q", "lr", "stratum"]
    return table[[*head, *(name for name in table if name not in head)]]
