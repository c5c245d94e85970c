"""A running Ray cluster: the address of its head (HOST:PORT), or `auto` for the cluster of this node."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]

from vistudy.clusters.base import PACKAGE, Cluster, ClusterError, nodes

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 10.0
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"


@contextmanager
def existing(where: str) -> Iterator[Cluster]:
    """Connect to a cluster and send it this package.

    Raises:
        ClusterError: nothing answers, the connection is refused, or the versions of Ray or Python differ.
    """
    if where != "auto":
        _check_reachable(where)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if where != "auto":
            _check_auth(where)
        ray.init(
            address=where,
            logging_level=logging.ERROR,
            log_to_driver=False,
            # Inside a Ray job, the environment of the job already has the code, and Ray rejects a second one.
            runtime_env=None if JOB_CONFIG in os.environ else runtime_env(),
        )
    except ray.exceptions.AuthenticationError as error:
        raise ClusterError(
            f"cluster {where}: it asks for another token than ours. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH, here as they are on the head."
        ) from error
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"cluster {where}: Ray refused the connection: {error}. Check that this is the address of a running head, "
            "that Ray and Python have the same versions here and there, and, where the cluster uses tokens, that "
            "RAY_AUTH_MODE=token and its token are set here too."
        ) from error
    try:
        yield Cluster(name=where, nodes=nodes(), local=False)
    finally:
        ray.shutdown()


def runtime_env() -> dict[str, Any]:
    """Ray runtime environment with the code of this package, including added models, and its environment variables."""
    return {
        "py_modules": [str(PACKAGE)],
        "env_vars": {name: value for name, value in os.environ.items() if name.startswith("VISTUDY_")},
        "excludes": ["__pycache__"],
    }


def _check_reachable(where: str) -> None:
    """Raise ClusterError if the address is malformed or nothing listens there. Ray itself would retry for a minute."""
    host, _, port = where.removeprefix("ray://").rpartition(":")
    if where.startswith("ray://"):
        raise ClusterError(
            f"cluster {where}: Ray Client (ray://) cannot run studies; give the head's own address, "
            f"{host}:6379 by default, from a machine of the cluster's network."
        )
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ClusterError(f"cluster {where!r}: want local, auto, or HOST:PORT such as 10.0.0.5:6379.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(
            f"cluster {where}: nothing answers there ({error}). Start a head with `ray start --head --port={port}`, "
            "or leave --cluster out to run on this machine."
        ) from error


def _check_auth(where: str) -> None:
    """Raise if the token is rejected or no Ray head answers.

    Ray itself would retry a rejected token 20 times, and wait 40 s for a server that is no Ray head.
    """
    answer: Future[None] = Future()

    def ask() -> None:
        try:
            GcsClient(address=where)
        except Exception as error:
            answer.set_exception(error)
        else:
            answer.set_result(None)

    threading.Thread(target=ask, name="vistudy-connect", daemon=True).start()
    try:
        answer.result(ANSWER_TIMEOUT_S)
    except TimeoutError as error:
        raise ClusterError(
            f"cluster {where}: something listens there, but does not answer as a Ray head within "
            f"{ANSWER_TIMEOUT_S:.0f} s. Give the head's own port: 6379 by default; 8265 is its dashboard, 10001 Ray "
            "Client."
        ) from error
