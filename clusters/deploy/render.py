"""Render the files that start a cluster from a few settings. Each backend has one file and `templates/<name>/`."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2

from vistudy.clusters.base import ClusterError

TEMPLATES = Path(__file__).parents[1] / "templates"
NAME = r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?"
IMAGE = r"[a-z0-9]([a-z0-9._/:@-]*[a-zA-Z0-9._-])?"
SHARED = r"/[\w./-]+|(s3|gs|gcs|abfs|abfss)://[\w./-]+"
SERVER = r"https?://[\w.-]+(:\d{1,5})?(/[\w./-]*)?"
WORD = r"[\w][\w.-]*"
PATH = r"[~/][\w./-]*"
_SECRET_IN_URL = re.compile(r"//[^/@]*:[^/@]*@")


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One setting of a backend."""

    name: str
    pattern: str
    """Regular expression that the whole value must match."""
    help: str
    """Description with an example."""
    default: str | None
    """None: the setting is required."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """A way to start a cluster."""

    name: str
    summary: str
    settings: tuple[Setting, ...]
    files: tuple[str, ...]
    """Names of the templates, without `.j2`."""
    token: bool = False
    """Whether a token file is written next to the files; other backends create a token per cluster."""
    check: Callable[[Mapping[str, str]], str | None] = lambda _: None
    """Returns why the settings are inconsistent; None if they are consistent."""


def common(
    *,
    store: str = SHARED,
    store_help: str = "Ledger that all nodes share, e.g. /shared/vistudy or s3://bucket/vistudy.",
    image: str | None = "",
) -> tuple[Setting, ...]:
    """Return the settings that every backend has. `image`: default of the image; None if it is required."""
    return (
        Setting(name="name", pattern=NAME, help="Name of the cluster.", default="vistudy"),
        Setting(name="gpus", pattern=r"\d{1,2}", help="GPUs of each worker node; 0: packs run on CPUs.", default="1"),
        Setting(name="cpus", pattern=r"[1-9]\d{0,2}", help="CPUs of each worker node.", default="8"),
        Setting(name="nodes", pattern=r"[1-9]\d{0,3}", help="Worker nodes, at most.", default="2"),
        Setting(name="store", pattern=store, help=store_help, default=None),
        Setting(
            name="image",
            pattern=IMAGE if image is None else f"({IMAGE})?",
            help="Container image with vistudy (see Dockerfile), e.g. registry.example.org/vistudy:0.1.0.",
            default=image,
        ),
        Setting(
            name="tracking-uri",
            pattern=SERVER,
            help="MLflow server that the head reaches, e.g. http://mlflow.internal:5000 (clusters/mlflow/).",
            default=None,
        ),
    )


def render(backend: Backend, answers: Mapping[str, str], out: str | os.PathLike[str]) -> list[Path]:
    """Write the files of a backend into the folder `out`. Existing files are replaced, except a token.

    Raises:
        ClusterError: a setting is missing, unknown or invalid. In that case nothing is written.
    """
    values = checked(backend, answers)
    loader = jinja2.FileSystemLoader(TEMPLATES / backend.name)
    environment = jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers = {name: int(values[name]) for name in ("gpus", "cpus", "nodes")}
    facts = {name.replace("-", "_"): value for name, value in values.items()} | numbers
    facts["slots"] = numbers["nodes"] * (numbers["gpus"] or numbers["cpus"])
    texts = {name: environment.get_template(f"{name}.j2").render(**facts) for name in backend.files}
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, "utf-8")
        if backend.token:
            _write_token(folder)
    except OSError as error:
        raise ClusterError(f"cannot write into {folder}: {error}. Give another folder with --out.") from error
    return [folder / name for name in texts]


def checked(backend: Backend, answers: Mapping[str, str]) -> dict[str, str]:
    """Return all settings of a backend: the answers, and defaults for the rest.

    Raises:
        ClusterError: the message lists everything that is wrong.
    """
    settings = {setting.name: setting for setting in backend.settings}
    wrong = [
        f"{name}: {backend.name} has no such setting; it has {', '.join(settings)}"
        for name in answers
        if name not in settings
    ]
    values = {}
    for name, setting in settings.items():
        value = answers.get(name, setting.default)
        if value is None:
            wrong.append(f"{name}: missing. {setting.help}")
        elif not re.fullmatch(setting.pattern, value):
            wrong.append(f"{name}: {_hidden(value)!r} is not allowed. {setting.help}")
        else:
            values[name] = value
    if not wrong and (why := backend.check(values)):
        wrong.append(why)
    if wrong:
        raise ClusterError(f"cluster {backend.name}: " + "\n".join(wrong))
    return values


def _hidden(value: str) -> str:
    """Return a value for a message, without the password that a URL may contain."""
    return _SECRET_IN_URL.sub("//***@", value)


def _write_token(folder: Path) -> None:
    """Write a random token that only its owner can read and that git ignores."""
    (folder / ".gitignore").write_text("token\n")
    path = folder / "token"
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
