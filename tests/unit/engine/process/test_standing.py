"""Ranks that make no steps any more: which one is named, and what for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hang_support import RANK, WAITS

from rtdetr_slurm.engine.process.heartbeats import Beat
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.standing import culprit, limit_seconds, verdict


@pytest.mark.parametrize(
    "change",
    [
        {"state": "T", "waits": True, "steps_done": 11},
        {"state": "D", "place": "", "waits": False},
        {"steps_done": 9, "waits": True},
        {"waits": False},
    ],
)
def test_the_one_that_the_others_wait_for(change: dict[str, Any]) -> None:
    bad = replace(RANK, **change)
    assert culprit([WAITS, bad, replace(WAITS, rank=1)]) == (bad, True)


def test_all_alike() -> None:
    others = [WAITS, replace(WAITS, rank=1)]
    assert culprit(others) == (WAITS, False)
    reason, node_rank = verdict(others, 1, Path("/r/stacks"))
    assert reason.startswith("all ranks wait for one another: rank 0 on node1 stands in")
    assert node_rank is None


def test_what_is_said() -> None:
    reason, node_rank = verdict([WAITS, replace(RANK, state="T")], 2, Path("/r/stacks"))
    assert reason == (
        "rank 2 on node2 stands in loop.py:131 (train_steps), stopped by a signal; no step for "
        "70 s while stepping (epoch 1, step 9); the limit is 60 s (job.hang_minutes). The "
        "stacks of all ranks: /r/stacks"
    )
    assert node_rank == 1


def test_a_node_that_says_nothing() -> None:
    reason, node_rank = verdict([WAITS], 2, Path("/r/stacks"))
    assert reason.startswith("node 1 does not answer, and rank 0 on node1 stands in")
    assert node_rank == 1
    held = replace(WAITS, place="", state="D")
    reason, node_rank = verdict([held], 2, Path("/r/stacks"))
    assert "rank 0 on node1 gave no stack (it waits in the kernel, most often" in reason
    assert node_rank == 0


@pytest.mark.parametrize(
    ("phase", "step", "steps", "limit"),
    [
        (Phase.LOADING, 0, 0, 480),
        (Phase.STEPPING, 0, 9, 120),
        (Phase.STEPPING, 9, 9, 120),
        (Phase.VALIDATING, 8, 9, 120),
        (Phase.VALIDATING, 9, 9, 480),
        (Phase.SAVING, 0, 0, 480),
    ],
)
def test_what_has_no_steps_may_take_longer(
    phase: Phase, step: int, steps: int, limit: float
) -> None:
    assert limit_seconds(2, Beat(0.0, phase, step=step, steps=steps)) == limit
