"""What a stage knows of this machine, where that is its allocation."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch_support import local_stage

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch.local_allocation import LocalAllocation


def test_this_machine(tmp_path: Path) -> None:
    stage = local_stage(tmp_path)
    allocation = LocalAllocation(stage, {"RTDETR_SLURM_LOCAL_JOB_ID": "9"})
    assert allocation.prefix(stage.resources) == []
    assert allocation.why_stopped(12, 60).why is FailureClass.TIMEOUT
    assert allocation.why_stopped(15, 60).why is FailureClass.CANCELLED
    with pytest.raises(SiteError, match="has no queue"):
        allocation.requeue()
