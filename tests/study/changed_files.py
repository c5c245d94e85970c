"""Runs commands of `vistudy` in one process and says which files of a folder each of them has changed.

python -m tests.study.changed_files FOLDER < [[NAME, [ARGUMENT, ...]], ...]   prints   {NAME: [exit code, [PATH, ...]]}
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
from pathlib import Path

Seen = dict[str, tuple[object, ...]]


def look(folder: Path) -> Seen:
    """Path below a folder -> what it is, its size, its time of change, its content."""
    found: Seen = {}
    for root, folders, files in os.walk(folder):
        for name in folders:
            found[os.path.relpath(os.path.join(root, name), folder)] = ("folder",)
        for name in files:
            path = Path(root, name)
            state, data = path.lstat(), b"" if path.is_symlink() else path.read_bytes()
            found[str(path.relative_to(folder))] = (
                state.st_mode, state.st_size, state.st_mtime_ns, hashlib.sha256(data).hexdigest(),
            )  # fmt: skip
    return found


def changed(before: Seen, after: Seen) -> list[str]:
    """Paths that are new, gone or not as they were."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def execute(arguments: list[str]) -> int:
    """A command by the entry point; its exit code."""
    from vistudy.study.cli.main import main

    sys.argv = ["vistudy", *arguments]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def no_exec(path: str, *_: object) -> None:
    """Instead of `os.execve`: `ui` becomes a server by it."""
    sys.exit(0)


if __name__ == "__main__":
    folder, found = Path(sys.argv[1]), {}
    os.execve = no_exec  # type: ignore[assignment]
    for name, arguments in json.load(sys.stdin):
        before = look(folder)
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = execute(arguments)
        found[name] = (code, changed(before, look(folder)))
        print(name, arguments, output.getvalue()[-400:], file=sys.stderr)
    print(json.dumps(found))
