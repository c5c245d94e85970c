"""Faults inside the workers of a real run: a `sitecustomize` that changes how a GAN trains one of its seeds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

SITECUSTOMIZE = """
import ctypes, importlib.abc, importlib.util, json, os, sys, time

FAULT = json.loads(os.environ["FAULT"])


def act(pack):
    if FAULT["do"] == "exit":
        os._exit(3)
    if FAULT["do"] == "segfault":
        ctypes.string_at(0)
    if FAULT["do"] == "hang":
        time.sleep(10**6)
    if FAULT["do"] == "raise":
        raise ZeroDivisionError(f"seed {FAULT['seed']} divides by zero")
    if FAULT["do"] == "memory" and len(pack.seeds) > FAULT["fits"]:
        import torch

        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "vistudy.trainables.models.gan":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        inner = spec.loader.exec_module

        def exec_module(module):
            inner(module)
            period = module.GanPack.period

            def faulty(self, *, diagnose):
                if FAULT["seed"] in self.seeds and self.d_updates >= FAULT["at"]:
                    act(self)
                return period(self, diagnose=diagnose)

            module.GanPack.period = faulty

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
"""


def environment(folder: Path, **fault: Any) -> dict[str, str]:
    """The environment of a run with that fault: `do`, in packs with `seed`, from D update `at` on."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "FAULT": json.dumps(fault)}
