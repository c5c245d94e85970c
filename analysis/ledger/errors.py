"""Errors that the user can fix: one message, no traceback, exit code 2."""

import errno

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""errno values of disk failures for which a retry is pointless."""


class StudyError(Exception):
    """A bad request. The message says what, where, the value, what is allowed and the remedy."""


class StoreError(StudyError):
    """The store cannot be read or written as asked."""


class ReadOnlyError(StoreError):
    """The store can be read, but not written."""


class StudyBusyError(StudyError):
    """Another process is running or syncing the same study."""


class RunAbortedError(StudyError):
    """The store or a node ended a run early. Recorded data are intact, and the same command resumes."""


class Terminated(BaseException):
    """SIGTERM arrived before a study was planned."""
