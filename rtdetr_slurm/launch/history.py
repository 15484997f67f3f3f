"""What is on record of a task's earlier starts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.state import restart_of


@dataclass(frozen=True)
class History:
    """A task's earlier starts.

    Attributes:
        infra_retries: how often it went back to the queue because the cluster had failed.
        bad_nodes: those that were at fault then, the latest first.
        excluded: those that Slurm was to leave out of this start.
        misplaced: whether the last one ended because Slurm had given it such a node.
        refusals: what nodes have refused to start with, in words that do not name them.
        seconds: that the earlier starts have taken together.
    """

    infra_retries: int = 0
    bad_nodes: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    misplaced: bool = False
    refusals: frozenset[str] = frozenset()
    seconds: float = 0.0


def history_of(events: Sequence[Event], restart: int, last_sign: datetime | None) -> History:
    """The history before start number `restart`.

    Args:
        events: of the task.
        last_sign: when the launch last said that it lives; the end of a start that has not
            written down one.
    """
    # By number: the clocks of the nodes that they ran on differ.
    earlier = sorted((one for one in events if restart_of(one) < restart), key=restart_of)
    put_back = [event for event in earlier if event["event"] == "requeued"]
    retried = [one for one in put_back if one.get("failure_class") is FailureClass.INFRA]
    bad = [node for event in reversed(retried) for node in event.get("bad_nodes", [])]
    return History(
        infra_retries=sum(not _is_no_retry(event) for event in retried),
        bad_nodes=tuple(dict.fromkeys(bad)),
        excluded=tuple(put_back[-1].get("excluded", [])) if put_back else (),
        misplaced=bool(put_back and put_back[-1].get("misplaced", False)),
        refusals=frozenset(event["refusal"] for event in retried if "refusal" in event),
        seconds=_seconds(earlier, last_sign),
    )


def _is_no_retry(requeued: Event) -> bool:
    return requeued.get("misplaced", False) or requeued.get("by_slurm", False)


def _seconds(events: Sequence[Event], last_sign: datetime | None) -> float:
    """What the starts up to the last one of `events` have taken: each has written down what those
    before it had."""
    starts = [event for event in events if event["event"] == "started"]
    if not starts:
        return 0.0
    last = max(starts, key=restart_of)
    began = datetime.fromisoformat(last["timestamp"])
    ends = [
        datetime.fromisoformat(event["timestamp"])
        for event in events
        if event["event"] in ("requeued", "finished") and restart_of(event) == restart_of(last)
    ]
    signs = ends or ([] if last_sign is None else [last_sign])
    took = max(((end - began).total_seconds() for end in signs), default=0.0)
    return last.get("seconds_before", 0.0) + max(took, 0.0)
