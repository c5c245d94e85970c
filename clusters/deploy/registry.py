"""Backends by name. To add one, add a file here, its templates, and a line in BACKENDS."""

from __future__ import annotations

from vistudy.clusters.deploy import aws, gcp, kubernetes, slurm, ssh
from vistudy.clusters.deploy.render import Backend

BACKENDS: dict[str, Backend] = {
    backend.name: backend for backend in (ssh.BACKEND, slurm.BACKEND, kubernetes.BACKEND, aws.BACKEND, gcp.BACKEND)
}
