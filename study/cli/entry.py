"""Entry point of the command `vistudy`: Ctrl-C is no traceback while the command is imported, either."""

import sys


def main() -> None:
    """Import the command line and run it. Exit code 130 if Ctrl-C came before it could handle signals."""
    try:
        from vistudy.study.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()
