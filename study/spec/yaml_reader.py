"""YAML 1.2 -> plain values and the line of each. Plain values only: no tags, no repeated keys, no bombs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from vistudy.analysis.ledger.errors import StudyError
from vistudy.study.spec.messages import (
    KeyPath,
    LocatedError,
    SourceMap,
    closest_match,
    error_message,
)

MAX_BYTES = 1_000_000
"""Largest study file that is read. One of 10,000 trials is a few hundred bytes."""
MAX_NODES = 100_000
"""Most values of a study file after its aliases are expanded."""
MAX_DEPTH = 20
"""Deepest nesting of a study file (a valid one needs 7)."""


def read_text(path: Path) -> str:
    """The text of a file of moderate size."""
    try:
        if path.exists() and not path.is_file():
            what = "a directory" if path.is_dir() else "no regular file"
            candidates = sorted(p.name for p in path.glob("*.y*ml"))[:5] if path.is_dir() else []
            raise StudyError(
                f"{path}: {what}; allowed: a YAML file" + (f", such as {', '.join(candidates)}" if candidates else "")
            )
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        folder = path.parent
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        yaml = [name for name in names if name.endswith((".yaml", ".yml"))]
        message = error_message(
            "no such file", closest=closest_match(path.name, yaml), allowed=", ".join(sorted(yaml)[:10])
        )
        raise StudyError(f"{path}: {message}") from None
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read: {error}") from None
    if len(raw) > MAX_BYTES:
        raise StudyError(f"{path}: larger than a study file may be; allowed: up to {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        got = f"got byte 0x{raw[error.start]:02x} at position {error.start}"
        raise StudyError(f"{path}:{line}: not UTF-8; {got}; save the file as UTF-8") from None


class _Builder:
    """YAML nodes -> plain values, and the line of each. Plain values only: no tags, no repeated keys, no bombs."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._nodes = 0

    def build(self, node: Node, path: KeyPath) -> Any:
        self.lines[path] = node.start_mark.line + 1
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            allowed = f"{MAX_NODES} values, nested {MAX_DEPTH} deep, after aliases (*name) are expanded"
            raise LocatedError((), error_message("too large or too deep for a study file", allowed=allowed))
        if isinstance(node, ScalarNode):
            return self.scalar(node, path)
        if not isinstance(node, MappingNode):
            return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        out: dict[str, Any] = {}
        for key_node, value in node.value:
            key = self.scalar(key_node, path) if isinstance(key_node, ScalarNode) else None
            line = key_node.start_mark.line + 1
            self.lines[(*path, str(key))] = line
            if not isinstance(key, str):
                raise LocatedError((*path, str(key)), error_message("a key must be a name", got=key, hint="quote it"))
            if key in out:
                raise LocatedError((*path, key), error_message(f"duplicate key '{key}'", hint="take one of them out"))
            out[key] = self.build(value, (*path, key))
            self.lines[(*path, key)] = line
        return out

    def scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        tag, text = str(node.tag).removeprefix("tag:yaml.org,2002:"), node.value
        plain = text.replace("_", "").lower()
        try:
            if tag == "int":
                return int(plain, 0) if re.match("[-+]?0[xob]", plain) else int(plain)
            if tag == "float":
                return float(plain.replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            raise LocatedError(path, error_message("not a number that can be read", got=text)) from None
        if tag in ("str", "timestamp", "merge"):  # YAML 1.2 has no dates: they are text
            return text
        if tag in ("bool", "null"):
            return plain == "true" if tag == "bool" else None
        raise LocatedError(path, error_message("tags are not allowed", got=tag, hint="take the '!' tag out"))


def parse_yaml(text: str, name: str) -> tuple[Any, SourceMap]:
    """The content of a YAML 1.2 document as plain values, and where they stand."""
    builder = _Builder()
    source = SourceMap(name=name, lines=builder.lines)
    with source.located():
        try:
            if re.search("(?m)^%", text):
                raise LocatedError((), "YAML directives (%...) are not allowed; take the line out")
            node = YAML(typ="safe", pure=True).compose(text)
            return (None if node is None else builder.build(node, ())), source
        except MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise StudyError(f"{name}:{line}: not YAML: {error.problem}") from None
        except RecursionError:
            raise LocatedError((), error_message("nested too deep", allowed=f"{MAX_DEPTH} levels")) from None
        except YAMLError as error:
            raise StudyError(f"{name}:1: not YAML: {' '.join(str(error).split())}") from None
