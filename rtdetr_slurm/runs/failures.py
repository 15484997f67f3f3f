"""Why a job ended without success: class, evidence, advice. Pure; standard library only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rtdetr_slurm.contract import FailureClass, Status
from rtdetr_slurm.slurm.states import FAILURES


@dataclass(frozen=True)
class Failure:
    """A failure class and the line that shows it."""

    failure_class: FailureClass
    evidence: str

    @property
    def advice(self) -> str:
        words = (words for words in ADVICE_BY_WORDS if words in self.evidence)
        return ADVICE_BY_WORDS.get(next(words, ""), ADVICE[self.failure_class])


ADVICE: Mapping[FailureClass, str] = {
    FailureClass.INFRA: "the cluster or its site profile failed, not the training: correct what "
    "the line names, then `rtdetr-slurm resume RUN` goes on from the last checkpoint",
    FailureClass.PREEMPTED: "the job was preempted and not put back in the queue: `rtdetr-slurm "
    "resume RUN` goes on from the last checkpoint; allow requeue (job.requeue, and `requeue` in "
    "the site profile) for the next run, or submit where jobs are preempted less often if it got "
    "no further",
    FailureClass.TIMEOUT: "`rtdetr-slurm resume RUN` goes on from the last checkpoint for as long "
    "again; for a longer limit raise job.time and submit with "
    "train.resume_training_checkpoint_path",
    FailureClass.OOM_HOST: "the node's memory was too small: raise job.mem_gb, or lower "
    "dataset.workers or dataset.batch_size",
    FailureClass.OOM_GPU: "the GPU's memory was too small: lower dataset.batch_size (or the "
    "batch_size of the action's own section), or in training "
    "dataset.augmentation.train_spatial_size, or set train.precision to bf16 or "
    "train.activation_checkpoint to true",
    FailureClass.CONFIG: "correct the spec that the line names and submit again, or the data and "
    "`rtdetr-slurm resume RUN`",
    FailureClass.CANCELLED: "cancelled on request; `rtdetr-slurm resume RUN` goes on with it",
    FailureClass.UNKNOWN: "read the log (rtdetr-slurm logs RUN); nothing known was found in it",
}

ONE_VALUE = "Expected more than 1 value per channel"
"""PyTorch's words where batch norm gets a single value to take statistics of."""
ONE_VALUE_ADVICE = (
    "a batch of one image whose coarsest feature map has one cell: raise dataset.batch_size, or "
    "train with larger images (dataset.augmentation.multi_scales, train_spatial_size)"
)

DEVICE_ASSERT = "device-side assert triggered"
"""CUDA's words where an index is out of range: with a detector most often a class's."""

ADVICE_BY_WORDS: Mapping[str, str] = {
    DEVICE_ASSERT: "most often a category id that is no class index: set dataset.num_classes to "
    "the largest category id + 1, and dataset.eval_class_ids to ids that the annotations have",
    "must match the size of tensor b": "a size that the graph is not made for: leave "
    "export.input_height and export.input_width at 640, or at the size that the detector was "
    "trained and checked with",
    ONE_VALUE: ONE_VALUE_ADVICE,
    "(job.max_hours)": "raise job.max_hours, and go on with "
    "train.resume_training_checkpoint_path in a new submission",
    "(job.max_requeues)": "raise job.max_requeues, and go on with "
    "train.resume_training_checkpoint_path in a new submission",
}
"""Advice about what certain words in the evidence say, before that of the class."""

_LOG_SIGNS: Sequence[tuple[FailureClass, re.Pattern[str]]] = tuple(
    (failure_class, re.compile(pattern, re.IGNORECASE))
    for failure_class, pattern in (
        (FailureClass.INFRA, r"\[Multinode\] Using default configs"),
        (FailureClass.OOM_GPU, r"CUDA out of memory|torch(\.cuda)?\.OutOfMemoryError"),
        (FailureClass.OOM_GPU, r"CUBLAS_STATUS_ALLOC_FAILED|CUDA error: out of memory"),
        (FailureClass.OOM_HOST, r"oom[-_ ]kill|\bOut Of Memory\b|Cannot allocate memory"),
        (FailureClass.OOM_HOST, r"DataLoader worker .* is killed by signal: (Killed|Bus error)"),
        (FailureClass.OOM_HOST, r"insufficient shared memory"),
        (FailureClass.CONFIG, DEVICE_ASSERT),
        (FailureClass.CONFIG, ONE_VALUE),
        (FailureClass.CONFIG, r"No space left on device|Disk quota exceeded"),
        (FailureClass.INFRA, r"\bXid\b|uncorrectable ECC|CUDA error: (unspecified launch|ECC)"),
        (
            FailureClass.INFRA,
            r"NCCL (error|WARN .*(timeout|abort))|ncclSystemError|ncclRemoteError",
        ),
        (FailureClass.INFRA, r"Connection (reset by peer|closed by remote)|Socket Timeout"),
        (
            FailureClass.INFRA,
            r"^rtdetr: error: (node \d+ does not answer, and |all ranks wait for one another: )?"
            r"rank \d+ on .+ (stands in|gave no stack)",
        ),
        (FailureClass.INFRA, r"srun: error: Task launch for \S+ failed on node"),
        (FailureClass.INFRA, r"Unable to create step for job|Unable to confirm allocation"),
        (FailureClass.INFRA, r"NODE FAILURE|Node failure on|JOB LAUNCH FAILURE"),
    )
)
"""What known failures leave in a log; a cause stands before what it brings about."""

_NOISE = re.compile(
    r"srun: (launch/slurm: |error: )*(_step_signal|Job step aborted|Terminating|Force Terminated)"
    r"|srun: error: [^:]+: tasks? [\d,-]+: "
    r"|slurmstepd\S*: error: \*\*\* STEP "
    r"|(INFO|WARNING): |rtdetr-slurm: |Terminated$|Killed$"
)
"""Lines that tell that something ended, not why: srun's, slurmstepd's, apptainer's notes, ours."""

_EXCEPTION = re.compile(r"(\[rank\d+\]: )?([\w.]+\.)?[A-Z]\w*(Error|Exception)(: .*)?")
"""The last line of a Python traceback, as programs other than our own leave it in the log."""
_LOST = re.compile(r"ChildFailedError|Dist\w+Error")
"""What torchrun, and the ranks that lose another one, raise in their turn."""

BY_PEER = "lost the connection to the other ranks"
"""What a rank says that another one has taken along."""

_RANK_ERROR = re.compile(r"rtdetr: error: rank (?P<rank>\d{1,7})\b")
"""How the engine's line about a rank begins."""

_TASK_NOT_STARTED = re.compile(r"srun: error: Task launch for \S+ failed on node (?P<node>[\w.-]+)")
_TASK_ENDED = re.compile(r"srun: error: (?P<node>[^:]+): tasks? [\d,-]+: (?P<how>.+)")
"""srun's line about a task that ended badly; the first one is the cause of those that follow."""

_REFUSED = re.compile(r"FATAL: +|Error for command \"\w+\": ")
"""How apptainer begins the line that says why it starts nothing."""

_LOG = "log: "
"""How evidence begins that is a line of the log."""

_STARTS = "rtdetr-slurm: starts "
"""How the stage run begins what a start writes; the log of a requeued job goes on in one file."""

_LAST_SIGNAL = 64


def classify(
    *,
    slurm_state: str | None = None,
    status_line: Mapping[str, Any] | None = None,
    exit_code: int | None = None,
    signal: int | None = None,
    log_tail: Sequence[str] = (),
) -> Failure:
    """The class of a failure, from the surest witness to the least sure.

    Args:
        slurm_state: Slurm's state of the job, None where Slurm says nothing.
        status_line: the last line of status.json.
        exit_code: of the job or step; 128+n counts as signal n.
        signal: that ended it, as Slurm's `exit:signal` has it.
        log_tail: last lines of the job's log.
    """
    log = [line.strip() for line in _of_last_start(log_tail) if line.strip()]
    if status_line is not None and status_line.get("status") == Status.FAILURE.value:
        told = _of_status(status_line)
        # A node that loses another one tells of that; the log, of what became of the other.
        if BY_PEER not in told.evidence or not any(map(_killed_task, log)):
            return told
    if slurm_state is not None and slurm_state in FAILURES:
        return Failure(FAILURES[slurm_state], f"Slurm says {slurm_state}")
    refusal = next((line for line in log if _REFUSED.match(line)), None)
    if refusal is not None:
        # What a usage text goes on to say is no evidence.
        return Failure(_signed([refusal])[0] or FailureClass.INFRA, f"{_LOG}{refusal}")
    if (cause := _rank_error(log)) is not None:
        # What the other ranks then lose, their connections, explains nothing.
        failure_class, line = _signed([cause])
        if failure_class is None:
            failure_class, line = _signed(log, but=FailureClass.INFRA)
        return Failure(failure_class or FailureClass.UNKNOWN, f"{_LOG}{line or cause}")
    if any(map(_killed_task, log)):
        log = [line for line in log if BY_PEER not in line]
    failure_class, line = _signed(log)
    if failure_class is not None:
        return Failure(failure_class, f"{_LOG}{line}")
    return Failure(FailureClass.UNKNOWN, _how_it_ended(exit_code, signal, log))


def _of_last_start(log: Sequence[str]) -> Sequence[str]:
    begins = [number for number, line in enumerate(log) if line.startswith(_STARTS)]
    return log[begins[-1] :] if begins else log


def _rank_error(log: Sequence[str]) -> str | None:
    """The engine's line about the rank that failed first; none after a whole task was killed, for
    that takes the ranks of the other nodes along."""
    for line in log:
        if line.startswith("rtdetr: error: ") and BY_PEER not in line:
            return line
        if _killed_task(line):
            return None
    return None


def failed_ranks(log_tail: Sequence[str]) -> set[int]:
    """The rank that failed first, by the log of the last start, and those that failed with the same
    words; none where it names none."""
    log = [line.strip() for line in _of_last_start(log_tail)]
    first = _RANK_ERROR.match(_rank_error(log) or "")
    if first is None:
        return set()
    words = first.string[first.end() :]
    found = (match for line in log if (match := _RANK_ERROR.match(line)))
    return {int(one["rank"]) for one in found if one.string[one.end() :] == words}


def failed_task_node(log_tail: Sequence[str]) -> str | None:
    """The node whose task srun could not start, or saw killed; None where its log names none.

    A task that ended with an exit code says nothing of its node, unless apptainer refused there.
    """
    log = [line.strip() for line in _of_last_start(log_tail)]
    refused = any(map(is_apptainers_refusal, log))
    for line in log:
        if match := _TASK_NOT_STARTED.search(line):
            return match["node"]
        if match := _TASK_ENDED.match(line):
            return match["node"] if refused or _killed_task(line) else None
    return None


def is_apptainers_refusal(line: str) -> bool:
    """Whether apptainer says with this line why it starts nothing."""
    return _REFUSED.match(line.removeprefix(_LOG)) is not None


def _killed_task(line: str) -> str | None:
    """srun's words about a task that ended by a signal."""
    match = _TASK_ENDED.match(line)
    return match[0] if match and not match["how"].startswith("Exited with") else None


def _signed(log: Sequence[str], but: FailureClass | None = None) -> tuple[FailureClass | None, str]:
    """The known failure that a log tells of, and the line; of classes other than `but`."""
    for failure_class, pattern in _LOG_SIGNS:
        for line in reversed(log):
            if failure_class is not but and pattern.search(line):
                return failure_class, line
    return None, ""


def _of_status(line: Mapping[str, Any]) -> Failure:
    reason = str(line.get("reason") or line.get("message") or "no reason given")
    try:
        failure_class = FailureClass(line.get("failure_class"))
    except ValueError:
        failure_class = FailureClass.UNKNOWN
    return Failure(failure_class, reason)


def _how_it_ended(exit_code: int | None, signal: int | None, log: Sequence[str]) -> str:
    if not signal and exit_code is not None and 128 < exit_code <= 128 + _LAST_SIGNAL:
        signal = exit_code - 128
    how = f"killed by signal {signal}" if signal else f"exit code {exit_code}"
    if exit_code is None and not signal:
        how = "ended without an exit code"
    # Of several tasks the first that ended took the others along.
    first = next((line for line in log if _TASK_ENDED.match(line)), "")
    if killed := _killed_task(first):
        return f"{how}; {killed}"
    if raised := [line for line in log if _EXCEPTION.fullmatch(line) and not _LOST.search(line)]:
        return f"{how}; log: {raised[-1]}"
    telling = [line for line in log if not _NOISE.match(line)]
    last = (telling or log or [""])[-1]
    return f"{how}; last line of the log: {last}" if last else f"{how}; the log is empty"
