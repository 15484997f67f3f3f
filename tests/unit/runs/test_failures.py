"""Failure classes and the line that shows them."""

from __future__ import annotations

import pytest

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.runs.failures import ADVICE, classify


@pytest.mark.parametrize(
    ("line", "failure_class"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "oom_gpu"),
        ("RuntimeError: CUDA error: out of memory", "oom_gpu"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.", "oom_host"),
        ("RuntimeError: DataLoader worker (pid 9) is killed by signal: Killed.", "oom_host"),
        ("OSError: [Errno 12] Cannot allocate memory", "oom_host"),
        ("DataLoader worker (pid 1) is killed by signal: Bus error. It is possible", "oom_host"),
        ("RuntimeError: CUDA error: device-side assert triggered", "config"),
        ("OSError: [Errno 28] No space left on device", "config"),
        ("torch.distributed.DistBackendError: NCCL error in: x.cpp", "infra"),
        ("RuntimeError: [rank1]: Connection closed by remote peer", "infra"),
        ("kernel: NVRM: Xid (PCI:0000:07:00): 79, GPU has fallen off the bus", "infra"),
        ("srun: error: Node failure on node3", "infra"),
        ("srun: error: Unable to create step for job 35: Invalid generic resource", "infra"),
        ("ValueError: something else", "unknown"),
    ],
)
def test_classes_from_the_log(line: str, failure_class: str) -> None:
    failure = classify(exit_code=1, log_tail=["before", line, "after"])
    assert failure.failure_class == FailureClass(failure_class)
    if failure_class != "unknown":
        assert failure.evidence == f"log: {line}"


@pytest.mark.parametrize(
    ("state", "failure_class"),
    [
        ("NODE_FAIL", FailureClass.INFRA),
        ("BOOT_FAIL", FailureClass.INFRA),
        ("PREEMPTED", FailureClass.PREEMPTED),
        ("TIMEOUT", FailureClass.TIMEOUT),
        ("DEADLINE", FailureClass.TIMEOUT),
        ("OUT_OF_MEMORY", FailureClass.OOM_HOST),
        ("CANCELLED", FailureClass.CANCELLED),
        ("FAILED", FailureClass.UNKNOWN),
    ],
)
def test_classes_from_slurms_state(state: str, failure_class: FailureClass) -> None:
    assert classify(slurm_state=state).failure_class is failure_class


def test_slurms_state_is_believed_over_the_exit_code() -> None:
    assert classify(slurm_state="OUT_OF_MEMORY", exit_code=0).failure_class is FailureClass.OOM_HOST


def test_the_engines_own_word_is_believed_first() -> None:
    line = {"status": "FAILURE", "failure_class": "config", "reason": "a.jpg is broken"}
    failure = classify(slurm_state="OUT_OF_MEMORY", status_line=line)
    assert failure.failure_class is FailureClass.CONFIG
    assert failure.evidence == "a.jpg is broken"


def test_a_failure_line_of_taos_image_has_no_class() -> None:
    failure = classify(status_line={"status": "FAILURE", "message": "Configuration error"})
    assert failure.failure_class is FailureClass.UNKNOWN
    assert failure.evidence == "Configuration error"


def test_the_cause_is_found_before_what_it_brings_about() -> None:
    log = ["torch.OutOfMemoryError: CUDA out of memory", "NCCL error: remote process exited"]
    assert classify(log_tail=log).failure_class is FailureClass.OOM_GPU


@pytest.mark.parametrize(
    ("exit_code", "signal", "evidence"),
    [
        (3, None, "exit code 3; last line of the log: the end"),
        (137, None, "killed by signal 9; last line of the log: the end"),
        (0, 9, "killed by signal 9; last line of the log: the end"),
        (None, None, "ended without an exit code; last line of the log: the end"),
    ],
)
def test_evidence_where_nothing_known_is_found(
    exit_code: int | None, signal: int | None, evidence: str
) -> None:
    failure = classify(exit_code=exit_code, signal=signal, log_tail=["x", "the end", ""])
    assert failure.evidence == evidence


def test_every_class_has_advice() -> None:
    assert set(ADVICE) == set(FailureClass)
