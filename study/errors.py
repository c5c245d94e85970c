"""Errors that are the user's to mend: one message, no traceback, exit code 2."""


class StudyError(Exception):
    """A bad request. The message says what, where, the value got, what is allowed and how to mend it."""


class StoreError(StudyError):
    """The store cannot be read or written as asked."""


class StudyBusyError(StudyError):
    """Another process is running or syncing the same study."""
