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

    on: Cluster
    """The cluster without nodes that left during the check."""
    nodes: tuple[NodeReport, ...]
    left: tuple[Node, ...]
    problems: tuple[str, ...]
    """One message per problem: which node, what is wrong, what to do."""


def require_usable(on: Cluster, store: str) -> Cluster:
    """Refuse a cluster on which records would be lost or would differ. Returns it without nodes that have just left.

    Raises:
        StudyError: all problems, one line per problem.
    """
    if on.local:
        return on
    found = inspect(on, store)
    if found.problems:
        raise StudyError(f"cluster {on.name}: " + "\n".join(found.problems))
    for node in found.left:
        _log.warning("%s has left the cluster; the study runs on the other nodes", node.name)
    return validated(found.on)


def validated(on: Cluster) -> Cluster:
    """Return the cluster. Raises StudyError if it cannot hold a pack or has too few GPUs."""
    try:
        on.check()
    except ClusterError as error:
        raise StudyError(str(error)) from error
    return on


def inspect(on: Cluster, store: str | None, tracking: tuple[str, int] | None = None) -> Preflight:
    """Query every node and compare it with this machine. `tracking`: host and port of a server."""
    from vistudy.clusters.broadcast import in_this_process, on_every_node

    ask = in_this_process if on.inline else on_every_node
    with _nonce(store) as (nonce, answers):
        asked = ask(collect_node_info, store, nonce, tracking, nodes=on.nodes, within_s=ANSWER_WITHIN_S)
        before = time.time()
        clocks = ask(clock, nodes=on.nodes, within_s=ANSWER_WITHIN_S)
        after = time.time()
        here = collect_node_info(store, nonce, None)
        answers += [here.answer, *(answer.value.answer for answer in asked if answer.value)]
        problems, reports, left = [], [], []
        for answer, read in zip(asked, clocks, strict=True):
            if answer.departed or read.departed:
                left.append(answer.node)
                continue
            skew = None if read.value is None else _clock_skew(read.value, before, after)
            reports.append(NodeReport(node=answer.node, facts=answer.value, skew_s=skew))
            if answer.value is None:
                problems.append(
                    f"{answer.node.name} did not answer: {answer.error}. Look at its logs; the package vistudy and "
                    "what it needs must be installed there, in the versions of requirements.lock."
                )
                continue
            there = answer.value
            if there.store is None and store is not None and not FileStore(store).exists(there.answer):
                there = replace(there, store="what it wrote there does not arrive here")
            problems += _compare(answer.node.name, there, here, store, skew)
    still = replace(on, nodes=tuple(report.node for report in reports))
    return Preflight(on=still, nodes=tuple(reports), left=tuple(left), problems=tuple(problems))


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
    found = hashlib.sha256()
    for path in sorted(PACKAGE.glob("*/**/*.py")):
        found.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:12]


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
    disk = FileStore(store)
    disk.write(nonce, nonce.encode())
    try:
        yield nonce, answers
    finally:
        for name in (nonce, *answers):
            disk.remove(name)


def _check_store_access(store: str, nonce: str, answer: str) -> str | None:
    """Return None if this machine reads the driver's file and can write next to it, else the reason."""
    disk = FileStore(store)
    try:
        if disk.read(nonce) != nonce.encode():
            return "it reads other bytes than were written"
        disk.write(answer, nonce.encode())
    except FileNotFoundError:
        return "it does not see what was written there from here"
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


def _compare(name: str, there: NodeInfo, here: NodeInfo, store: str | None, skew_s: float | None) -> Sequence[str]:
    found = []
    if there.store:
        found.append(
            f"{name} does not share the store {store}: {there.store}. A study on several machines needs one store "
            "that all of them see: a folder on NFS or a parallel file system, mounted at the same path everywhere, "
            "or an object store (s3://bucket/folder)."
        )
    if there.store_free_gb is not None and there.store_free_gb < MIN_FREE_GB:
        found.append(f"{name}: {there.store_free_gb} GB are free in the store {store}; {MIN_FREE_GB} are needed.")
    if there.scratch_free_gb < MIN_FREE_GB:
        found.append(f"{name}: {there.scratch_free_gb} GB are free for temporary files; {MIN_FREE_GB} are needed.")
    other = [
        f"{what} {there.versions[what]} (here {mine})"
        for what, mine in here.versions.items()
        if _without_local_version(there.versions[what]) != _without_local_version(mine)
    ]
    if other:
        found.append(
            f"{name} has other versions: {', '.join(other)}. Records would depend on where a trial ran. Install the "
            "same requirements.lock everywhere, or use one image."
        )
    elif there.code != here.code:
        found.append(
            f"{name} runs other code of vistudy: {there.code} (here {here.code}). Submit from the code that the "
            "image has, or build the image anew."
        )
    if skew_s is not None and abs(skew_s) > MAX_SKEW_S:
        found.append(
            f"{name}: its clock is {abs(skew_s):.1f} s {'ahead' if skew_s > 0 else 'behind'}; at most {MAX_SKEW_S:.0f} "
            "s are allowed, since records bear times. Start NTP (chrony, systemd-timesyncd) there."
        )
    if there.tracking:
        found.append(
            f"{name} does not reach the tracking server: {there.tracking}. Where the run itself is sent to the "
            "cluster (--detach), its head must; workers need not."
        )
    return found


def local_cluster(packs_per_gpu: int = 1, gpus: int = 0) -> Cluster:
    """Describe the cluster `local`, without starting it: CPUs and GPUs that this process may use."""
    import torch

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = Node(name="local", cpus=cpus, gpus=torch.cuda.device_count())
    return validated(Cluster(name="local", nodes=(here,), local=True, packs_per_gpu=packs_per_gpu, min_gpus=gpus))
