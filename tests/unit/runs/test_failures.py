"""Failure classes and the line that shows them."""

from __future__ import annotations

import pytest

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.runs.failures import ADVICE, Failure, classify


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


# --- what real clusters wrote ----------------------------------------------------------------
# Slurm 22.05 and Apptainer 1.4, shortened.
NOTES = """\
INFO:    fuse2fs not found, will not be able to mount EXT3 filesystems
INFO:    gocryptfs not found, will not be able to use gocryptfs
"""
WRONG_FLAG = """\
Error for command "exec": unknown flag: --no-such-flag

Options for exec command:

      --add-caps string               a comma separated capability list to add
      --oom-kill-disable              Disable OOM killer
"""
NO_SOURCE = f"""\
{NOTES}WARNING: skipping mount of /nonexistent: stat /nonexistent: no such file or directory
INFO:    Terminating squashfuse_ll after timeout
INFO:    Cleanup error: while stopping driver for /rootfs: squashfuse_ll exited: fuse: failed
FATAL:   container creation failed: mount hook function failure: mount /nonexistent->/x error
srun: error: node1: task 0: Exited with exit code 255
srun: launch/slurm: _step_signal: Terminating StepId=3.0
"""
TORN_IMAGE = f"""\
{NOTES}FATAL:   container creation failed: image driver mount failure: image driver squashfuse_ll
srun: error: node1: task 0: Exited with exit code 255
"""
NO_SPACE = "FATAL:   While making image from oci registry: no space left on device\n"
CONTAINER_KILLED = """\
epoch 1/500 step 3/25  loss 12.698  lr 1.0e-04  1.0 images/s
srun: error: node2: task 1: Killed
srun: launch/slurm: _step_signal: Terminating StepId=2.0
slurmstepd-node1: error: *** STEP 2.0 ON node1 CANCELLED AT 2026-11-26T00:14:51 ***
Fatal Python error: Bus error

rtdetr: error: rank 0: lost the connection to the other ranks: Connection reset by peer
rtdetr: error: rank 0 was ended by SIGBUS; the log has what it said last
srun: error: node1: task 0: Bus error
srun: Force Terminated StepId=2.0
rtdetr-slurm: cannot read or write status.json: No such file or directory
"""
RANK_KILLED = """\
epoch 1/500 step 3/25  loss 12.698  lr 1.0e-04  1.0 images/s
rtdetr: error: rank 0: lost the connection to the other ranks: Connection reset by peer
rtdetr: error: rank 1 was ended by SIGSEGV; the log has what it said last
srun: error: node2: task 1: Exited with exit code 1
srun: launch/slurm: _step_signal: Terminating StepId=1.0
slurmstepd-node1: error: *** STEP 1.0 ON node1 CANCELLED AT 2026-11-26T00:14:55 ***
srun: error: node1: task 0: Bus error
srun: Force Terminated StepId=1.0
"""
FOLDER_GONE = """\
FileNotFoundError: [Errno 2] No such file or directory: '/r/train/events.out.tfevents.0'
rtdetr: error: rank 0: FileNotFoundError: [Errno 2] No such file or directory: '/r/train/events'
FileNotFoundError: [Errno 2] No such file or directory: '/r/train/status.json'
srun: error: node3: task 0: Exited with exit code 1
srun: launch/slurm: _step_signal: Terminating StepId=3.0
"""
KILLED_FOR_MEMORY = RANK_KILLED.replace(
    "srun: launch", "slurmstepd: error: Detected 1 oom_kill event in StepId=1.0.\nsrun: launch"
)
ANOTHER_START = f"{TORN_IMAGE}rtdetr-slurm: starts srun --nodes=1 python node\nepoch 1/2\n"


@pytest.mark.parametrize(
    ("code", "log", "failure_class", "evidence"),
    [
        (1, WRONG_FLAG, "infra", 'log: Error for command "exec": unknown flag: --no-such-flag'),
        (255, NO_SOURCE, "infra", "log: FATAL:   container creation failed: mount hook function"),
        (255, TORN_IMAGE, "infra", "log: FATAL:   container creation failed: image driver mount"),
        (255, NO_SPACE, "config", "log: FATAL:   While making image from oci registry: no space"),
        (
            137,
            CONTAINER_KILLED,
            "unknown",
            "killed by signal 9; srun: error: node2: task 1: Killed",
        ),
        (135, RANK_KILLED, "unknown", "log: rtdetr: error: rank 1 was ended by SIGSEGV"),
        (135, KILLED_FOR_MEMORY, "oom_host", "log: slurmstepd: error: Detected 1 oom_kill event"),
        (1, FOLDER_GONE, "unknown", "log: rtdetr: error: rank 0: FileNotFoundError: [Errno 2]"),
        (255, "", "unknown", "exit code 255; the log is empty"),
        (1, ANOTHER_START, "unknown", "exit code 1; last line of the log: epoch 1/2"),
    ],
)
def test_the_first_cause_is_the_evidence(
    code: int, log: str, failure_class: str, evidence: str
) -> None:
    failure = classify(exit_code=code, log_tail=log.splitlines())
    assert failure.failure_class == FailureClass(failure_class)
    assert failure.evidence.startswith(evidence)


def test_another_programs_traceback_is_the_evidence() -> None:
    log = [
        "Traceback (most recent call last):",
        '  File "train.py", line 3, in <module>',
        "[rank1]: KeyError: 'area'",
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
        "[TAO Toolkit] Execution status: FAIL",
    ]
    assert (
        classify(exit_code=1, log_tail=log).evidence
        == "exit code 1; log: [rank1]: KeyError: 'area'"
    )


@pytest.mark.parametrize("field", ["max_hours", "max_requeues"])
def test_a_limit_that_was_reached_is_the_advice(field: str) -> None:
    failure = Failure(FailureClass.TIMEOUT, f"all of it is used up (job.{field})")
    assert failure.advice.startswith(f"raise job.{field}, and go on with")


def test_what_a_node_lost_explains_nothing_where_another_nodes_task_was_killed() -> None:
    reason = "lost the connection to the other ranks: Connection closed by peer"
    line = {"status": "FAILURE", "failure_class": "infra", "reason": reason}
    killed = classify(exit_code=137, status_line=line, log_tail=CONTAINER_KILLED.splitlines())
    assert killed.evidence == "killed by signal 9; srun: error: node2: task 1: Killed"
    alone = classify(exit_code=1, status_line=line, log_tail=["epoch 1/2"])
    assert alone == Failure(FailureClass.INFRA, reason)
