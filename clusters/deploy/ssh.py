"""Machines that are reached by ssh and share a folder: Ray's on-premise launcher."""

from __future__ import annotations

from collections.abc import Mapping

from vistudy.clusters.deploy.render import PATH, WORD, Backend, Setting, common

HOST = r"[A-Za-z0-9][A-Za-z0-9.-]*"


def _hosts(values: Mapping[str, str]) -> str | None:
    names = [values["head"], *values["workers"].split(",")]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        return f"workers: {', '.join(sorted(twice))} is named twice (the head is a worker, too: do not repeat it)."
    if len(names) - 1 != int(values["nodes"]):
        return f"nodes: {values['nodes']}, but workers names {len(names) - 1}."
    return None


BACKEND = Backend(
    name="ssh",
    summary="machines under a desk, by ssh",
    files=("cluster.yaml", "README.md"),
    token=True,
    check=_hosts,
    settings=(
        *common(),
        Setting(name="head", pattern=HOST, help="Address of the head, which trains, too, e.g. 10.0.0.1.", default=None),
        Setting(
            name="workers",
            pattern=f"{HOST}(,{HOST})*",
            help="Addresses of the other machines, e.g. 10.0.0.2,10.0.0.3.",
            default=None,
        ),
        Setting(name="user", pattern=WORD, help="User to log in as.", default="vistudy"),
        Setting(name="key", pattern=PATH, help="Private key for ssh.", default="~/.ssh/id_ed25519"),
        Setting(
            name="venv",
            pattern=PATH,
            help="Virtual environment with vistudy, at the same path on every machine.",
            default="/shared/vistudy-venv",
        ),
    ),
)
