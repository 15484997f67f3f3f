"""Errors that a user is meant to read. Everything else is a bug and may show a traceback."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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


_NOT_THIS_ONE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST}
)
"""What is wrong with a path that somebody has named, rather than with this machine."""

_WHAT_TO_DO = {
    errno.EACCES: "it is another user's, or its mode forbids it",
    errno.EPERM: "it is another user's, or its mode forbids it",
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, or have the quota raised",
    errno.EFBIG: "the limit on the size of files (ulimit -f) is too low",
    errno.EROFS: "choose a folder that can be written to",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENOMEM: "this machine, or the limit ulimit -v, leaves too little memory",
    errno.ESTALE: "the file server has lost it; try again",
    errno.EIO: "the disk or the file server failed; try again, then ask its administrator",
}


def explained(error: OSError | UserError) -> UserError:
    """What the operating system has refused, for where nobody knows better what it means; an error
    that is for people already stays as it is."""
    if isinstance(error, UserError):
        return error
    said = error.strerror or str(error)
    file = error.filename if error.filename is not None else "the operating system says"
    what_to_do = _WHAT_TO_DO.get(error.errno or 0, "")
    message = f"{os.fsdecode(file) if isinstance(file, bytes) else file}: {said}"
    kind = RequestError if error.errno in _NOT_THIS_ONE else SiteError
    problem = kind(f"{message}; {what_to_do}" if what_to_do else message)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        problem.failure_class = FailureClass.CONFIG  # no other node has more room
    return problem


@contextmanager
def refusals_explained() -> Iterator[None]:
    """For a function whose every error is a UserError, also what the operating system refuses."""
    try:
        yield
    except OSError as error:
        raise explained(error) from error


def near(found: object, options: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean 'x'?` for the option that is spelled most like `found`, or nothing.

    Args:
        cutoff: how alike they must be, 0..1, as difflib counts.
    """
    close = difflib.get_close_matches(str(found), list(options), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]!r}?" if close else ""
