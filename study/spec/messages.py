"""Error messages of study files: the problem, the value, the closest match, what is allowed; file, line and key."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from vistudy.analysis.ledger.errors import StudyError

KeyPath = tuple[str | int, ...]
"""Keys from the top of a study file to a value; a number is an index into a list."""
Value = typing.TypeVar("Value")
_NOT_GIVEN = object()


class LocatedError(Exception):
    """A mistake at a key of a study file, before file and line are known."""

    def __init__(self, path: KeyPath, message: str) -> None:
        """`path`: the key, from the top of the file; `message`: what is wrong there."""
        super().__init__(message)
        self.path, self.message = path, message


def check_at(path: KeyPath, check: Callable[..., Value], *args: object) -> Value:
    """Return `check(*args)`; a ValueError becomes a LocatedError at `path`."""
    try:
        return check(*args)
    except ValueError as error:
        raise LocatedError(path, str(error)) from None


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceMap:
    """File name and line numbers of a study file, for error messages."""

    name: str
    lines: Mapping[KeyPath, int]

    def error(self, path: KeyPath, message: str) -> StudyError:
        """`file:line: key: message`; the line of the nearest enclosing key if `path` itself is not in the file."""
        line = next((self.lines[path[:i]] for i in range(len(path), -1, -1) if path[:i] in self.lines), 1)
        block = f"block {int(path[1]) + 1}: " if path[:1] == ("blocks",) and len(path) > 1 else ""
        key = ".".join(part for part in (path[2:] if block else path) if isinstance(part, str))
        return StudyError(f"{self.name}:{line}: {block}{key}{': ' if key else ''}{message}")

    @contextlib.contextmanager
    def located(self) -> Iterator[None]:
        """Turn a LocatedError raised inside into a StudyError with file, line and key."""
        try:
            yield
        except LocatedError as error:
            raise self.error(error.path, error.message) from None


def error_message(
    problem: str, *, got: object = _NOT_GIVEN, closest: str | None = None, allowed: str = "", hint: str = ""
) -> str:
    """One message: the problem; the value got; the nearest match; what is allowed; how to mend it."""
    parts = [problem]
    if got is not _NOT_GIVEN:
        parts.append(f"got {format_value(got)}")
    if closest is not None:
        parts.append(f"did you mean '{closest}'?")
    if allowed:
        parts.append(f"allowed: {allowed}")
    if hint:
        parts.append(hint)
    return "; ".join(parts).replace("?; ", "? ")


def format_value(value: object) -> str:
    """A value as YAML writes it, at most 60 characters."""
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of more than 30 digits"  # printing one of 10,000 digits is itself an error
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def closest_match(word: object, allowed: Iterable[str]) -> str | None:
    """The allowed name that is nearest to `word`, or None if none is near."""
    matches = difflib.get_close_matches(str(word), list(allowed), n=1, cutoff=0.5)
    return matches[0] if matches else None
