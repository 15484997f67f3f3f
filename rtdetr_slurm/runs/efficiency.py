"""efficiency.json: what the time of a task that has ended went into, with one line of advice.

Standard library only.
"""

from __future__ import annotations

import json

from rtdetr_slurm.contract import EFFICIENCY_JSON, EFFICIENCY_VERSION
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.alive import last_alive
from rtdetr_slurm.runs.claim import claim_id
from rtdetr_slurm.runs.live import STARTING, read_live
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import task_history
from rtdetr_slurm.runs.usage import Usage, usage_of

_ADVISED_FROM = 0.1
"""Less of the allocated time is not worth a change."""


def keep_efficiency(run: Run, task: StageTask) -> None:
    """Write the file, once a task's end is on record; a summary for people, and no proof.

    Raises:
        OSError: it cannot be written.
        RequestError: the record cannot be read.
    """
    live = read_live(task.results_dir, claim_id(run.id, task.name))
    history = task_history(run.events(), task)
    usage = usage_of(task, history, live, None, alive=last_alive(run, task))
    content = {
        "schema_version": EFFICIENCY_VERSION,
        "run_id": run.id,
        "stage": task.name,
        **usage.to_json(),
        "advice": advice(usage),
    }
    text = json.dumps(content, indent=2, allow_nan=False)
    write_atomic(task.results_dir / EFFICIENCY_JSON, text + "\n")


def advice(usage: Usage) -> str | None:
    """What the allocated time was lost to most, and what to do about it; None when nothing is worth
    a change."""
    if not usage.seconds or not usage.allocated_s:
        return None
    who = "the GPUs" if usage.gpus > 1 else "the GPU" if usage.gpus else "the training"
    losses = {
        "loader": usage.loader_wait_s,
        "validating": usage.seconds["validating"] if usage.seconds["stepping"] else 0.0,
        "saving": usage.seconds["saving"],
        "starting": usage.starting_s,
    }
    what = max(losses, key=lambda name: losses[name])
    share = min(losses[what] / usage.allocated_s, 1.0)  # by the clocks of two machines
    if share < _ADVISED_FROM:
        return None
    said = {
        "loader": f"{who} waited for data for {share:.0%} of the time: raise dataset.workers, and "
        "job.cpus_per_task with it, or put the images on a faster file system",
        "validating": f"validation took {share:.0%} of the time: raise train.validation_interval",
        "saving": f"checkpoints took {share:.0%} of the time: raise train.checkpoint_interval, or "
        "write to a faster file system",
        "starting": f"starting took {share:.0%} of the time, in which {who} waited: "
        f"most of it {_longest_start(usage)}",
    }
    return said[what]


def _longest_start(usage: Usage) -> str:
    words = {
        "container": "for the container; an image on a faster file system starts sooner",
        "imports": "for loading programs and for the ranks to meet; longer jobs pay it less often",
        "data": "for reading the data set; see whether its files are on a slow file system",
        "model": "for building the model; longer jobs pay it less often",
    }
    return words[max(STARTING, key=lambda name: usage.seconds.get(name, 0.0))]
