"""Made-up arm tables, and a small store of a study with arms, for the tests of verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.analysis.series import series
from tests.analysis.store import CONFIG, train
from vistudy.analysis.ledger.ledger import Ledger

Stable = Callable[[int, int], bool | str]
"""(configuration, seed) -> stable or not, or the state of a trial that is not evaluable."""
SPACE = {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "batch_norm": {"choices": [True, False]}}
CLAIM: dict[str, Any] = {"id": "made-up", "baseline": "A0", "treatment": "A1"}


def share(wanted: float, shift: int = 0) -> Stable:
    """Stable in this share of the configurations, spread over them; `shift` moves which ones."""
    return lambda config, seed: ((config + shift) * 0.618034) % 1.0 < wanted


def also(base: Stable, share_more: float) -> Stable:
    """Stable where `base` is, and in this share of all configurations besides."""
    return lambda config, seed: bool(base(config, seed)) or (config * 0.754878 + 0.3) % 1.0 < share_more


def block(
    arms: Mapping[str, Stable],
    name: str = "ring",
    block_class: str = "P",
    *,
    family: str | None = None,
    configs: int = 120,
    seeds: Sequence[int] = (0, 1),
    q_stable: float = 0.1,
    cut: bool = False,
    **columns: Any,
) -> pd.DataFrame:
    """Rows of one block: learning rates spread log-uniformly over the box, batch norm in turn.

    Nothing is stable in the outer tenths of the box, so that it cuts no range off; with `cut`, `arms` alone decide.
    """
    place = (0.5 + np.arange(configs) * 0.569840) % 1.0
    rates, inside = 10 ** (-4 + 3 * place), (place > 0.1) & (place < 0.9)
    rows = []
    for arm, stable in arms.items():
        for i in range(configs):
            for seed in seeds:
                found = stable(i, seed)
                found = found if isinstance(found, str) else bool(found) and (cut or bool(inside[i]))
                judged = isinstance(found, bool | np.bool_)
                rows.append({
                    "block": name, "family": family or f"gan_{name}", "class": block_class, "arm": arm,
                    "config": f"batch_norm={'true' if i % 2 else 'false'},lr={rates[i]:g}", "seed": seed,
                    "stable": float(found) if judged else np.nan,
                    "q": (q_stable if found else 0.9) if judged else np.nan,
                    "lr": rates[i], "stratum": f"batch_norm={'true' if i % 2 else 'false'}",
                    "trial_id": f"{name}-{arm}-{i}-{seed}", "state": "complete" if judged else found,
                    "outcome": ("converged" if found else "plateau") if judged else None,
                    "q_final": (q_stable if found else 0.9) if judged else np.nan,
                    "q_best": 0.1, "t_thr": np.nan, "t_coll": np.nan, "t_div": np.nan, "inert": False,
                } | columns)  # fmt: skip
    return pd.DataFrame(rows)


def declared(arms: Sequence[str], **more: Any) -> dict[str, Any]:
    """What a plan says of a block of `block`."""
    sample = {"method": "sobol", "n": 120, "seed": 1, "space": SPACE}
    return {
        "arms": {arm: {} for arm in arms},
        "factors": {},
        "fixed": {},
        "sampled": list(SPACE),
        "sample": sample,
    } | more


def table(*blocks: pd.DataFrame, first_ms: int | None = 1_000, **plan: Any) -> pd.DataFrame:
    """Blocks together, with what their plan says; `plan` replaces what it says of every block."""
    whole = pd.concat(blocks, ignore_index=True)
    names = dict.fromkeys(whole["block"])
    whole.attrs = {
        "study": "demo",
        "blocks": {name: declared(list(whole.loc[whole["block"] == name, "arm"].unique()), **plan) for name in names},
        "pilots": {},
        "first_ms": first_ms,
    }
    return whole


def entry(trial_id: str, cell: Mapping[str, Any], block: str = "ring", **more: Any) -> dict[str, Any]:
    """A trial of a plan; `config` and other keys as given."""
    config = CONFIG | {"seed": 0} | more.pop("config", {})
    return {"trial_id": trial_id, "cell": dict(cell), "block": block, "seed": config["seed"], "inert": [],
            "also": [], "config": config} | more  # fmt: skip


def make_arm_store(
    path: Path, trials: Sequence[dict[str, Any]], blocks: Mapping[str, Any], claim: Mapping[str, Any] | None = None
) -> Ledger:
    """A store whose plan has blocks with arms; nothing is trained."""
    ledger = Ledger(path)
    ledger.create()
    plan = {"study": "demo", "hash": "0" * 12, "factors": {}, "blocks": dict(blocks), "trials": list(trials)}
    plan |= {"claim": dict(claim)} if claim else {}
    ledger.write_study("demo", "study: demo\n", plan, {})
    return ledger


def train_all(ledger: Ledger, quality: Mapping[str, Any], pack: str = "p1") -> None:
    """Train trials whose Q is the given number, or function of the evaluation, throughout."""
    train(ledger, pack, {trial_id: series(q) for trial_id, q in quality.items()})
