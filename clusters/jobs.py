"""Run studies without a terminal, as jobs of a running Ray cluster that is given by the address of its dashboard.

A job is `vistudy run` on the head, with the code of this package and the study file. The head needs `ray[default]`.
"""

from __future__ import annotations

import contextlib
import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from vistudy.clusters.base import ClusterError
from vistudy.clusters.existing import runtime_env

STUDY = "vistudy.study"
"""Key of the study's name in the metadata of a job."""
FILE = "study.yaml"
STOP_S = 60.0
"""Seconds after which a job that was asked to stop is killed."""
AGENT_S = 30.0
"""Seconds to wait for the agent that starts jobs on a new head."""
_POLL_INTERVAL_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job that runs a study."""

    job_id: str
    study: str
    state: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    started_ms: int
    message: str

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return bool(JobStatus(self.state).is_terminal())


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, where: str) -> None:
        """Connect to the dashboard at `where`, such as http://10.0.0.5:8265.

        Raises:
            ClusterError: the address is malformed, nothing answers, or the connection is refused.
        """
        if not where.startswith(("http://", "https://")):
            raise ClusterError(
                f"cluster {where!r}: jobs are handed to a head's dashboard; give its address, such as http://10.0.0.5:8265."
            )
        self._where = where
        with self._translate_errors():
            self._client = JobSubmissionClient(where)

    def submit(self, study: str, text: str, options: Sequence[str]) -> Job:
        """Start `vistudy run` on the cluster with the study file `text` and `options`, and return without waiting.

        Raises:
            ClusterError: a job of that study is still active, or the cluster rejects the job.
        """
        active = [job for job in self.list(study) if not job.ended]
        if active:
            raise ClusterError(
                f"cluster {self._where}: job {active[-1].job_id} runs study {study!r} already; follow it with "
                f"`vistudy job logs {study} --cluster {self._where}`, or end it with `vistudy job stop`."
            )
        run = [
            "python",
            "-c",
            "from vistudy.study.cli.entry import main; main()",
            "run",
            FILE,
            "--cluster",
            "auto",
            *options,
        ]
        with tempfile.TemporaryDirectory(prefix="vistudy-job-") as folder, self._translate_errors():
            (Path(folder) / FILE).write_text(text, "utf-8")
            environment = runtime_env() | {"working_dir": folder}
            environment["env_vars"] |= {"RAY_JOB_STOP_WAIT_TIME_S": str(int(STOP_S))}  # Ray's 3 s are too few
            job_id = self._submit(entrypoint=shlex.join(run), runtime_env=environment, metadata={STUDY: study})
            return _job(self._client.get_job_info(job_id))

    def _submit(self, **job: Any) -> str:
        deadline = time.monotonic() + AGENT_S
        while True:
            try:
                return self._client.submit_job(**job)
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_INTERVAL_S)

    def list(self, study: str | None = None) -> Sequence[Job]:
        """Return the jobs of a study, or of all studies, newest last."""
        with self._translate_errors():
            jobs = [_job(info) for info in self._client.list_jobs() if (info.metadata or {}).get(STUDY)]
        return sorted((job for job in jobs if study in (None, job.study)), key=lambda job: job.started_ms)

    def newest(self, study: str) -> Job:
        """Return the newest job of a study.

        Raises:
            ClusterError: the study has no job.
        """
        jobs = self.list(study)
        if not jobs:
            names = ", ".join(sorted({job.study for job in self.list()})) or "none"
            raise ClusterError(f"cluster {self._where}: no job of study {study!r}; it has jobs of: {names}.")
        return jobs[-1]

    def logs(self, job: Job, *, follow: bool) -> Iterator[str]:
        """Yield the output of a job in pieces; with `follow`, until the job ends."""
        n_printed = 0
        while True:
            with self._translate_errors():
                ended = _job(self._client.get_job_info(job.job_id)).ended
                text = self._client.get_job_logs(job.job_id)
            yield text[n_printed:]
            n_printed = len(text)
            if ended or not follow:
                return
            time.sleep(_POLL_INTERVAL_S)

    def stop(self, job: Job) -> Job:
        """Send SIGTERM to a job, so that its packs write checkpoints, and wait for its end."""
        deadline = time.monotonic() + STOP_S
        with self._translate_errors():
            if not job.ended:
                self._client.stop_job(job.job_id)
            while not (now := _job(self._client.get_job_info(job.job_id))).ended and time.monotonic() < deadline:
                time.sleep(_POLL_INTERVAL_S)
        return now

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            raise ClusterError(
                f"cluster {self._where}: {str(error).strip().splitlines()[0]}. Check that it is the address of a "
                "head's dashboard, that ray[default] is installed there, and, where the cluster uses tokens, that "
                "RAY_AUTH_MODE=token and its token are set here too."
            ) from error


def _job(info: JobDetails) -> Job:
    return Job(
        job_id=str(info.submission_id),
        study=(info.metadata or {}).get(STUDY, ""),
        state=info.status.value,
        started_ms=info.start_time or 0,
        message=info.message or "",
    )
