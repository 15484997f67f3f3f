"""Patience with a file server that fails for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from rtdetr_slurm.errors import UserError, explained
from rtdetr_slurm.launch.log import say

T = TypeVar("T")

_FOR_S, _EVERY_S = 300.0, 5.0


def patiently(read: Callable[[], T], give_up: Callable[[], bool] = lambda: False) -> T:
    """What `read` finds in a run folder; tried again where the operating system has failed, and
    not where what it finds is wrong.

    Args:
        give_up: whether it is not to be tried again.

    Raises:
        UserError: what is there is wrong, or cannot be read for minutes.
        OSError: as `read` has it.
    """
    deadline = time.monotonic() + _FOR_S
    while True:
        try:
            return read()
        except (UserError, OSError) as error:
            of_the_system = isinstance(error, OSError) or isinstance(error.__cause__, OSError)
            if not of_the_system or give_up() or time.monotonic() > deadline:
                raise
            say(f"{explained(error)}; this is tried again")
        time.sleep(_EVERY_S)
