"""Hosts with addresses of their own on one machine: Linux network namespaces on one switch. Needs root.

    with switched(3) as lan:
        with four_nodes(nodes=3, hosts=lan.hosts) as nodes:
            lan.cut(1)      # host 1 is reached by nobody, and reaches nobody
            lan.heal(1)

Everything is inside namespaces made here; the machine's own network is not touched.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from tests.clusters.four_nodes import Host


@dataclass(frozen=True, kw_only=True, slots=True)
class Lan:
    """Hosts on one switch."""

    switch: str
    names: tuple[str, ...]
    """Namespaces of the hosts."""

    @property
    def hosts(self) -> list[Host]:
        """Address of each, and how a command is started there."""
        return [(f"10.77.0.{i + 1}", self.inside(i)) for i in range(len(self.names))]

    def inside(self, host: int) -> list[str]:
        """What starts a command on a host."""
        return ["ip", "netns", "exec", self.names[host]]

    def cut(self, host: int) -> None:
        """Pull its cable."""
        _ip("-n", self.switch, "link", "set", f"port{host}", "down")

    def heal(self, host: int) -> None:
        """Plug it in again."""
        _ip("-n", self.switch, "link", "set", f"port{host}", "up")


def possible() -> bool:
    """Whether namespaces can be made here."""
    if os.geteuid() != 0:
        return False
    name = f"vs{os.getpid()}-try"
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        return False
    _ip("netns", "del", name)
    return True


@contextlib.contextmanager
def switched(hosts: int) -> Iterator[Lan]:
    """So many hosts on one switch, for the time of a `with`."""
    prefix = f"vs{os.getpid()}"
    lan = Lan(switch=f"{prefix}-sw", names=tuple(f"{prefix}-h{i}" for i in range(hosts)))
    made = []
    try:
        for name in (lan.switch, *lan.names):
            _ip("netns", "add", name)
            made.append(name)
        _ip("-n", lan.switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", lan.switch, "link", "set", "br0", "up")
        for i, name in enumerate(lan.names):
            _ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{i}", "netns", lan.switch)
            _ip("-n", lan.switch, "link", "set", f"port{i}", "master", "br0", "up")
            _ip("-n", name, "address", "add", f"10.77.0.{i + 1}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield lan
    finally:
        for name in made:
            _ip("netns", "del", name)


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True)
