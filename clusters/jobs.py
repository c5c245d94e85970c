"""Studies that run without a terminal: jobs of a running Ray cluster, by the address of its dashboard.

A job is `vistudy run` on the head, with this checkout's code and the study's file. It needs `ray[default]` on the head.
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
"""Key of a job's metadata: the name of the study that it runs."""
FILE = "study.yaml"
STOP_S = 60.0
"""How long a job that was told to stop may take to its end, until it is killed."""
AGENT_S = 30.0
"""How long a head that has just started may take until it has what starts jobs."""
_POLL_INTERVAL_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One run of a study as a job."""

    job_id: str
    study: str
    state: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    started_ms: int
    message: str

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return bool(JobStatus(self.state).is_terminal())


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, where: str) -> None:
        """Reach the dashboard at `where`.

        Raises:
            ClusterError: it is no address of a dashboard, nothing answers, or it refuses us.
        """
        if not where.startswith(("http://", "https://")):
            raise ClusterError(
                f"cluster {where!r}: jobs are handed to a head's dashboard; give its address, such as http://10.0.0.5:8265."
            )
        self._where = where
        with self._translate_errors():
            self._client = JobSubmissionClient(where)

    def submit(self, study: str, text: str, options: Sequence[str]) -> Job:
        """Start `vistudy run` with the file `text` and `options` on the cluster, and return at once.

        Raises:
            ClusterError: a job of that study has not ended, or the cluster refuses.
        """
        going = [job for job in self.list(study) if not job.ended]
        if going:
            raise ClusterError(
                f"cluster {self._where}: job {going[-1].job_id} runs study {study!r} already; follow it with "
                f"`vistudy logs {study} --cluster {self._where}`, or end it with `vistudy stop`."
            )
        run = [
            "python",
            "-c",
            "from vistudy.study.cli.main import main; main()",
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
        """Jobs of a study, or of all studies, the newest last."""
        with self._translate_errors():
            found = [_job(info) for info in self._client.list_jobs() if (info.metadata or {}).get(STUDY)]
        return sorted((job for job in found if study in (None, job.study)), key=lambda job: job.started_ms)

    def newest(self, study: str) -> Job:
        """The newest job of a study.

        Raises:
            ClusterError: there is none.
        """
        found = self.list(study)
        if not found:
            known = ", ".join(sorted({job.study for job in self.list()})) or "none"
            raise ClusterError(f"cluster {self._where}: no job of study {study!r}; it has jobs of: {known}.")
        return found[-1]

    def logs(self, job: Job, *, follow: bool) -> Iterator[str]:
        """What a job has printed, in pieces; with `follow` until it ends."""
        seen = 0
        while True:
            with self._translate_errors():
                ended = _job(self._client.get_job_info(job.job_id)).ended
                text = self._client.get_job_logs(job.job_id)
            yield text[seen:]
            seen = len(text)
            if ended or not follow:
                return
            time.sleep(_POLL_INTERVAL_S)

    def stop(self, job: Job) -> Job:
        """Send a job SIGTERM, at which its packs write checkpoints, and wait for its end."""
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
