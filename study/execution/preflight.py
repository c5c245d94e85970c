"""Check before a run that all nodes share the store, run the same code and agree on the time.

Without shared storage a trial would succeed but its records would be lost; other versions give other numbers.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

from vistudy.analysis.ledger.atomic_files import FileStore
from vistudy.analysis.ledger.errors import StoreError, StudyError
from vistudy.clusters.base import PACKAGE, Cluster, ClusterError, Node

PACKAGES = ("vistudy", "torch", "torchvision", "numpy", "ray")
"""Packages that trials need, equal on every node. Local parts of versions (+cpu, +cu130) may differ."""
MAX_SKEW_S = 2.0
MIN_FREE_GB = 0.2
ANSWER_WITHIN_S = 60.0
"""The first task on a node waits for a worker process to import Ray and this code, perhaps from a network disk."""
CONNECT_WITHIN_S = 5.0
_MISSING = "not installed"
_log = logging.getLogger("vistudy.preflight")


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeInfo:
    """Versions, clock and resources that one machine reports."""

    host: str
    versions: dict[str, str]
    """Python and PACKAGES."""
    code: str
    """Hash of the code of all packages of vistudy."""
    answer: str
    """File that the node wrote into the store."""
    store: str | None
    """Why the node does not share the store; None if it does, or if that was not checked."""
    store_free_gb: float | None
    """Free space on the store's disk; None for object stores."""
    scratch_free_gb: float
    """Directory of temporary files."""
    tracking: str | None
    """Why the node cannot reach the tracking server; None if it can, or if there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeReport:
    """Comparison of one node with this process."""

    node: Node
    facts: NodeInfo | None
    skew_s: float | None
    """Clock skew against this machine in seconds, network delay excluded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """Result of the check: the usable cluster and its problems."""

    cluster: Cluster
    """The cluster without nodes that left during the check."""
    nodes: tuple[NodeReport, ...]
    departed: tuple[Node, ...]
    problems: tuple[str, ...]
    """One message per problem: which node, what is wrong, what to do."""


def require_usable(cluster: Cluster, store: str) -> Cluster:
    """Refuse a cluster on which records would be lost or would differ. Returns it without nodes that have just left.

    Raises:
        StudyError: all problems, one line per problem.
    """
    if cluster.local:
        return cluster
    result = inspect(cluster, store)
    if result.problems:
        raise StudyError(f"cluster {cluster.name}: " + "\n".join(result.problems))
    for node in result.departed:
        _log.warning("%s has left the cluster; the study runs on the other nodes", node.name)
    return validated(result.cluster)


def validated(cluster: Cluster) -> Cluster:
    """Return the cluster. Raises StudyError if it cannot hold a pack or has too few GPUs."""
    try:
        cluster.check()
    except ClusterError as error:
        raise StudyError(str(error)) from error
    return cluster


def inspect(cluster: Cluster, store: str | None, tracking: tuple[str, int] | None = None) -> Preflight:
    """Query every node and compare it with this machine. `tracking`: host and port of a server."""
    from vistudy.clusters.broadcast import in_this_process, on_every_node

    call = in_this_process if cluster.in_process else on_every_node
    with _nonce(store) as (nonce, answers):
        replies = call(collect_node_info, store, nonce, tracking, nodes=cluster.nodes, within_s=ANSWER_WITHIN_S)
        before = time.time()
        clocks = call(clock, nodes=cluster.nodes, within_s=ANSWER_WITHIN_S)
        after = time.time()
        here = collect_node_info(store, nonce, None)
        answers += [here.answer, *(answer.value.answer for answer in replies if answer.value)]
        problems, reports, departed = [], [], []
        for answer, read in zip(replies, clocks, strict=True):
            if answer.departed or read.departed:
                departed.append(answer.node)
                continue
            skew = None if read.value is None else _clock_skew(read.value, before, after)
            reports.append(NodeReport(node=answer.node, facts=answer.value, skew_s=skew))
            if answer.value is None:
                problems.append(
                    f"{answer.node.name} did not answer: {answer.error}. Look at its logs; the package vistudy and "
                    "what it needs must be installed there, in the versions of requirements.lock."
                )
                continue
            info = answer.value
            if info.store is None and store is not None and not FileStore(store).exists(info.answer):
                info = replace(info, store="files written there do not appear here")
            problems += _compare(answer.node.name, info, here, store, skew)
    remaining = replace(cluster, nodes=tuple(report.node for report in reports))
    return Preflight(cluster=remaining, nodes=tuple(reports), departed=tuple(departed), problems=tuple(problems))


def collect_node_info(store: str | None, nonce: str, tracking: tuple[str, int] | None) -> NodeInfo:
    """Report this machine's properties. Reads the driver's nonce from the store and answers with a file there."""
    answer = f"{nonce}-{uuid.uuid4().hex[:8]}"
    return NodeInfo(
        host=socket.gethostname(),
        versions={"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        code=code_hash(),
        answer=answer,
        store=_check_store_access(store, nonce, answer) if store else None,
        store_free_gb=_free_gb(store) if store else None,
        scratch_free_gb=round(shutil.disk_usage(tempfile.gettempdir()).free / 1e9, 1),
        tracking=_reaches(*tracking) if tracking else None,
    )


def clock() -> float:
    """Return this machine's time in seconds since 1970."""
    return time.time()


def code_hash() -> str:
    """Hash every Python file of vistudy, as this process imports it."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.glob("*/**/*.py")):
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return _MISSING


@contextlib.contextmanager
def _nonce(store: str | None) -> Iterator[tuple[str, list[str]]]:
    """Write a file that only sharers of the store see; yields its name and a list of answers, removes all files."""
    nonce, answers = f".preflight-{uuid.uuid4().hex}", list[str]()
    if store is None:
        yield nonce, answers
        return
    files = FileStore(store)
    files.write(nonce, nonce.encode())
    try:
        yield nonce, answers
    finally:
        for name in (nonce, *answers):
            files.remove(name)


def _check_store_access(store: str, nonce: str, answer: str) -> str | None:
    """Return None if this machine reads the driver's file and can write next to it, else the reason."""
    files = FileStore(store)
    try:
        if files.read(nonce) != nonce.encode():
            return "it reads other bytes than this machine wrote"
        files.write(answer, nonce.encode())
    except FileNotFoundError:
        return "it does not see a file that this machine wrote"
    except StoreError as error:
        return str(error)
    return None


def _free_gb(store: str) -> float | None:
    root = FileStore(store).local
    return None if root is None or not root.exists() else round(shutil.disk_usage(root).free / 1e9, 1)


def _reaches(host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), CONNECT_WITHIN_S).close()
    except OSError as error:
        return str(error)
    return None


def _clock_skew(clock: float, before: float, after: float) -> float:
    """Distance of a clock reading from the interval in which it was taken, in seconds."""
    return min(clock - before, 0.0) + max(clock - after, 0.0)


def _without_local_version(text: str) -> str:
    return text.partition("+")[0]


def _compare(name: str, info: NodeInfo, here: NodeInfo, store: str | None, skew_s: float | None) -> Sequence[str]:
    problems = []
    if info.store:
        problems.append(
            f"{name} does not share the store {store}: {info.store}. A study on several machines needs one store "
            "that all of them see: a folder on NFS or a parallel file system, mounted at the same path everywhere, "
            "or an object store (s3://bucket/folder)."
        )
    if info.store_free_gb is not None and info.store_free_gb < MIN_FREE_GB:
        problems.append(f"{name}: {info.store_free_gb} GB are free in the store {store}; {MIN_FREE_GB} are needed.")
    if info.scratch_free_gb < MIN_FREE_GB:
        problems.append(f"{name}: {info.scratch_free_gb} GB are free for temporary files; {MIN_FREE_GB} are needed.")
    different = [
        f"{what} {info.versions[what]} (here {own})"
        for what, own in here.versions.items()
        if _without_local_version(info.versions[what]) != _without_local_version(own)
    ]
    if different:
        problems.append(
            f"{name} has other versions: {', '.join(different)}. Records would depend on where a trial ran. Install "
            "the same requirements.lock everywhere, or use one image."
        )
    elif info.code != here.code:
        problems.append(
            f"{name} runs other code of vistudy: {info.code} (here {here.code}). Submit from the code that the "
            "image has, or build the image anew."
        )
    if skew_s is not None and abs(skew_s) > MAX_SKEW_S:
        problems.append(
            f"{name}: its clock is {abs(skew_s):.1f} s {'ahead' if skew_s > 0 else 'behind'}; at most {MAX_SKEW_S:.0f} "
            "s are allowed, since records have timestamps. Start NTP (chrony, systemd-timesyncd) info."
        )
    if info.tracking:
        problems.append(
            f"{name} does not reach the tracking server: {info.tracking}. Where the run itself is sent to the "
            "cluster (--detach), its head must; workers need not."
        )
    return problems


def local_cluster(packs_per_gpu: int = 1, gpus: int = 0) -> Cluster:
    """Describe the cluster `local`, without starting it: CPUs and GPUs that this process may use."""
    import torch

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = Node(name="local", cpus=cpus, gpus=torch.cuda.device_count())
    return validated(Cluster(name="local", nodes=(here,), local=True, packs_per_gpu=packs_per_gpu, min_gpus=gpus))
