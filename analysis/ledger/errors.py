"""Errors that are the user's to mend: one message, no traceback, exit code 2."""

import errno

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Failures of a disk that no second try mends."""


class StudyError(Exception):
    """A bad request. The message says what, where, the value got, what is allowed and how to mend it."""


class StoreError(StudyError):
    """The store cannot be read or written as asked."""


class ReadOnlyError(StoreError):
    """The store can be read, but not written."""


class StudyBusyError(StudyError):
    """Another process is running or syncing the same study."""


class RunAbortedError(StudyError):
    """The store or a node made a run stop in its middle. What is recorded is whole, and the same command goes on."""


class Terminated(BaseException):
    """SIGTERM came before a study was planned."""
