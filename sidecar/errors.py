"""One family of errors: each says where, what, and what to write instead, and knows its exit code."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every subcommand but ``exec``, which gives the command's own."""

    YES = 0
    NO = 1
    BAD_INPUT = 2
    CANNOT_RUN = 3


class SidecarError(Exception):
    """Something the user can act on: its text is one clear message. All else is our bug, and keeps its traceback."""

    exit_code = Exit.BAD_INPUT


class CannotRun(SidecarError):
    """The input is right, but not here: a port is taken, a capability or a tool is missing."""

    exit_code = Exit.CANNOT_RUN
