"""Train one trial again and film it: an animation of its samples and a strip like the figures of GAN papers.

By default the whole stored pack is trained. With the code, versions and processor of the original run, all records are
bitwise equal; elsewhere they differ by rounding, which chaotic training can amplify. `without_pack=True` trains the
trial alone, which is faster but sums floats in another order: toys in double precision agree to about 1e-9, while
single-precision GANs drift apart within some hundred steps. The new records are compared with the stored ones, and the
result says how far they agree. Nothing is written into the store.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vistudy.analysis.figures.sample_images import drawable
from vistudy.analysis.ledger.documents import PackRecord, Record
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.films.agreement import Agreement, compare_records
from vistudy.study.films.film import Caption, Frame, write_film

if TYPE_CHECKING:
    from vistudy.trainables.config import TrainConfig
    from vistudy.trainables.engine import Engine

FRAMES = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Film:
    """Files of a film, and the agreement of the repeated training with the stored one."""

    trial_id: str
    frames: int
    gif: Path
    mp4: Path | None
    """None without ffmpeg."""
    strip: Path
    agreement: Agreement

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(path for path in (self.gif, self.mp4, self.strip) if path is not None)


def film_trial(
    trial_id: str,
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    frames: int = FRAMES,
    without_pack: bool = False,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Film:
    """Train a trial again in this process, on one thread; write `<trial_id>.gif`, `.mp4` (with ffmpeg), `-strip.png`.

    Args:
        trial_id: as `vistudy plan --trials` lists it, or an unambiguous beginning.
        store: the ledger, which is only read.
        out: folder for the files; created if it does not exist.
        frames: number of pictures after the first; fewer if the trial has fewer periods.
        without_pack: train the trial without the rest of its pack; see the module docstring.
        tick: called with (D updates done, D updates in all).

    Raises:
        StudyError: no such trial, one that was never begun, a model whose samples have no picture, or no frames.
    """
    from vistudy.study.execution.data_check import data_errors
    from vistudy.trainables.data import DataError, refuse_other_data
    from vistudy.trainables.metrics.features.image_classifier import one_thread
    from vistudy.trainables.trial_identity import NOT_RECORDED

    if frames < 1:
        raise StudyError(f"--frames {frames}: give at least 1")
    ledger = Ledger(store)
    study, config, pack = _find(ledger, trial_id)
    try:
        refuse_other_data(config.data, config.data_fingerprint or NOT_RECORDED)
    except DataError as error:
        raise StudyError(f"trial {config.trial_id()}: {error}") from error
    stored = {record["evaluation"]: record for record in ledger.records([config.trial_id()])}
    label, reference = _label(ledger, study, config.trial_id(), list(stored.values())), pack["reference"]
    configs = [config] if without_pack else _configs(pack)
    filmed, repeated = list[Frame](), dict[int, Mapping[str, float]]()
    with data_errors(), one_thread():  # as workers train: sums over several threads have another order
        for item in _frames(configs, config, frames):
            if isinstance(item, Frame):
                filmed.append(item)
                tick(item.step, config.d_updates)
            else:
                repeated[item[0]] = item[1]
    agreement = compare_records({e: record["values"] for e, record in stored.items()}, repeated)
    caption = Caption(
        trial_id=config.trial_id(), what=_what(config), outcome=label, limit=1.2 * reference["max_abs_data"],
        modes=_modes(config.data), note="" if agreement.first is None else agreement.text,
    )  # fmt: skip
    gif, mp4, strip = write_film(filmed, caption, Path(out))
    return Film(trial_id=config.trial_id(), frames=len(filmed), gif=gif, mp4=mp4, strip=strip, agreement=agreement)


def _find(ledger: Ledger, prefix: str) -> tuple[str, TrainConfig, PackRecord]:
    """Study, configuration and pack of the trial whose id begins with `prefix`."""
    matches = {
        entry["trial_id"]: (study, entry["config"])
        for study in ledger.study_names()
        for entry in ledger.read_plan(study)["trials"]
        if prefix and entry["trial_id"].startswith(prefix)
    }
    if prefix in matches:
        matches = {prefix: matches[prefix]}
    if len(matches) != 1:
        several = (
            f"{len(matches)} trials begin so: {', '.join(sorted(matches)[:5])}"
            if matches
            else "no study there plans it"
        )
        raise StudyError(
            f"trial {prefix!r} in the store {ledger.uri}: {several}. `vistudy plan FILE --trials` lists ids."
        )
    ((trial_id, (study, config)),) = matches.items()
    outcome = ledger.read_outcomes([trial_id]).get(trial_id)
    packs = ledger.packs()
    if outcome is not None:
        return study, _config(config), packs[outcome["pack_id"]]
    started = [pack for pack in packs.values() if trial_id in pack["trial_ids"]]
    if not started:
        raise StudyError(f"trial {trial_id} of {study} has not been begun; `vistudy run` comes first.")
    return study, _config(config), max(started, key=lambda pack: int(pack["created_ms"]))


def _configs(pack: PackRecord) -> list[TrainConfig]:
    return [_config(trial) for trial in pack.get("slots", pack["trials"])]  # as it was trained


def _config(stored: Mapping[str, Any]) -> TrainConfig:
    from vistudy.trainables.node_checks import NodeFailed, trial_configs

    try:
        return trial_configs([stored])[0]
    except NodeFailed as error:
        raise StudyError(f"the trial cannot be trained here: this machine {error}.") from error


def _frames(
    configs: Sequence[TrainConfig], config: TrainConfig, frames: int
) -> Iterator[Frame | tuple[int, Mapping[str, float]]]:
    """Train and yield, in order, frames and (evaluation, values) of the trial's records.

    Frames are taken between periods and draw no random numbers, so they do not change the training.
    """
    from vistudy.trainables.data import DATASETS
    from vistudy.trainables.engine import Engine
    from vistudy.trainables.metrics.evaluate import n_samples

    engine = Engine(configs, keep_samples=range(config.evaluations + 1))
    trial_id, n = config.trial_id(), n_samples(DATASETS[config.data])
    times = [config.d_updates * i / frames for i in range(frames + 1)]
    evaluations = engine.evaluations()
    while True:
        for step in _between(engine, times):
            row = engine.trial_ids.index(trial_id)
            samples = engine.pack.evaluation_samples(n, engine.next_evaluation)[0][row : row + 1]
            yield _frame(step, engine.kept_samples(samples[0]))
        item = next(evaluations, None)
        values = {} if item is None else {r.trial_id: r.values for r in item.records}
        if item is None or trial_id not in values:
            return
        yield item.index, values[trial_id]
        if times and times[0] <= item.step:
            times[:] = [time for time in times if time > item.step]
            yield _frame(item.step, item.samples[trial_id])


def _between(engine: Engine, times: list[float]) -> Iterator[int]:
    """Train up to each time before the last period of the next evaluation, and remove it from the list."""
    from vistudy.trainables.device import flush_denormals

    c = engine.configs[0]
    period = c.steps_of_period()[0]
    end = c.d_updates * engine.next_evaluation / c.evaluations - period
    while engine.next_evaluation and times and engine.pack.d_updates < end and times[0] < end:
        with flush_denormals():
            while engine.pack.d_updates < times[0]:
                engine.pack.period(diagnose=False)
        times[:] = [time for time in times if time > engine.pack.d_updates]
        yield engine.pack.d_updates


def _frame(step: int, samples: np.ndarray) -> Frame:
    if not drawable(samples.shape):
        raise StudyError(
            f"samples of shape {samples.shape} have no picture: a film needs points in the plane or images; "
            "the numbers of a toy are in its records (vistudy export --records)."
        )
    return Frame(step=step, samples=samples)


def _label(ledger: Ledger, study: str, trial_id: str, records: list[Record]) -> str:
    """The stored outcome in words; the state of a trial without one."""
    from vistudy.analysis.outcomes.labels import LABEL_TEXT
    from vistudy.analysis.tables.trials import label_trials

    outcomes = ledger.read_outcomes([trial_id])
    labels, _ = label_trials(ledger, study, {trial_id: records}, outcomes)
    if trial_id in labels:
        return LABEL_TEXT[labels[trial_id]["label"]][0]
    return str(outcomes[trial_id]["state"]) if trial_id in outcomes else "unfinished"


def _what(config: TrainConfig) -> str:
    """Model, data and the hyperparameters that heatmaps have on their axes."""
    from vistudy.analysis.tables.formatting import level_text

    values = dataclasses.asdict(config)
    texts = {"g_lr": "G lr", "d_lr": "D lr", "relaxation": "η", "reg_weight": "λ"}
    parts = [f"{text} {level_text(None, float(values[name]))}" for name, text in texts.items() if name in values]
    if "d_steps" in values and "g_steps" in values:
        parts.append(f"D:G {values['d_steps']}:{values['g_steps']}")
    return f"{config.model} on {config.data} · {', '.join(parts)} · seed {config.seed}"


def _modes(data: str) -> np.ndarray | None:
    from vistudy.study.execution.runner import real_modes

    return real_modes().get(data)
