"""What a user set and no cell can read: a factor that changes nothing is a mistake, and refused."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from vistudy.study.planning.sampling import to_cell
from vistudy.study.planning.trial_configs import Variant, build_config, key_path, set_names
from vistudy.study.spec.arms import Arm
from vistudy.study.spec.hyperparameters import RESERVED, Cell, assign, field_types, settable
from vistudy.study.spec.messages import error_message
from vistudy.study.spec.model import Block
from vistudy.trainables.config import TrainConfig, hyperparameters

READ_CHECK_CELLS = 20_000
"""Cells that are tried at most in search of one that reads a factor."""

Setting = tuple[str | None, str]
"""(arm, or None for the block; name of what it sets)."""


def check_settings_used(block: Block) -> None:
    """Refuse what the user set and no possible cell reads (a fixed value that is the default does no harm).

    Raises:
        StudyError: with the settings under which it would be read.
    """
    dims = block.sample.space if block.sample else ()
    combinations = itertools.product(*block.factors.values(), *(dim.choices or (dim.low,) for dim in dims))
    settings: list[Setting] = [(None, name) for name in set_names(block)]
    settings += [(arm.name, name) for arm in block.arms.values() for name in arm.written]
    pending, seen_in = set(settings), dict[Setting, TrainConfig]()
    for levels in itertools.islice(combinations, READ_CHECK_CELLS):
        cell: Cell = dict(zip(block.factors, levels, strict=False))
        cell |= to_cell(dims, levels[len(block.factors) :], block.fixed | cell)
        for arm in block.arms.values() or (None,):
            for own in _draws(arm):
                _mark_used(block, cell | own, arm, pending, seen_in)
        if not pending:
            return
    if next(combinations, None) is not None:
        return  # too many to try
    setting = next(setting for setting in settings if setting in pending)
    arm_name, name = setting
    reason = "its condition holds in no cell"
    if setting in seen_in:
        reason = f"it would be with {when_used(seen_in[setting], settable(block.config)[name][0])}"
    arm = None if arm_name is None else block.arms[arm_name]
    where = "in no cell" if arm is None else f"in no cell of arm {arm.name}"
    raise block.error(
        key_path(block, name, arm), error_message(f"'{name}' is read {where}", hint=f"{reason}; or take it out")
    )


def _draws(arm: Arm | None) -> Iterator[Cell]:
    """Values that an arm may draw: all of its choices, the low end of its ranges."""
    space = arm.space if arm else ()
    for levels in itertools.product(*(dim.choices or (dim.low,) for dim in space)):
        yield {dim.name: level for dim, level in zip(space, levels, strict=True)}


def _mark_used(
    block: Block, cell: Cell, arm: Arm | None, pending: set[Setting], seen_in: dict[Setting, TrainConfig]
) -> None:
    """Take out of `pending` what this cell reads; note it for what it has and does not read."""
    config = build_config(block, cell, Variant(arm=arm, scale=1.0))
    unread = config.unused_fields()
    present: dict[Setting, Cell] = {
        (None, name): assign(block.config, name, level)
        for name, level in (block.fixed | cell).items()
        if (None, name) in pending
    }
    for name in arm.written if arm else ():
        if arm and (arm.name, name) in pending:
            present[arm.name, name] = {target: getattr(config, target) for target in settable(block.config)[name]}
    for setting, values in present.items():
        seen_in[setting] = config
        owner, name = setting
        is_default = (owner is not None or name in block.fixed) and values.items() <= unread.items()
        if values.keys() - unread.keys() or is_default:
            pending.remove(setting)


def when_used(config: TrainConfig, field: str) -> str:
    """The settings under which `config` would read `field`, found by trying the others one by one."""
    conditions: list[str] = []
    kinds = field_types(type(config))
    for name, hyper in hyperparameters(type(config)).items():
        now = getattr(config, name)
        if name == field or name in RESERVED:
            continue
        others = hyper.choices or ((now + 1,) if kinds[name] is int and isinstance(now, int) else ())
        for other in others:
            if other != now and field not in dataclasses.replace(config, **{name: other}).unused_fields():
                conditions.append(f"{name}: {other}" if hyper.choices else f"{name} above {now}")
    return " or ".join(conditions) or "another model"
