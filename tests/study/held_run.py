"""Runs that wait where a test wants to send them a signal: a `sitecustomize` that holds one function of the project."""

from __future__ import annotations

import os
from pathlib import Path

SITECUSTOMIZE = """
import functools, importlib.abc, importlib.util, os, sys, time

MODULE, _, NAME = os.environ["HOLD"].partition(":")


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        inner = spec.loader.exec_module

        def exec_module(module):
            inner(module)
            *path, last = NAME.split(".")
            home = functools.reduce(getattr, path, module)
            function = getattr(home, last)

            def held(*args, **kwargs):
                print("HELD", file=sys.stderr, flush=True)
                time.sleep(float(os.environ["HOLD_S"]))
                return function(*args, **kwargs)

            setattr(home, last, held)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
"""


def environment(folder: Path, where: str, seconds: float = 60.0) -> dict[str, str]:
    """The environment of a run whose function `where` (module:name) says HELD and waits before it does its work."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "HOLD": where, "HOLD_S": str(seconds)}
