"""Options, output streams and study names that the commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)

StudyFile = Annotated[
    Path, typer.Argument(help="Study file (YAML, see docs/study-file.md), or the name of a recipe such as quickstart.")
]
StudyName = Annotated[str, typer.Argument(help="Study file, or the name of a study in the store.")]
Store = Annotated[str, typer.Option("--store", help="Ledger: a directory, or a URI such as s3://bucket/folder.")]
TrackingUri = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="MLflow: sqlite:///FILE or http(s)://HOST:PORT. Default: a file in the store."),
]
Cluster = Annotated[str, typer.Option("--cluster", help="local, debug (no Ray), or HOST:PORT of a running Ray head.")]
PacksPerGpu = Annotated[
    int, typer.Option("--packs-per-gpu", min=1, help="Packs that share a GPU; small nets alone do not saturate it.")
]
Gpus = Annotated[int, typer.Option("--gpus", min=0, help="Refuse a cluster with fewer GPUs.")]
AllowLarge = Annotated[bool, typer.Option("--allow-large", help="Allow more than 10,000 trials.")]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", envvar="VISTUDY_DATA_ROOT", help="Folder of data sets that are read from files."),
]
Inception = Annotated[
    Path | None,
    typer.Option(
        "--inception-weights",
        envvar="VISTUDY_INCEPTION_WEIGHTS",
        help="torch-fidelity's Inception-v3 weights: adds FID and KID for images.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def escape(text: str) -> str:
    """Escape brackets, which are markup."""
    from rich.markup import escape as escaped

    return escaped(text)


def set_paths(**paths: Path | None) -> None:
    """Set paths as environment variables, which workers inherit."""
    os.environ.update({name: str(path.resolve()) for name, path in paths.items() if path is not None})


def name_of(study: str) -> str:
    """Return a study's name, from its file or as given."""
    if Path(study).suffix in (".yaml", ".yml") or os.sep in study:
        from vistudy.study.spec.parser import load_study

        return load_study(study).name
    return study
