"""Files of every backend, rendered from answers like a user's."""

from __future__ import annotations

from pathlib import Path

from vistudy.clusters.deploy.registry import BACKENDS
from vistudy.clusters.deploy.render import render

SERVER = {"tracking-uri": "http://mlflow.internal:5000"}
IMAGE = {"image": "registry.example.org/vistudy:0.1.0"}
ANSWERS: dict[str, dict[str, str]] = {
    "ssh": {"store": "/shared/vistudy", "head": "10.0.0.1", "workers": "10.0.0.2,10.0.0.3"},
    "slurm": {"store": "/shared/vistudy", "partition": "gpu", "account": "me"},
    "kubernetes": {"store": "/store", "claim": "vistudy"} | IMAGE,
    "aws": {"store": "s3://bucket/vistudy", "ami": "ami-0123456789abcdef0"} | IMAGE,
    "gcp": {"store": "gs://bucket/vistudy", "project": "my-project"} | IMAGE,
}
"""What has to be given."""


def files(name: str, folder: Path, **answers: str) -> dict[str, str]:
    """Name -> text of a backend's files, rendered with defaults and `answers` (`_` for `-`)."""
    given = {key.replace("_", "-"): value for key, value in answers.items()}
    return {path.name: path.read_text() for path in render(BACKENDS[name], SERVER | ANSWERS[name] | given, folder)}
