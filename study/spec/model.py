"""A checked study: its blocks, their samples, arms and claim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vistudy.analysis.ledger.errors import StudyError
from vistudy.study.spec.arms import Arm
from vistudy.study.spec.claim import Claim
from vistudy.study.spec.hyperparameters import Cell, Level
from vistudy.study.spec.messages import KeyPath, SourceMap
from vistudy.study.spec.schema import ADAPTIVE
from vistudy.study.spec.search_space import Dimension
from vistudy.trainables.config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A checked sample."""

    method: str
    n: int
    seed: int
    space: tuple[Dimension, ...]
    start: int = 0
    """Points of the first round of `boundary`; 0 with other methods."""
    batch: int = 0
    """Points of its later rounds."""

    @property
    def is_adaptive(self) -> bool:
        """Whether its points depend on outcomes: then they are no sample of the space."""
        return self.method in ADAPTIVE

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        space = {dim.name: dim.to_json() for dim in self.space}
        rounds = {"start": self.start, "batch": self.batch} if self.method == "boundary" else {}
        return {"method": self.method, "n": self.n, **rounds, "seed": self.seed, "space": space}


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One model on one data set, with everything inherited and checked."""

    name: str
    config: type[TrainConfig]
    data: str
    seeds: tuple[int, ...]
    d_updates: int
    evaluations: int
    factors: Mapping[str, tuple[Level, ...]]
    fixed: Cell
    sample: Sample | None
    arms: Mapping[str, Arm]
    """Name -> arm; empty: every configuration is trained as it is."""
    family: str
    """Model, nets and data in one word, for a claim."""
    class_: str
    """Class of blocks that a claim decides separately; empty: none."""
    sample_evaluations: tuple[int, ...]
    """Evaluations that keep a grid of generated samples."""
    keep_checkpoints: str
    source: SourceMap
    paths: Mapping[str, KeyPath]
    """Key of the block -> where it stands in the file: in the block, or inherited from the top level."""

    @property
    def model(self) -> str:
        """Name in MODELS."""
        return self.config.model

    @property
    def varied(self) -> tuple[str, ...]:
        """Names that differ between configurations: factors and sampled ones."""
        return (*self.factors, *(dim.name for dim in (self.sample.space if self.sample else ())))

    def error(self, path: KeyPath, message: str) -> StudyError:
        """An error at a key of this block: ("factors", "lr")."""
        return self.source.error(self.paths[str(path[0])] + path[1:] if path else (), message)


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A validated study file."""

    name: str
    description: str
    text: str
    """The file as it was written."""
    hash: str
    """12 hex digits of the SHA-256 of its content: comments, layout and order of keys do not count."""
    blocks: tuple[Block, ...]
    claim: Claim | None
    """What the study is to decide, if it says so."""
    notes: tuple[str, ...] = ()
    """What was decided when the file was read, in sentences."""

    def error(self, path: KeyPath, message: str) -> StudyError:
        """An error at a key of the top level: ("claim", "baseline")."""
        return self.blocks[0].source.error(path, message)
