"""Slurm's job states and what they mean. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping

from rtdetr_slurm.contract import FailureClass

PENDING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"})
"""Waiting in the queue, for the first time or again."""

RUNNING = frozenset({"RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING"})
"""slurmctld lets it run."""

ACTIVE = RUNNING | {"CONFIGURING", "COMPLETING", "STAGE_OUT"}
"""Neither waiting nor over."""

COMPLETED = "COMPLETED"

FAILURES: Mapping[str, FailureClass] = {
    "BOOT_FAIL": FailureClass.INFRA,
    "NODE_FAIL": FailureClass.INFRA,
    "LAUNCH_FAILED": FailureClass.INFRA,
    "REVOKED": FailureClass.INFRA,
    "PREEMPTED": FailureClass.PREEMPTED,
    "TIMEOUT": FailureClass.TIMEOUT,
    "DEADLINE": FailureClass.TIMEOUT,
    "OUT_OF_MEMORY": FailureClass.OOM_HOST,
    "CANCELLED": FailureClass.CANCELLED,
}
"""Ends that say by themselves why; FAILED does not."""

ENDED = frozenset({COMPLETED, "FAILED", *FAILURES})

ENDING = ENDED | PENDING | {"COMPLETING"}
"""What slurmctld says of a job that it does not let run any more."""

GONE = "GONE"
"""Our own word: slurmctld does not have the job, and accounting no end of it."""

NEVER_SATISFIED = "DependencyNeverSatisfied"
"""The reason of a job whose dependency can no longer come true."""

HELD_BY_ADMIN = "JobHeldAdmin"
"""The reason of a job that only an operator can release."""

_HELD = frozenset({HELD_BY_ADMIN, "JobHeldUser", "JobHoldMaxRequeue"})
_HELD_STATES = frozenset({"REQUEUE_HOLD", "SPECIAL_EXIT"})


def is_held(state: str, reason: str) -> bool:
    """Whether a job that waits will not start before somebody releases it.

    Among the reasons are `launch failed requeued held` and `job requeued in held state`, which
    scontrol writes with underscores.
    """
    return state in _HELD_STATES or reason in _HELD or ("requeued" in reason and "held" in reason)
