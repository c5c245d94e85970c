"""The command `vistudy`. Exit codes: 0 success, 1 a run with failed trials, 2 a refused request, 75 resumable.

Commands are in the files that are named like the panels of `vistudy --help`: study, results, cluster, job, maintenance.
"""

from __future__ import annotations

import logging
import sys

import typer

from vistudy.analysis.ledger.errors import DISK_FULL_ERRNOS, RunAbortedError, StudyError
from vistudy.study.cli import cluster, job, maintenance, results, study
from vistudy.study.cli.options import escape, stderr
from vistudy.study.cli.study import INTERRUPTED, RESUMABLE

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Does this make training stable, or did we tune until it worked? Plans, runs and maps stability studies.",
)  # fmt: skip
for part in (study, results, maintenance):
    app.add_typer(part.app)
app.add_typer(cluster.app, name="cluster", rich_help_panel="Cluster")
app.add_typer(job.app, name="job", rich_help_panel="Cluster")

RENAMED_COMMANDS = {
    ("replay",): ("film",), ("jobs",): ("job", "list"), ("logs",): ("job", "logs"), ("stop",): ("job", "stop"),
    ("cluster", "settings"): ("cluster", "options"),
}  # fmt: skip
RENAMED_OPTIONS = {"--yes": "--allow-large", "--hang-after": "--heartbeat-timeout", "--alone": "--without-pack"}


def with_present_names(words: list[str]) -> list[str]:
    """Replace words of earlier versions on the command line, with a note on each."""
    renamed, now = dict[str, str](), list(words)
    for old, new in RENAMED_COMMANDS.items():
        if tuple(now[: len(old)]) == old:
            now[: len(old)] = new
            renamed[" ".join(old)] = " ".join(new)
    for i, word in enumerate(now[: now.index("--")] if "--" in now else now):
        name, equals, value = word.partition("=")
        if name in RENAMED_OPTIONS:
            now[i] = RENAMED_OPTIONS[name] + equals + value
            renamed[name] = RENAMED_OPTIONS[name]
    for before, after in renamed.items():
        stderr.print(f"[yellow]note:[/] `{before}` is now `{after}`")
    return now


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app(args=with_present_names(sys.argv[1:]))
    except StudyError as error:
        stderr.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(RESUMABLE if isinstance(error, RunAbortedError) else 2)
    except ValueError as error:
        from vistudy.trainables.data.data_root import DataError

        if not isinstance(error, DataError):
            raise
        stderr.print(f"[bold red]error:[/] data: {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        if isinstance(error, PermissionError):
            what = f"{error.filename or 'a file'}: {error.strerror}"
            mend = "Give a folder that you may write to with --out, or a --store that you may read and write."
            stderr.print(f"[bold red]error:[/] {escape(what)}. {mend}", soft_wrap=True)
            sys.exit(2)
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        stderr.print(f"[bold red]error:[/] {escape(str(error))}. What is recorded is whole.", soft_wrap=True)
        sys.exit(RESUMABLE)
    except KeyboardInterrupt:  # elsewhere typer has it
        sys.exit(INTERRUPTED)
