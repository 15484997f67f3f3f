"""What exceptions mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.engine.process.explain import explain
from rtdetr_slurm.engine.process.failures import RankFailure
from rtdetr_slurm.errors import ActionError, RequestError
from rtdetr_slurm.runs.failures import ADVICE, ONE_VALUE, ONE_VALUE_ADVICE, classify


class TestExplain:
    def test_explains_what_users_can_change(self, tmp_path: Path) -> None:
        def of(error: BaseException, world_size: int = 1) -> RankFailure:
            return explain(error, 0, world_size)

        assert of(RequestError("x")).exit_code == 2
        assert of(ActionError("x")).failure_class is FailureClass.CONFIG
        oom = of(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
        assert oom.failure_class is FailureClass.OOM_GPU
        assert oom.reason == "CUDA out of memory. Tried to allocate 2 GiB"
        assert str(oom) == f"{oom.reason}; {ADVICE[FailureClass.OOM_GPU]}"
        assert of(MemoryError()).failure_class is FailureClass.OOM_HOST
        full = of(OSError(28, "No space left on device", "/data/x"))
        assert "no space left to write /data/x" in full.reason
        bug = of(KeyError("x"))
        assert (bug.failure_class, bug.expected) == (FailureClass.UNKNOWN, False)
        lost = RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
        assert of(lost, 2).by_peer
        assert not of(lost, 1).by_peer

    def test_batch_norm_of_one_value_is_a_matter_of_the_spec(self) -> None:
        """As PyTorch itself raises it."""
        with pytest.raises(ValueError, match="more than 1 value") as error:
            torch.nn.BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))
        failure = explain(error.value, 0, 1)
        assert (failure.failure_class, failure.expected) == (FailureClass.CONFIG, True)
        assert failure.reason.startswith(ONE_VALUE)
        assert str(failure).endswith("train_spatial_size)")
        assert "raise dataset.batch_size" in str(failure)
        line = {"status": "FAILURE", "reason": failure.reason, "failure_class": "config"}
        assert classify(status_line=line).advice == ONE_VALUE_ADVICE
        from_log = classify(log_tail=[f"ValueError: {error.value}"])
        assert from_log.failure_class is FailureClass.CONFIG
        assert from_log.advice == ONE_VALUE_ADVICE
