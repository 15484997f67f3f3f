"""Errors that a user is meant to read. Everything else is a bug and may show a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from rtdetr_slurm.contract import ExitCode, FailureClass


class UserError(Exception):
    """An expected failure: the message says what is wrong, where, what is allowed, what to do.

    Attributes:
        exit_code: the process exit code this error maps to.
        failure_class: how status.json classifies it when it ends a job.
    """

    exit_code: int = ExitCode.FAILED
    failure_class: FailureClass = FailureClass.UNKNOWN


class RequestError(UserError):
    """The spec, the data it names, or the command line is wrong."""

    exit_code = ExitCode.BAD_REQUEST
    failure_class = FailureClass.CONFIG


class NewerVersion(RequestError):
    """A file was written by a newer version of this package than the one that reads it."""

    def __init__(self, path: object, found: object, known: int) -> None:
        super().__init__(
            f"{path}: version {found} is newer than version {known}, the latest that this "
            "rtdetr-slurm reads: use the newer one that wrote it"
        )


class SiteError(UserError):
    """The cluster, its profile, or this machine cannot do what is asked."""

    exit_code = ExitCode.SITE_CANNOT
    failure_class = FailureClass.INFRA


class ActionError(UserError):
    """The job or the action failed while it ran (bad data met on the way, no space left, ...)."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, failure_class: FailureClass = FailureClass.CONFIG) -> None:
        super().__init__(message)
        self.failure_class = failure_class


def near(found: object, options: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean 'x'?` for the option that is spelled most like `found`, or nothing.

    Args:
        cutoff: how alike they must be, 0..1, as difflib counts.
    """
    close = difflib.get_close_matches(str(found), list(options), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]!r}?" if close else ""
