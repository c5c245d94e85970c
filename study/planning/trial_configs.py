"""Cells of a block: every configuration in every arm, and the training configuration of each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vistudy.analysis.ledger.errors import StudyError
from vistudy.study.planning.boundary import SAMPLERS
from vistudy.study.planning.sampling import sample_arm_points, sample_points, to_cell
from vistudy.study.spec.arms import Arm, Match, overrides
from vistudy.study.spec.hyperparameters import Cell, assign
from vistudy.study.spec.limits import PILOT_CONFIGS, PILOT_SCALES
from vistudy.study.spec.messages import KeyPath, error_message
from vistudy.study.spec.model import Block
from vistudy.trainables.config import TrainConfig
from vistudy.trainables.data import DataError

DriftScales = Mapping[tuple[str, str], Match]
"""(block, arm) -> what the pilots of an arm with `match_drift` have shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """How a configuration is trained: as it is, in an arm, or as a pilot of one."""

    arm: Arm | None = None
    scale: float | None = None
    """Factor of the arm's matched hyperparameter."""
    pilot: bool = False


def pilot_name(arm: str, scale: float) -> str:
    """The arm in which the pilot trials of an arm stand: `A3a~0.316`."""
    return f"{arm}~{scale:g}"


def variants(block: Block, matched: DriftScales) -> dict[str | None, Variant]:
    """What `arm` of a cell may be -> what it means; pilots come last. An arm whose scale is unknown is missing."""
    if not block.arms:
        return {None: Variant()}
    variants_: dict[str | None, Variant] = {}
    for name, arm in block.arms.items():
        match = matched.get((block.name, name))
        if arm.match is None or (match is not None and match.scale is not None):
            variants_[name] = Variant(arm=arm, scale=match.scale if match else None)
    for arm in block.arms.values():
        for scale in PILOT_SCALES if arm.match else ():
            variants_[pilot_name(arm.name, scale)] = Variant(arm=arm, scale=scale, pilot=True)
    return variants_


def block_cells(block: Block, variants_: Mapping[str | None, Variant]) -> Iterator[Cell]:
    """Every cell of a block: grid, sample, arm; then those of the pilots."""
    if block.sample is not None and block.sample.is_adaptive:
        design = SAMPLERS[block.sample.method]
        for levels in itertools.product(*block.factors.values()):
            cell: Cell = dict(zip(block.factors, levels, strict=True))
            for name in variants_:
                yield from design(block, arm=cell if name is None else {"arm": name, **cell}).ask(block.sample.n)
        return
    configs = list(configurations(block))
    own = {
        name: sample_arm_points(block.sample, v.arm.space) for name, v in variants_.items() if v.arm and block.sample
    }
    first = set(pilot_configurations(block))
    for pilots in (False, True):
        for i, (place, cell) in enumerate(configs):
            for name, variant in variants_.items():
                if variant.pilot is pilots and (not pilots or i in first):
                    yield (
                        cell
                        if variant.arm is None
                        else {"arm": str(name), **cell, **_own(variant.arm, own, name, place)}
                    )


def _own(arm: Arm, own: Mapping[str | None, list[tuple[Any, ...]]], name: str | None, place: int) -> Cell:
    return dict(zip((dim.name for dim in arm.space), own[name][place], strict=True)) if arm.space else {}


def configurations(block: Block) -> Iterator[tuple[int, Cell]]:
    """(place in the sample, cell without arm) of every configuration: the grid, and in each of its cells the sample."""
    points = None if block.sample is None else sample_points(block.sample)
    for levels in itertools.product(*block.factors.values()):
        cell: Cell = dict(zip(block.factors, levels, strict=True))
        if points is None or block.sample is None:
            yield 0, cell
        else:
            context = block.fixed | cell
            yield from ((i, cell | to_cell(block.sample.space, point, context)) for i, point in enumerate(points))


def pilot_configurations(block: Block) -> list[int]:
    """Places, in `configurations`, of those that the pilots train.

    Of a sample the first ones, in every cell of the grid in turn: they stay when n is raised. Of a grid alone some that
    are spread over it.
    """
    grid = 1
    for levels in block.factors.values():
        grid *= len(levels)
    n = block.sample.n if block.sample else 1
    count = min(PILOT_CONFIGS, grid * n)
    if block.sample is None:
        return sorted({round(i * (grid - 1) / max(1, count - 1)) for i in range(count)})
    return [(k % grid) * n + k // grid for k in range(count)]


def set_names(block: Block) -> list[str]:
    """Everything that the user set, for all arms."""
    return [*block.varied, *block.fixed]


def key_path(block: Block, name: str, arm: Arm | None = None) -> KeyPath:
    """Where the user set `name`."""
    if arm is not None and name in arm.written:
        return ("arms", arm.name, name)
    if name in block.factors:
        return ("factors", name)
    return ("fixed", name) if name in block.fixed else ("sampling", "space", name)


def build_config(block: Block, cell: Cell, variant: Variant) -> TrainConfig:
    """The configuration of a cell, unresolved.

    Raises:
        StudyError: an arm scales a value out of its bounds.
    """
    values: dict[str, Any] = {"data": block.data, "d_updates": block.d_updates, "evaluations": block.evaluations}
    own = {"arm", *(dim.name for dim in variant.arm.space)} if variant.arm else set()
    for name, level in (block.fixed | cell).items():
        if name not in own:
            values |= assign(block.config, name, level)
    config = block.config(**values)
    if variant.arm is None:
        return config
    try:
        return dataclasses.replace(config, **overrides(config, variant.arm, cell, variant.scale))
    except ValueError as error:
        raise _refused(block, cell, variant, error) from None


def resolve_config(block: Block, cell: Cell, variant: Variant) -> TrainConfig:
    """The resolved configuration of a cell.

    Raises:
        StudyError: the model or the data refuses it.
    """
    config = build_config(block, cell, variant)
    try:
        config = config.resolve()
    except DataError as error:
        raise StudyError(f"data: {block.data}: {error}") from error
    except ValueError as error:
        raise _refused(block, cell, variant, error) from None
    d_steps = config.steps_of_period()[0]
    periods = -(-block.d_updates // d_steps)
    if periods < block.evaluations:
        problem = f"an evaluation would have no update in cell {cell}, whose periods have {d_steps} D updates"
        allowed = f"up to d_updates / {d_steps}, {periods}"
        raise block.error(("budget", "evaluations"), error_message(problem, got=block.evaluations, allowed=allowed))
    return config


def _refused(block: Block, cell: Cell, variant: Variant, error: ValueError) -> Exception:
    name = str(error).partition(":")[0]
    set_by_user = name in set_names(block) or (variant.arm is not None and name in variant.arm.written)
    path: KeyPath = key_path(block, name, variant.arm) if set_by_user else ("data",)
    return block.error(path, f"cell {cell}: {error}")
