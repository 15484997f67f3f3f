"""The launch by hand: what the batch script calls."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch_support import STAGE, local_stage, make_run

from rtdetr_slurm.controller import make_allocation
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.plan.model import Stage


@pytest.mark.parametrize("stage", [STAGE, local_stage(Path("/r"))])
def test_a_start_by_hand_is_refused(tmp_path: Path, stage: Stage) -> None:
    with pytest.raises(SiteError, match=r"not inside a job: .*JOB_ID is not set"):
        make_allocation(make_run(tmp_path, STAGE), stage, {})
