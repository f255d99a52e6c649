"""Errors that every floor raises: one base class with an exit code, few leaves."""


class TracekitError(Exception):
    """Something the user should read: what, where, what to do next. exit_code is the process's."""

    exit_code = 2


class InputError(TracekitError):
    """The user's input is wrong."""


class DiskError(TracekitError):
    """A file could not be written or read; what was committed before stays recoverable."""


class TraceError(TracekitError):
    """A trace cannot be used as it is."""


class NotATraceError(TraceError):
    """The path holds no trace."""


class TraceDamaged(TraceError):
    """A trace whose content does not agree with itself."""


class TraceVersionError(TraceError):
    """A trace of a format that this version does not know."""


class TraceExistsError(TraceError):
    """The place for a new trace is taken."""


class TraceIncompleteError(TraceError):
    """A recording that was never closed: `tracekit recover` makes it usable."""
